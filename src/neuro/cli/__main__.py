"""``python -m neuro.cli`` is ``neuro``."""

from neuro.cli.main import main

if __name__ == "__main__":
    main()
