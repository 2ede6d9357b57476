"""``python -m neuro.builder``: the program of a builder job."""

from neuro.builder.program import main

if __name__ == "__main__":
    main()
