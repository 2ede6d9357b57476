"""Pages for browsers: what this address is, how the page of a job is reached, and errors.

Jobs' own pages are not served here yet: their addresses answer with the command that opens one.
"""

from __future__ import annotations

import re
import shlex
from html import escape

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

_STYLE = (
    "body{font:16px/1.5 system-ui;max-width:42rem;margin:4rem auto;padding:0 1rem}"
    "code{background:#8882;padding:.15rem .4rem;border-radius:.2rem}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}a{color:#8cf}}"
)
# Of a status: the title in English; the title and a sentence in Russian.
_TITLES = {
    400: ("This request is wrong", "Неверный запрос", "Сервер не понял запрос:"),
    401: ("Log in first", "Сначала войдите", "Чтобы увидеть эту страницу, нужно войти:"),
    403: ("You may not see this", "Нет доступа", "Для этого не хватает прав:"),
    404: ("There is nothing here", "Здесь ничего нет", "По этому адресу ничего не нашлось:"),
    429: ("The server is busy", "Сервер занят", "Попробуйте ещё раз через несколько секунд:"),
    503: ("Not available now", "Сейчас недоступно", "Попробуйте ещё раз немного позже:"),
    500: ("The server failed", "Ошибка сервера", "Сообщите об этом администратору:"),
}
_MAX_LANGUAGES = 32
_WEIGHT = re.compile(r"[01](\.\d{0,3})?")


def front_page(version: str) -> str:
    """What a browser shows at the server's own address."""
    return _page(
        f"Neuro platform {version}",
        "<p>This is the address of the platform's API. It is used from the command line:</p>"
        "<p><code>neuro login</code> on this machine, or <code>neuro config login-with-token TOKEN"
        " ADDRESS</code> with what an administrator gave you.</p>"
        "<p><a href='/api/v1/docs'>The API's description</a> · <a href='/ready'>whether it is"
        " ready</a> · <a href='/metrics'>metrics</a></p>",
    )


def job_page(host: str) -> str:
    """What a browser shows at a job's address; ``host`` begins with its id, or NAME--OWNER."""
    word = host.partition(".")[0]
    name, dashes, owner = word.partition("--")  # which an owner may have too
    job = f"job:/{owner}/{name}" if dashes else word
    return _page(
        "The page of a job",
        "<p>Pages of jobs are not served at addresses of their own yet. Forward the job's port, and"
        " open it on your machine:</p>"
        f"<p><code>neuro port-forward {escape(shlex.quote(job))} PORT:PORT</code></p>"
        "<p>then <code>http://localhost:PORT/</code>, where PORT is the one that the job listens on"
        " (<code>--port</code> of <code>neuro run</code>, <code>http_port</code> of a flow file)."
        " JupyterLab's address and token are in its log: <code>neuro logs"
        f" {escape(shlex.quote(job))}</code>.</p>",
    )


def answer_at_jobs_addresses(jobs_domain: str) -> Middleware:
    """Answer with ``job_page`` at the hosts ``*.jobs.<jobs_domain>``."""
    domain = re.escape(jobs_domain.partition(":")[0])
    address = re.compile(rf"[^.]+\.jobs\.{domain}(:\d+)?", re.IGNORECASE)

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        if address.fullmatch(request.host):
            page = job_page(request.host)
            return web.Response(text=page, content_type="text/html", status=404)
        return await handler(request)

    return answer


def error_page(status: int, message: str, languages: str) -> str:
    """What a browser shows instead of a page; ``languages`` is its ``Accept-Language``.

    The message is English; who reads Russian is told first what kind of trouble it is.
    """
    english, russian, advice = _TITLES.get(status) or _TITLES[400 if status < 500 else 500]
    if _language(languages) == "en":
        return _page(english, f"<p>{escape(message)}</p>")
    return _page(russian, f"<p>{advice}</p><p lang=en>{escape(message)}</p>", "ru")


def _language(accepted: str) -> str:
    """The one of our languages that a reader likes best: ``ru``, or ``en`` for all others."""
    likes = {"en": 0.0, "ru": 0.0}
    for each in accepted.split(",")[:_MAX_LANGUAGES]:
        tag, _, weight = each.partition(";q=")
        language = tag.strip().partition("-")[0].lower()
        if language in likes:
            liked = float(weight) if _WEIGHT.fullmatch(weight) else float(not weight)
            likes[language] = max(likes[language], liked)
    return "ru" if likes["ru"] > likes["en"] else "en"


def _page(title: str, body: str, language: str = "en") -> str:
    return (
        f"<!doctype html><html lang={language}><meta charset=utf-8><meta name=viewport"
        f" content='width=device-width'><title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(title)}</h1>{body}"
    )
