"""Draw how often each digit was taken for each other one, and the pictures that were mistaken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL = 64
MARGIN = 40
LABELS = 56  # room for the digits beside and above the matrix
TITLE = 96
SIDE = 400  # the column of mistakes
COLUMNS = 3
PAPER, INK, GREY, LINE = (255, 255, 255), (24, 32, 48), (110, 120, 136), (226, 230, 236)
RIGHT, WRONG = (17, 94, 163), (196, 48, 43)

Mistake = tuple[np.ndarray, int, int]


def draw_confusion_matrix(counts: np.ndarray, mistakes: list[Mistake], path: Path) -> None:
    """``counts[true][answer]``; a mistake is (8 x 8 pixels from 0 to 1, true, answer)."""
    size = len(counts) * CELL
    image = Image.new(
        "RGB", (MARGIN * 2 + LABELS + size + SIDE, MARGIN + TITLE + LABELS + size + MARGIN), PAPER
    )
    draw = ImageDraw.Draw(image)

    total, right = int(counts.sum()), int(np.trace(counts))
    draw.text((MARGIN, MARGIN), "Handwritten digits", INK, font(34))
    draw.text(
        (MARGIN, MARGIN + 44),
        f"{right} of {total} right: accuracy {right / total:.2%}",
        GREY,
        font(20),
    )

    left, top = MARGIN + LABELS, MARGIN + TITLE + LABELS
    _draw_matrix(draw, counts, left, top)
    _draw_mistakes(image, draw, mistakes, left + size + MARGIN, top)
    _draw_upwards(image, "the digit", MARGIN, top + len(counts) * CELL // 2)
    image.save(path, optimize=True)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font inside Pillow: the same picture on every machine."""
    return ImageFont.load_default(size)


def _draw_matrix(draw: ImageDraw.ImageDraw, counts: np.ndarray, left: int, top: int) -> None:
    size = len(counts) * CELL
    draw.text((left + size / 2, top - 50), "the model's answer", GREY, font(16), anchor="mm")
    for digit in range(len(counts)):
        middle = digit * CELL + CELL / 2
        draw.text((left + middle, top - 20), str(digit), INK, font(20), anchor="mm")
        draw.text((left - 22, top + middle), str(digit), INK, font(20), anchor="mm")
    for (row, column), count in np.ndenumerate(counts):
        # A row's share of its own digit, so that frequent digits do not look better.
        share = count / max(1, counts[row].sum())
        color = _blend(PAPER, RIGHT if row == column else WRONG, _weight(share, row == column))
        x, y = left + column * CELL, top + row * CELL
        draw.rectangle((x, y, x + CELL, y + CELL), fill=color, outline=LINE)
        if count:
            ink = PAPER if row == column and share > 0.4 else INK
            draw.text((x + CELL / 2, y + CELL / 2), str(count), ink, font(20), anchor="mm")


def _draw_mistakes(
    image: Image.Image, draw: ImageDraw.ImageDraw, mistakes: list[Mistake], left: int, top: int
) -> None:
    draw.text(
        (left, top - 50), "the mistakes" if mistakes else "no mistakes", GREY, font(16), anchor="lm"
    )
    edge, step_x, step_y = 88, 124, 132
    rows = len(range(0, 10 * CELL, step_y))
    for place, (pixels, true, answer) in enumerate(mistakes[: rows * COLUMNS]):
        x = left + place % COLUMNS * step_x
        y = top + place // COLUMNS * step_y
        shades = Image.fromarray(((1 - pixels) * 255).astype(np.uint8))
        image.paste(shades.resize((edge, edge), Image.Resampling.BICUBIC), (x, y))
        draw.rectangle((x, y, x + edge, y + edge), outline=LINE)
        draw.text((x, y + edge + 8), str(true), RIGHT, font(18))
        draw.text((x + 18, y + edge + 8), "taken for", GREY, font(13))
        draw.text((x + edge, y + edge + 8), str(answer), WRONG, font(18), anchor="ra")


def _draw_upwards(image: Image.Image, words: str, left: int, middle: int) -> None:
    strip = Image.new("RGB", (160, 20), PAPER)
    ImageDraw.Draw(strip).text((80, 10), words, GREY, font(16), anchor="mm")
    image.paste(strip.rotate(90, expand=True), (left - 16, middle - 80))


def _weight(share: float, right: bool) -> float:
    # One mistake in thirty must still be seen, beside a diagonal that is nearly full.
    return share if right else min(1.0, 0.15 + 4 * share) if share else 0.0


def _blend(a: tuple[int, int, int], b: tuple[int, int, int], weight: float) -> tuple[int, int, int]:
    return tuple(round(x + (y - x) * weight) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]
