"""The pages: plain HTML, with one style sheet and one script inside and nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import os
import pathlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote, urlencode

from neuro.actions.filebrowser.texts import Texts
from neuro.actions.filebrowser.tree import Entry, Path

ROWS = 1000

_HERE = pathlib.Path(__file__).parent
_STYLE = (_HERE / "style.css").read_text("utf-8")
_SCRIPT = (_HERE / "script.js").read_text("utf-8")
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'%3E"
    "%3Cpath fill='%232f6fdb' d='M3 5h6l2 2h10v12H3z'/%3E%3C/svg%3E"
)
_FOLDER = (
    '<svg class="icon folder" viewBox="0 0 24 24" aria-hidden="true"><path d="M2.5 6.5a2 2 0 0 1 '
    '2-2h4.2l2.2 2.3h8.6a2 2 0 0 1 2 2v8.7a2 2 0 0 1-2 2h-15a2 2 0 0 1-2-2z"/></svg>'
)
_FILE = (
    '<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">'
    '<path d="M6 3.5h8l4.5 4.5v12.5H6zM14 3.5V8h4.5"/></svg>'
)
_STEPS = ("B", "kB", "MB", "GB", "TB", "PB")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# What a page may load: itself. File names can therefore never become a script.
POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{_digest(_STYLE)}'",
        f"script-src 'sha256-{_digest(_SCRIPT)}'",
        "img-src data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'self'",
    )
)


@dataclass(frozen=True, slots=True)
class Sorting:
    """What a list is sorted by, and which part of it is shown."""

    key: str = "name"
    descending: bool = False
    page: int = 1

    @classmethod
    def of(cls, query: dict[str, str]) -> Sorting:
        """The sorting that a query asks for; nonsense in it is ignored."""
        key = query.get("sort", "name")
        page = query.get("page", "1")
        return cls(
            key if key in {"name", "size", "modified"} else "name",
            query.get("order") == "desc",
            max(1, int(page)) if page.isascii() and page.isdigit() and len(page) < 9 else 1,
        )

    def sorted(self, entries: Iterable[Entry]) -> list[Entry]:
        """Folders first; equal ones by name."""
        by_name = sorted(entries, key=lambda entry: (entry.name.casefold(), entry.name))
        if self.key == "size":
            by_name.sort(key=lambda entry: entry.size, reverse=self.descending)
        elif self.key == "modified":
            by_name.sort(key=lambda entry: entry.modified, reverse=self.descending)
        elif self.descending:
            by_name.reverse()
        by_name.sort(key=lambda entry: not entry.is_folder)
        return by_name

    def link(self, *, key: str | None = None, page: int = 1) -> str:
        """The query for another order, or for another part of this one."""
        turned = key == self.key and not self.descending
        descending = turned if key else self.descending
        query = {"sort": key or self.key, "order": "desc" if descending else "asc"}
        return escape("?" + urlencode(query | ({"page": str(page)} if page > 1 else {})))


def quoted(name: str) -> str:
    """A name as part of a URL, whatever bytes it has."""
    return quote(os.fsencode(name), safe="")


def shown(name: str) -> str:
    """A name as HTML, with a mark for what is no text."""
    return escape(os.fsencode(name).decode("utf-8", "replace"))


def size_text(size: int) -> str:
    """A size for people."""
    value, step = float(size), 0
    while value >= 999.5 and step < len(_STEPS) - 1:
        value /= 1000
        step += 1
    number = f"{value:.0f}" if step == 0 or value >= 99.5 else f"{value:.1f}"
    return f"{number} {_STEPS[step]}"


def folder_page(
    path: Path, entries: Sequence[Entry], sorting: Sorting, texts: Texts, *, read_only: bool
) -> str:
    """The list of a folder."""
    pages = max(1, -(-len(entries) // ROWS))
    page = min(sorting.page, pages)
    rows = sorting.sorted(entries)[(page - 1) * ROWS : page * ROWS]
    body = "".join(
        (
            _crumbs(path, texts),
            _tools(texts, read_only=read_only),
            '<form method="post" action="./" id="list">',
            _table(path, rows, sorting, texts, read_only=read_only),
            _pages(sorting, page, pages, texts),
            "" if read_only or not rows else _selection(texts),
            "</form>",
        )
    )
    return _document(path[-1] if path else texts["title"], body, texts)


def delete_page(path: Path, names: Sequence[str], texts: Texts) -> str:
    """The question before anything is deleted."""
    items = "".join(f"<li>{shown(name)}</li>" for name in names)
    hidden = "".join(f'<input type="hidden" name="name" value="{quoted(n)}">' for n in names)
    body = (
        f'{_crumbs(path, texts)}<main class="card"><h1>{texts["delete-title"]}</h1>'
        f"<p>{texts['delete-what']}</p><ul>{items}</ul>"
        f'<form method="post" action="./">{hidden}<input type="hidden" name="sure" value="yes">'
        f'<button class="danger" name="do" value="delete">{texts["delete"]}</button> '
        f'<a class="button" href="./">{texts["cancel"]}</a></form></main>'
    )
    return _document(texts["delete-title"], body, texts)


def error_page(sentence: str, texts: Texts) -> str:
    """What did not work and why."""
    body = (
        f'<main class="card" role="alert"><h1>{texts["error-title"]}</h1>'
        f'<p>{escape(sentence)}</p><p><a class="button" href="./">{texts["back"]}</a></p></main>'
    )
    return _document(texts["error-title"], body, texts)


def _document(title: str, body: str, texts: Texts) -> str:
    return (
        f'<!doctype html><html lang="{texts["language"]}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{shown(title)}</title><link rel="icon" href="{_ICON}">'
        f"<style>{_STYLE}</style></head><body>{body}<script>{_SCRIPT}</script></body></html>"
    )


def _crumbs(path: Path, texts: Texts) -> str:
    steps = [texts["top"], *path]
    links = [
        f'<li><a href="{"../" * (len(steps) - 1 - depth)}">{shown(name)}</a></li>'
        for depth, name in enumerate(steps[:-1])
    ]
    links.append(f'<li aria-current="page">{shown(steps[-1])}</li>')
    return (
        f'<header><nav aria-label="{texts["where"]}"><ol class="crumbs">{"".join(links)}</ol>'
        f'</nav><a class="button" href="./?zip">{texts["download-folder"]}</a></header>'
    )


def _tools(texts: Texts, *, read_only: bool) -> str:
    if read_only:
        return ""
    said = " ".join(
        f'data-{key}="{escape(texts[key])}"'
        for key in ("replace", "uploading", "uploaded", "broken")
    )
    return (
        f'<section class="tools" id="tools" {said}>'
        f'<label class="button main upload" hidden>{texts["upload-files"]}'
        '<input type="file" id="files" multiple></label>'
        f'<label class="button upload" hidden>{texts["upload-folder"]}'
        '<input type="file" id="folder" webkitdirectory></label>'
        '<form method="post" action="./" class="inline">'
        f'<input name="to" required aria-label="{texts["folder-name"]}" '
        f'placeholder="{texts["new-folder"]}" autocomplete="off">'
        f'<button name="do" value="folder">{texts["create"]}</button></form>'
        f"<noscript><p>{texts['no-script']}</p></noscript>"
        '<p id="status" role="status" hidden></p><progress id="progress" max="1" value="0" hidden>'
        "</progress></section>"
    )


def _table(
    path: Path, rows: Sequence[Entry], sorting: Sorting, texts: Texts, *, read_only: bool
) -> str:
    if not rows:
        hint = "" if read_only else f' <span class="drop" hidden>{texts["drop"]}</span>'
        up = f'<p><a href="../">{texts["up"]}</a></p>' if path else ""
        return f'<div class="empty"><p>{texts["empty"]}{hint}</p>{up}</div>'
    box = "" if read_only else '<td class="box"></td>'
    head = "".join(_heading(key, sorting, texts) for key in ("name", "size", "modified"))
    up = (
        f'<tr>{box}<td colspan="3" class="name"><a href="../">{_FOLDER}..'
        f'<span class="aside">{texts["up"]}</span></a></td></tr>'
        if path
        else ""
    )
    lines = "".join(_row(entry, texts, read_only=read_only) for entry in rows)
    return f"<table><thead><tr>{box}{head}</tr></thead><tbody>{up}{lines}</tbody></table>"


def _heading(key: str, sorting: Sorting, texts: Texts) -> str:
    order = ""
    if key == sorting.key:
        order = f' aria-sort="{"descending" if sorting.descending else "ascending"}"'
    link = f'<a href="{sorting.link(key=key)}">{texts[key]}</a>'
    return f'<th scope="col" class="{key}"{order}>{link}</th>'


def _row(entry: Entry, texts: Texts, *, read_only: bool) -> str:
    name, href = shown(entry.name), f"./{quoted(entry.name)}"
    aside = f'<span class="aside">{texts["link"]}</span>' if entry.is_link else ""
    if entry.is_folder:
        what = f'<a href="{href}/">{_FOLDER}{name}{aside}</a>'
    elif entry.is_file:
        what = f'<a href="{href}" download>{_FILE}{name}{aside}</a>'
    else:
        what = f'<span class="other">{_FILE}{name}{aside}</span>'
    label = escape(texts["select"].format("")) + name
    box = (
        ""
        if read_only
        else f'<td class="box"><input type="checkbox" name="name" value="{quoted(entry.name)}" '
        f'aria-label="{label}"></td>'
    )
    size = size_text(entry.size) if entry.is_file else ""
    moment = time.localtime(entry.modified)
    return (
        f'<tr>{box}<td class="name">{what}</td><td class="size">{size}</td>'
        f'<td class="modified"><time datetime="{time.strftime("%Y-%m-%dT%H:%M:%S%z", moment)}">'
        f"{time.strftime('%Y-%m-%d %H:%M', moment)}</time></td></tr>"
    )


def _pages(sorting: Sorting, page: int, pages: int, texts: Texts) -> str:
    if pages == 1:
        return ""
    earlier = f'<a href="{sorting.link(page=page - 1)}">{texts["earlier"]}</a> '
    later = f' <a href="{sorting.link(page=page + 1)}">{texts["later"]}</a>'
    where = texts["page"].format(page, pages)
    return (
        f'<p class="pages">{earlier if page > 1 else ""}{where}{later if page < pages else ""}</p>'
    )


def _selection(texts: Texts) -> str:
    return (
        f'<fieldset class="tools selection" id="selection"><legend>{texts["selected"]}</legend>'
        f'<input name="to" id="to" aria-label="{texts["move-to"]}" '
        f'placeholder="{texts["move-to"]}" autocomplete="off">'
        f'<button name="do" value="move">{texts["move"]}</button>'
        f'<button name="do" value="delete" class="danger">{texts["delete"]}</button></fieldset>'
    )
