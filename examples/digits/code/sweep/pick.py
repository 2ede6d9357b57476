"""After all rows: take the best model, and judge it once by pictures that no model has seen."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import joblib
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    options = parser.parse_args()

    rows = [row for row in json.loads(os.environ["ROWS"]) if row["result"] == "succeeded"]
    best = max(rows, key=lambda row: float(row["outputs"]["accuracy"]))
    model = joblib.load(options.models / best["outputs"]["model"])
    pictures = np.load(options.data)
    accuracy = round(model.score(pictures["test_pixels"], pictures["test_digits"]), 4)
    print(f"{best['id']} is the best of {len(rows)}: {accuracy:.2%} of unseen digits right")
    print(f"::set-output name=model::{best['id']}")
    print(f"::set-output name=accuracy::{accuracy}")


if __name__ == "__main__":
    main()
