"""Train a classifier of handwritten digits: the job of the example.

It knows nothing of the platform. It reads a folder and writes a folder, and the volumes that it is
run with decide which: see ../run.sh.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import joblib
import numpy as np
from picture import draw_confusion_matrix
from progress import Progress
from sklearn.metrics import accuracy_score, confusion_matrix
from sklearn.neural_network import MLPClassifier

DIGITS = np.arange(10)
INK = 16.0  # the darkest value of a pixel


def main() -> None:
    options = parse_options()
    train_pixels, train_digits = read(options.data / "train.csv")
    test_pixels, test_digits = read(options.data / "test.csv")
    print(f"{len(train_digits)} pictures to learn from, {len(test_digits)} to be judged by")

    began = time.monotonic()
    model = train(train_pixels, train_digits, options)
    seconds = time.monotonic() - began

    answers = model.predict(test_pixels)
    metrics = {
        "accuracy": round(float(accuracy_score(test_digits, answers)), 4),
        "test_pictures": len(test_digits),
        "mistakes": int((answers != test_digits).sum()),
        "train_pictures": len(train_digits),
        "epochs": options.epochs,
        "hidden_units": options.hidden,
        "loss": round(float(model.loss_), 4),
        "seconds": round(seconds, 1),
    }

    options.results.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, options.results / "model.joblib", compress=3)
    (options.results / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    draw_confusion_matrix(
        confusion_matrix(test_digits, answers, labels=DIGITS),
        [
            (test_pixels[i].reshape(8, 8), int(test_digits[i]), int(answers[i]))
            for i in np.flatnonzero(answers != test_digits)
        ],
        options.results / "confusion_matrix.png",
    )
    print(f"Accuracy {metrics['accuracy']:.2%}: {metrics['mistakes']} mistakes in {len(answers)}")
    for path in sorted(options.results.iterdir()):
        print(f"Wrote {path} ({path.stat().st_size:,} bytes)")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("/project/data"))
    parser.add_argument("--results", type=Path, default=Path("/project/results"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=256, help="units in the hidden layer")
    parser.add_argument("--batch", type=int, default=16, help="pictures in one step")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of a file as rows of 64 numbers from 0 to 1, and what they show."""
    rows = np.loadtxt(path, delimiter=",", skiprows=1)
    return rows[:, :-1] / INK, rows[:, -1].astype(int)


def train(pixels: np.ndarray, digits: np.ndarray, options: argparse.Namespace) -> MLPClassifier:
    """One hidden layer, one pass over the data an epoch, each picture nudged a little each time."""
    chance = np.random.default_rng(options.seed)
    model = MLPClassifier(
        hidden_layer_sizes=(options.hidden,), alpha=1e-4, random_state=options.seed
    )
    for epoch in range(1, options.epochs + 1):
        order = chance.permutation(len(digits))
        with Progress(f"Epoch {epoch:>2}/{options.epochs}", len(order)) as progress:
            for start in range(0, len(order), options.batch):
                batch = order[start : start + options.batch]
                model.partial_fit(nudge(pixels[batch], chance), digits[batch], classes=DIGITS)
                progress.advance(len(batch), f"loss {model.loss_:.4f}")
    return model


def nudge(pixels: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Shift half of the pictures by one pixel: a digit is the same digit a little to the left."""
    pictures = pixels.reshape(-1, 8, 8)
    moved = [
        np.roll(picture, chance.integers(-1, 2), axis=chance.integers(0, 2))
        if chance.random() < 0.5
        else picture
        for picture in pictures
    ]
    return np.stack(moved).reshape(len(pixels), 64)


if __name__ == "__main__":
    main()
