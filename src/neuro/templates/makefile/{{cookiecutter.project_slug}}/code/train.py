"""Teach a softmax regression to tell three species of iris apart.

The program knows nothing of the platform: it reads a table, trains, and writes what it learned.

    python train.py --lr 0.5 --epochs 50
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parent.parent


def read_table(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The measurements, the index of each flower's species, and the names of the species."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    species = sorted({row[-1] for row in rows})
    features = np.array([[float(value) for value in row[:-1]] for row in rows])
    return features, np.array([species.index(row[-1]) for row in rows]), species


def split(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows to train on, and which fifth to test with."""
    order = np.random.default_rng(seed).permutation(count)
    return order[count // 5 :], order[: count // 5]


def predict(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """For each flower the probability of each species."""
    scores = features @ weights[:-1] + weights[-1]
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def accuracy(features: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """The share of flowers whose most probable species is the right one."""
    return float((predict(features, weights).argmax(axis=1) == labels).mean())


def step(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray, rate: float
) -> tuple[np.ndarray, float]:
    """One step of gradient descent: the new weights, and the loss before it."""
    chances = predict(features, weights)
    loss = float(-np.log(chances[np.arange(len(labels)), labels] + 1e-12).mean())
    error = chances - np.eye(weights.shape[1])[labels]
    gradient = np.vstack([features.T @ error, error.sum(axis=0)]) / len(labels)
    return weights - rate * gradient, loss


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a model of iris flowers.")
    parser.add_argument("--lr", type=float, default=1.0, help="learning rate (default: 1.0)")
    parser.add_argument("--epochs", type=int, default=100, help="default: 100")
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    parser.add_argument("--data", type=Path, default=PROJECT / "data", help="folder of iris.csv")
    parser.add_argument("--results", type=Path, default=PROJECT / "results", help="folder to fill")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    features, labels, species = read_table(arguments.data / "iris.csv")
    train, test = split(len(labels), arguments.seed)
    mean, deviation = features[train].mean(axis=0), features[train].std(axis=0)
    features = (features - mean) / deviation
    weights = np.zeros((features.shape[1] + 1, len(species)))
    arguments.results.mkdir(parents=True, exist_ok=True)
    print(f"{len(train)} flowers to train on, {len(test)} to test with", flush=True)
    with (arguments.results / "log.csv").open("w", newline="") as file:
        log = csv.writer(file)
        log.writerow(["epoch", "loss", "accuracy"])
        for epoch in range(1, arguments.epochs + 1):
            weights, loss = step(features[train], labels[train], weights, arguments.lr)
            right = accuracy(features[test], labels[test], weights)
            log.writerow([epoch, f"{loss:.6f}", f"{right:.4f}"])
            print(
                f"epoch {epoch}/{arguments.epochs}: loss {loss:.4f}, test accuracy {right:.3f}",
                flush=True,
            )
    metrics = {
        "accuracy": accuracy(features[test], labels[test], weights),
        "train_accuracy": accuracy(features[train], labels[train], weights),
        "lr": arguments.lr,
        "epochs": arguments.epochs,
        "seed": arguments.seed,
    }
    np.savez(
        arguments.results / "model.npz",
        weights=weights,
        mean=mean,
        deviation=deviation,
        species=np.array(species),
    )
    (arguments.results / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"model.npz, metrics.json and log.csv are in {arguments.results}")


if __name__ == "__main__":
    main()
