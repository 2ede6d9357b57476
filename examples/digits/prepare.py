"""Write the UCI handwritten digits as two CSV files: the data that the job will train on.

The digits ship inside scikit-learn, so nothing is downloaded. Each row is one picture: 64 numbers
from 0 (paper) to 16 (ink), 8 rows of 8, and then the digit that it shows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

COLUMNS = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)] + ["digit"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write train.csv and test.csv")
    folder: Path = parser.parse_args().folder

    digits = load_digits()
    rows = np.column_stack([digits.data, digits.target]).astype(int)
    train, test = train_test_split(rows, test_size=360, random_state=0, stratify=digits.target)

    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train.csv", train), ("test.csv", test)):
        np.savetxt(
            folder / name, part, fmt="%d", delimiter=",", header=",".join(COLUMNS), comments=""
        )
        print(f"{folder / name}: {len(part)} pictures")


if __name__ == "__main__":
    main()
