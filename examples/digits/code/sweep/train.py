"""One row of the matrix: train a model, and say how good it is on the pictures held back."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import joblib
import numpy as np
from sklearn.linear_model import SGDClassifier
from sklearn.neural_network import MLPClassifier

DIGITS = np.arange(10)
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", choices=("linear", "network"), required=True)
    parser.add_argument("--lr", type=float, required=True, help="the learning rate")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    pictures = np.load(options.data)
    pixels, digits = pictures["fit_pixels"], pictures["fit_digits"]
    if options.model == "linear":
        model = SGDClassifier(
            loss="log_loss", learning_rate="constant", eta0=options.lr, random_state=0
        )
    else:
        model = MLPClassifier(
            hidden_layer_sizes=(64,), solver="sgd", learning_rate_init=options.lr, random_state=0
        )
    chance = np.random.default_rng(0)
    curve = []
    for epoch in range(1, options.epochs + 1):
        order = chance.permutation(len(digits))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            model.partial_fit(pixels[batch], digits[batch], classes=DIGITS)
        curve.append(round(model.score(pictures["held_pixels"], pictures["held_digits"]), 4))
        print(f"Epoch {epoch:>2}/{options.epochs}: {curve[-1]:.2%} right")

    name = f"{options.model}-{options.lr}-{options.epochs}.joblib"
    joblib.dump(model, options.out / name, compress=3)
    print(f"::set-output name=model::{name}")
    print(f"::set-output name=accuracy::{curve[-1]}")
    print(f"::set-output name=curve::{json.dumps(curve)}")


if __name__ == "__main__":
    main()
