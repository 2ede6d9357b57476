"""Flow files that are right, of every kind."""

LIVE = """\
kind: live
id: my_flow
title: Training
defaults:
  env: {A: 1, B: true, C: "${{ git.sha }}"}
  tags: [a, "b-${{ flow.flow_id }}"]
  volumes: [~, "${{ volumes.code.ref }}"]
  workdir: /project
  life_span: 1d12h
  preset: cpu-small
  schedule_timeout: 600
volumes:
  code:
    remote: storage:$[[ flow.project_id ]]/code
    mount: /code
    local: code
    read_only: yes
  disk: {remote: "disk:scratch", mount: /scratch}
images:
  train:
    ref: image:train:${{ git.sha }}
    context: .
    dockerfile: Dockerfile
    build_args: [A=1]
    env: {TOKEN: "secret:token"}
    volumes:
    - ~
    build_preset: cpu
    force_rebuild: ${{ True }}
    extra_kaniko_args: --verbosity=debug
  public: {ref: "python:3.12"}
mixins:
  gpu: {preset: gpu, tags: [gpu], detach: true, params: {x: 1}}
  more: {mixins: [gpu], port_forward: ["2222:22"]}
jobs:
  train:
    mixins: [more]
    title: Train
    name: train-${{ multi.suffix }}
    image: ${{ images.train.ref }}
    params:
      lr: 0.1
      data: ~
      long: {default: x, descr: The long form}
    entrypoint: /bin/sh
    bash: |
      python train.py \\
        --lr ${{ params.lr }}
    env: ${{ env }}
    volumes: ${{ keys(volumes) }}
    tags: []
    life_span: ${{ 60 * 60 }}
    http_port: "8080"
    http_auth: no
    pass_config: true
    restart: on-failure
    detach: false
    browse: ${{ 1 }}
    port_forward: ["80:80", "${{ params.port }}:22"]
    multi: true
    schedule_timeout: 1:30
    workdir: ~
    preset: ~
  jupyter:
    action: gh:neuro-actions/jupyter@v1.0
    args: {port: 8888, secure: true, name: "${{ flow.title }}", rate: 1.5}
    params: {x: ~}
  module: {module: "ws:.neuro/module", args: {}}
  nulls: {image: x, volumes: ~, tags: ~, env: ~, params: ~, mixins: ~, cmd: ~}
"""

BATCH = """\
kind: batch
life_span: 2d
title: Pipeline
schedule: {cron: "0 3 * * 1-5", timezone: Europe/Berlin, catch_up: all, overlap: cancel}
concurrency: {group: "train-${{ params.a }}", cancel_running: true}
params: {a: 1, b: {default: ~, descr: B}}
defaults:
  fail_fast: false
  max_parallel: 5
  cache: {strategy: none, life_span: 1h, key: "${{ params.a }}"}
images: ~
volumes: ~
mixins:
  common: {image: x, needs: [], enable: "${{ always() }}", cache: {strategy: inherit}}
  flaky: {retry: 3, timeout: 1h, continue_on_error: true}
tasks:
- id: prepare
  image: x
  python: print(1)
- mixins: [common]
  id: train_${{ matrix.x }}
  needs: [prepare]
  strategy:
    matrix:
      x: [1, a, 1.5, true, "${{ 1 + 1 }}"]
      y: ${{ range(3) }}
      exclude:
      - {x: 1}
      include:
      - {x: 7, y: "${{ 8 }}"}
    fail_fast: ${{ strategy.fail_fast }}
    max_parallel: 2
  enable: always()
  cache: {strategy: default, life_span: 3600, key: v1}
  retry: {attempts: "${{ matrix.ORDINAL + 1 }}", delay: 30s, backoff: 1.5}
  timeout: ${{ 60 * 60 }}
  continue_on_error: ${{ matrix.x == 1 }}
- image: x
  strategy: {matrix: {include: [{lr: 0.1, model: svm}, {model: tree, lr: 1}]}}
  retry: "${{ 2 }}"
- action: ws:action
  args: {n: 5}
  needs: {prepare: running, "train_${{ 1 }}": completed}
  continue_on_error: no
  cache: ~
  enable: false
- module: ws:module
"""

PROJECT = """\
id: my_project
project_name: platform-project
owner: alice
role: alice/projects/x
defaults: {preset: x, fail_fast: true}
images: {i: {ref: x}}
volumes: {v: {remote: "storage:x", mount: /x}}
mixins: {m: {image: x, mixins: []}}
"""

LIVE_ACTION = """\
kind: live
name: a
author: b
descr: c
inputs:
  a: {}
  b: {default: x, descr: B}
  c: {type: int, default: 5}
  d: {type: float, default: 1.5}
  e: {type: bool, default: false}
  f: short
  g: ~
job:
  image: x
  cmd: run ${{ inputs.a }}
  detach: true
  multi: yes
"""

BATCH_ACTION = """\
kind: batch
inputs: {}
outputs:
  needs: [a]
  result: {value: "${{ needs.a.outputs.x }}", descr: R}
cache: {strategy: default}
images: {i: {ref: "image:x"}}
tasks:
- id: a
  image: ${{ images.i.ref }}
"""

STATEFUL_ACTION = """\
kind: stateful
outputs: {x: {descr: X}}
cache: {strategy: none}
main: {image: x, bash: "echo ::save-state name=a::b"}
post: {image: x, cmd: "echo ${{ state.a }}"}
post_if: ${{ success() }}
"""

LOCAL_ACTION = """\
kind: local
inputs: {a: ~}
outputs: {x: {}}
python: print("${{ inputs.a }}")
"""

FILES = [
    ("live", LIVE),
    ("live", "kind: live\njobs: {}\n"),
    ("batch", BATCH),
    ("batch", "kind: batch\ntasks: []\n"),
    ("batch", "kind: batch\nconcurrency: train\nschedule: {cron: '*/5 * * * *'}\ntasks: []\n"),
    ("batch", "kind: batch\nconcurrency: ~\nschedule: ~\ntasks: [{image: x, retry: ~}]\n"),
    ("project", PROJECT),
    ("project", "id: a\n"),
    ("action", LIVE_ACTION),
    ("action", BATCH_ACTION),
    ("action", STATEFUL_ACTION),
    ("action", LOCAL_ACTION),
]
