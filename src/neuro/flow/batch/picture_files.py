"""A picture as SVG and as PDF, written by hand: both are a few lines for boxes, lines and words."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator

from neuro.domain.cyrillic import in_latin
from neuro.domain.printable import printable
from neuro.flow.batch.picture import SIZE, Arrow, Box, Picture, wide

NOTE = "The fonts of a PDF lack some letters of the names: they are spelled out. An .svg has them."
# No page of a PDF is longer in its own units.
_LONGEST = 14400
_ENCODING = "cp1252"


def svg(picture: Picture) -> bytes:
    """The picture as SVG."""
    from xml.sax.saxutils import escape

    width, height = f"{picture.width:.0f}", f"{picture.height:.0f}"
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" font-family="Courier, monospace" font-size="{SIZE:g}">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for box in picture.boxes:
        dash = ' stroke-dasharray="4 3"' if box.broken else ""
        lines.append(
            f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}"'
            f' height="{box.height:.1f}" rx="3" fill="{box.fill}" stroke="#333333"'
            f' stroke-width="{box.line:g}"{dash}/>'
        )
    for it in picture.arrows:
        middle = (it.x1 + it.x2) / 2
        lines.append(
            f'<path d="M{it.x1:.1f} {it.y1:.1f} C{middle:.1f} {it.y1:.1f} {middle:.1f}'
            f' {it.y2:.1f} {it.x2:.1f} {it.y2:.1f}" fill="none" stroke="#333333"/>'
        )
        if it.head:
            lines.append(f'<path d="M{it.x2:.1f} {it.y2:.1f} l-6 -3 v6 z" fill="#333333"/>')
    for words in picture.words:
        # Fonts differ a little: the text is made as wide as its place.
        weight = ' font-weight="bold"' if words.bold else ""
        lines.append(
            f'<text x="{words.x:.1f}" y="{words.y:.1f}" textLength="{wide(words.text):.1f}"'
            f' xml:space="preserve"{weight}>{escape(words.text)}</text>'
        )
    return "\n".join([*lines, "</svg>", ""]).encode()


def latin(text: str) -> str:
    r"""``text`` in the letters that every PDF viewer has; others are spelled, or told by number.

    >>> latin("Обучение (ő) 训"), latin("café")
    ('Obuchenie (o) \\u8bad', 'café')
    """
    return "".join(map(_latin, printable(text)))


def _latin(letter: str) -> str:
    if _is_drawn(letter):
        return letter
    if (spelled := in_latin(letter)) is not None:
        return spelled
    plain = unicodedata.normalize("NFKD", letter)
    bare = "".join(it for it in plain if not unicodedata.combining(it))
    return bare if bare and _is_drawn(bare) else letter.encode("ascii", "backslashreplace").decode()


def _is_drawn(text: str) -> bool:
    try:
        text.encode(_ENCODING)
    except UnicodeEncodeError:
        return False
    return True


def pdf(picture: Picture) -> bytes:
    """The picture as a PDF of one page. Its strings have been through ``latin``."""
    # A page larger than PDF allows is given in larger units.
    unit = math.ceil(max(picture.width, picture.height) / _LONGEST) or 1
    stream = "\n".join(_drawn(picture, unit)).encode(_ENCODING, "backslashreplace")
    fonts = " ".join(
        f"/{name} << /Type /Font /Subtype /Type1 /BaseFont /{face} /Encoding /WinAnsiEncoding >>"
        for name, face in (("R", "Courier"), ("B", "Courier-Bold"))
    )
    size = f"{picture.width / unit:.1f} {picture.height / unit:.1f}"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size}] /UserUnit {unit}"
        f" /Resources << /Font << {fonts} >> >> /Contents 4 0 R >>".encode(),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    whole = b"%PDF-1.6\n"
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(whole))
        whole += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    count = len(objects) + 1
    return whole + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n"
        b"%%%%EOF\n" % (count, table, count, len(whole))
    )


def _drawn(picture: Picture, unit: int) -> Iterator[str]:
    """What draws the page; in a PDF heights are counted from below."""
    height = picture.height
    yield f"{1 / unit:.6f} 0 0 {1 / unit:.6f} 0 0 cm 0.2 G"
    for box in picture.boxes:
        yield from _box(box, height)
    yield "1 w [] 0 d 0.2 g"
    for arrow in picture.arrows:
        yield _arrow(arrow, height)
    yield "0 g"
    for words in picture.words:
        text = words.text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
        font = "B" if words.bold else "R"
        yield f"BT /{font} {SIZE:g} Tf {words.x:.1f} {height - words.y:.1f} Td ({text}) Tj ET"


def _box(box: Box, height: float) -> Iterator[str]:
    red, green, blue = (int(box.fill[at : at + 2], 16) / 255 for at in (1, 3, 5))
    yield f"{red:.3f} {green:.3f} {blue:.3f} rg {box.line:g} w"
    yield "[4 3] 0 d" if box.broken else "[] 0 d"
    corner = f"{box.x:.1f} {height - box.y - box.height:.1f}"
    yield f"{corner} {box.width:.1f} {box.height:.1f} re B"


def _arrow(it: Arrow, height: float) -> str:
    middle, y1, y2 = (it.x1 + it.x2) / 2, height - it.y1, height - it.y2
    line = (
        f"{it.x1:.1f} {y1:.1f} m {middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {it.x2:.1f}"
        f" {y2:.1f} c S"
    )
    if not it.head:
        return line
    x = it.x2 - 6
    return f"{line} {it.x2:.1f} {y2:.1f} m {x:.1f} {y2 + 3:.1f} l {x:.1f} {y2 - 3:.1f} l f"
