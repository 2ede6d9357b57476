"""The first task: hold back a part of the training pictures, to compare models by."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

INK = 16.0  # the darkest value of a pixel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="has train.csv and test.csv")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    pixels, digits = read(options.data / "train.csv")
    test_pixels, test_digits = read(options.data / "test.csv")
    fit_pixels, held_pixels, fit_digits, held_digits = train_test_split(
        pixels, digits, test_size=0.25, random_state=0, stratify=digits
    )
    # The name tells what is in it, so that a later task with the same name has the same input.
    name = f"pictures-{hashlib.sha256(pixels.tobytes()).hexdigest()[:12]}.npz"
    options.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        options.out / name,
        fit_pixels=fit_pixels,
        fit_digits=fit_digits,
        held_pixels=held_pixels,
        held_digits=held_digits,
        test_pixels=test_pixels,
        test_digits=test_digits,
    )
    print(f"{len(fit_digits)} pictures to learn from, {len(held_digits)} to compare models by")
    print(f"::set-output name=file::{name}")


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of a file as rows of 64 numbers from 0 to 1, and what they show."""
    rows = np.loadtxt(path, delimiter=",", skiprows=1)
    return rows[:, :-1] / INK, rows[:, -1].astype(int)


if __name__ == "__main__":
    main()
