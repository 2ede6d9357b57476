"""``python -m neuro.flow`` is ``neuro-flow``."""

from neuro.flow.cli.main import main

if __name__ == "__main__":
    main()
