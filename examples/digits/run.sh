#!/bin/sh
# A training job from end to end, with nothing but the commands that you would type yourself.
# Run it with `make demo`; a second run starts from whatever the first one left.
set -eu
cd "$(dirname "$0")/../.."

here=examples/digits
out=.demo/digits

if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold='' plain=''; fi

step() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }

# Print a command the way a person would type it, then run it.
show() {
    printf '%s$ %s%s\n' "$bold" "$*" "$plain"
    "$@"
}

step "The platform, on this machine"
# The jobs below find their packages among the programs of this machine: the image `host` is these.
show neuro up --engine sandbox

step "Data and code go up to the platform's storage"
show python $here/prepare.py $out/data
show neuro mkdir -p storage:digits
show neuro cp -r -T $out/data storage:digits/data
show neuro cp -r -T $here/code storage:digits/code
show neuro ls -l storage:digits

step "A job with one CPU and two volumes: the code to read, the project to write"
# One job of a name may run at a time; an earlier demo that was interrupted may have left one.
if [ -n "$(neuro -q ps --name digits)" ]; then show neuro kill digits; fi
# One thread for one CPU: by default numpy starts a thread for each core of the machine.
show neuro run --preset cpu-small --name digits --env OMP_NUM_THREADS=1 \
    --volume storage:digits/code:/code:ro \
    --volume storage:digits:/project:rw \
    host -- python /code/train.py --data /project/data --results /project/results

step "An image: this machine's programs and the code, built without Docker"
# A second demo finds every step done.
show neuro image build -F --tag image:digits:v1 $here

step "A job in it: the code is part of the image"
show neuro run --preset cpu-small --env OMP_NUM_THREADS=1 --volume storage:digits:/project:ro \
    image:digits:v1 -- python train.py --data /project/data --results /tmp --epochs 3

step "What came out"
rm -rf $out/results
show neuro cp -r -T storage:digits/results $out/results
python - $out/results <<'END'
import json
import sys
from pathlib import Path

folder = Path(sys.argv[1])
metrics = json.loads((folder / "metrics.json").read_text())
print()
print(f"Accuracy  {metrics['accuracy']:.2%} ({metrics['mistakes']} mistakes in {metrics['test_pictures']})")
print(f"Picture   {(folder / 'confusion_matrix.png').resolve()}")
print(f"Model     {(folder / 'model.joblib').resolve()}")
END

step "A pipeline: six models, the best of them, a picture"
config=--config=$here
# One bake of a name may run at a time; an earlier demo that was interrupted may have left one.
neuro-flow "$config" cancel demo >/dev/null 2>&1 || true
# What an earlier demo has trained already is answered by the cache.
show neuro-flow "$config" bake sweep -n demo
show neuro-flow "$config" inspect demo
if command -v dot >/dev/null; then
    show neuro-flow "$config" inspect demo --output-graph $out/sweep.svg
else
    show neuro-flow "$config" inspect demo --output-graph $out/sweep.dot
fi
rm -rf $out/sweep
show neuro cp -r -T storage:digits/sweep $out/sweep
python - $out/sweep <<'END'
import json
import sys
from pathlib import Path

folder = Path(sys.argv[1])
summary = json.loads((folder / "summary.json").read_text())
print()
print(f"Best      {summary['best']}: {summary['accuracy']:.2%} of unseen digits right")
print(f"Picture   {(folder / 'learning.png').resolve()}")
graph = next(path for path in (folder.with_suffix(".svg"), folder.with_suffix(".dot")) if path.exists())
print(f"Graph     {graph.resolve()}")
END
cat <<'END'

The platform goes on running. Next:
  . .venv/bin/activate        # puts `neuro` on your PATH
  neuro ps --all              # the job you have just run
  neuro logs digits           # its output, again
  cd examples/digits          # where the pipeline is described, in .neuro/sweep.yml
  neuro-flow bake sweep -p epochs 20
  neuro run ubuntu echo 'Hello, World!'
  neuro down                  # stop the platform; its data stays
END
