"""The last task: a picture of how each model learned."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 1200, 680, 110, 130, 330, 80
PAPER, INK, GREY, LINE = (255, 255, 255), (24, 32, 48), (110, 120, 136), (226, 230, 236)
# Told apart by colour-blind eyes as well; the model by its dash, the rate by its colour.
COLORS = ((17, 94, 163), (221, 133, 27), (46, 139, 87), (196, 48, 43), (120, 84, 160), (90, 90, 90))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--best", required=True)
    parser.add_argument("--accuracy", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    rows = [row for row in json.loads(os.environ["ROWS"]) if row["result"] == "succeeded"]
    path = options.out / "learning.png"
    draw(rows, options.best, options.accuracy).save(path, optimize=True)
    summary = {
        "best": options.best,
        "accuracy": options.accuracy,
        "models": {row["id"]: float(row["outputs"]["accuracy"]) for row in rows},
    }
    (options.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"Wrote {path} and summary.json")


def draw(rows: list[dict[str, Any]], best: str, accuracy: float) -> Image.Image:
    """Accuracy by epoch, one line a model, the best one thick, its name beside its end."""
    image = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    canvas = ImageDraw.Draw(image)
    font = ImageFont.load_default
    canvas.text((LEFT, 34), "How each model learned", INK, font(34))
    said = f"best: {best}, {accuracy:.2%} of unseen digits right"
    canvas.text((LEFT, 82), said, GREY, font(20))
    curves = {row["id"]: json.loads(row["outputs"]["curve"]) for row in rows}
    epochs = max(len(curve) for curve in curves.values())

    def x(epoch: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * epoch / max(1, epochs - 1)

    def y(share: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    for tenth in range(0, 11, 2):
        canvas.line((LEFT, y(tenth / 10), WIDTH - RIGHT, y(tenth / 10)), LINE, 1)
        canvas.text((LEFT - 14, y(tenth / 10)), f"{tenth * 10} %", GREY, font(16), anchor="rm")
    for epoch in range(epochs):
        canvas.text((x(epoch), HEIGHT - BOTTOM + 22), str(epoch + 1), GREY, font(16), anchor="mm")
    canvas.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 26), "epoch", GREY, font(16), anchor="mm")
    lowest = TOP
    ranked = sorted(curves.items(), key=lambda item: -item[1][-1])
    for place, (name, curve) in enumerate(ranked):
        color = COLORS[place % len(COLORS)]
        points = [(x(epoch), y(share)) for epoch, share in enumerate(curve)]
        canvas.line(points, color, 5 if name == best else 2, joint="curve")
        for point in points:
            canvas.circle(point, 4, color)
        # Names of lines that end close together are moved apart.
        lowest = max(lowest + 24, y(curve[-1]))
        canvas.text((x(len(curve) - 1) + 16, lowest), name, color, font(16), anchor="lm")
    return image


if __name__ == "__main__":
    main()
