"""Route declarations: one decorator says method, path and access; the handler's types say the rest.

A handler is ``async def name(call: Call, body: SomeStruct, query: SomeStruct) -> Answer``; ``body``
and ``query`` are optional and decoded by their annotations, *after* the caller is known. What it
returns is encoded; a ``web.StreamResponse`` passes as it is. OpenAPI is made from the same types.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeGuard, get_origin, get_type_hints

import msgspec
from aiohttp import hdrs, web

from neuro.domain.errors import (
    InvalidInput,
    NotAuthenticated,
    NotPlain,
    PlatformError,
    new_login,
)
from neuro.domain.permissions import Action
from neuro.domain.texts import check_text
from neuro.server.access.identity import Authenticator, Identity, RegistryIdentity
from neuro.server.access.people import person_of
from neuro.server.access.proofs import BASIC, NOT_LOGGED_IN, TOKEN, Proof, token_shown
from neuro.server.http.bodies import (
    LARGE_BODIES,
    MAX_JSON_BODY,
    PACE,
    LargeBodies,
    Pace,
    json_decoder,
    read_json,
)
from neuro.server.http.budgets import BUDGETS, Budgets
from neuro.server.http.connections import caller_is_known
from neuro.server.http.error_forms import OURS, ErrorForm
from neuro.server.http.large_answers import send_if_large
from neuro.server.http.open_streams import OpenStream, Streams
from neuro.server.http.texts import text_check
from neuro.server.threads import working_for

Handler = Callable[..., Awaitable[Any]]
Encode = Callable[[Any], bytes]
Challenge = Callable[[web.Request, PlatformError], str]

STREAMS = web.AppKey("streams", Streams)
AUTHENTICATOR = web.AppKey("authenticator", Authenticator)
# Those of all routes, for the paths beside them.
ERROR_FORMS = web.AppKey("error_forms", tuple[ErrorForm, ...])
ROUTE_KEY = "neuro.route"
_LARGEST = (1 << 63) - 1  # of the numbers that databases and files have
FOR_ALL_USERS = "Of nobody in particular: whoever has a token may ask."
_VARIABLE = re.compile(r"\{(\w+):[^}]*\}")


@dataclass(frozen=True)
class Need:
    """What a caller must be allowed to do, asked before anything that they sent is decoded.

    ``uri`` says on what, with the names of parts in braces. ``ask`` raises where they are not; what
    it has found on the way is the call's ``found``.
    """

    uri: str
    action: Action
    ask: Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True)
class Route:
    """One line of the HTTP API. It needs something, or is ``public``, or says why what it needs is
    asked ``inside`` the handler or its service.

    ``proofs`` are the ways to say who calls, that which a stranger is told of first; ``errors`` is
    the form of its errors. ``challenge`` writes ``WWW-Authenticate`` of an answer of 401 where that
    is more than the name of a proof. ``section`` is of the wire protocol's page, if it has one.
    ``max_body`` is how many bytes its body may have; ``encode`` makes JSON of what it returns.
    ``names_files``: its path holds names of files, in which the handler allows what the file
    system does. ``probe``: whoever watches the server asks it, so it is answered however much
    there is to do.
    """

    method: str
    path: str
    handler: Handler
    tag: str
    status: int = 200
    public: bool = False
    needs: Need | None = None
    inside: str | None = None
    proofs: Sequence[Proof] = (TOKEN,)
    errors: ErrorForm = OURS
    challenge: Challenge | None = None
    section: str | None = None
    streams: str | None = None
    body: Any = None
    query: Any = None
    returns: Any = None
    max_body: int = MAX_JSON_BODY
    names_files: bool = False
    probe: bool = False
    encode: Encode = msgspec.json.encode

    @cached_property
    def name(self) -> str:
        """The path, with the names of its variable parts alone: ``/api/v1/storage{path}``."""
        return _VARIABLE.sub(r"{\1}", self.path)

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.handler) or "").split("\n")[0]


@dataclass(slots=True)
class Call:
    """One request whose caller is known (on a public route it may be anonymous)."""

    request: web.Request
    identity_or_none: Identity | None
    # What was found while the need of the route was asked.
    found: Any = None

    @property
    def identity(self) -> Identity:
        """The caller; raises NotAuthenticated for an anonymous one."""
        if self.identity_or_none is None:
            raise NotAuthenticated(NOT_LOGGED_IN[TOKEN])
        return self.identity_or_none

    @property
    def user(self) -> str:
        return self.identity.user

    def segment(self, name: str) -> str:
        """A variable part of the path, decoded."""
        return self.request.match_info[name]

    @property
    def wants_ndjson(self) -> bool:
        return "application/x-ndjson" in self.request.headers.get(hdrs.ACCEPT, "")


@dataclass
class Routes:
    """A noun's routes; ``tag`` names the noun in the API's documentation.

    ``inside`` says for all that do not say otherwise why they are asked inside.
    """

    tag: str
    items: list[Route] = field(default_factory=list)
    encode: Encode = msgspec.json.encode
    inside: str | None = None
    proofs: Sequence[Proof] = (TOKEN,)
    errors: ErrorForm = OURS
    challenge: Challenge | None = None

    def add(
        self,
        method: str,
        path: str,
        *,
        status: int = 200,
        public: bool = False,
        needs: Need | None = None,
        inside: str | None = None,
        errors: ErrorForm | None = None,
        section: str | None = None,
        streams: str | None = None,
        max_body: int = MAX_JSON_BODY,
        names_files: bool = False,
        probe: bool = False,
    ) -> Callable[[Handler], Handler]:
        """Declare a route. ``streams`` is the media type of an answer written piece by piece.

        Raises TypeError for a handler that may give such an answer without it: that stream would
        outlive its token, and hold up the server's end. So it does for a route that says not once
        who may call it.
        """
        if not public and needs is None:
            inside = inside or self.inside
        if sum((public, needs is not None, inside is not None)) != 1:
            raise TypeError(
                f"{method} {path}: say who may call it, with one of needs=, public= and inside=."
            )

        def declare(handler: Handler) -> Handler:
            hints = get_type_hints(handler)
            returns = hints.get("return")
            if streams is None and _is_raw(returns) and not issubclass(returns, web.Response):
                raise TypeError(f"{method} {path} may stream: say what with streams=.")
            if returns is None or returns is type(None) or _is_raw(returns):
                returns = None
            self.items.append(
                Route(
                    method=method,
                    path=path,
                    handler=handler,
                    tag=self.tag,
                    status=status,
                    public=public,
                    needs=needs,
                    inside=inside,
                    proofs=self.proofs,
                    errors=errors or self.errors,
                    challenge=self.challenge,
                    section=section,
                    streams=streams,
                    body=hints.get("body"),
                    query=hints.get("query"),
                    returns=returns,
                    max_body=max_body,
                    names_files=names_files,
                    probe=probe,
                    encode=self.encode,
                )
            )
            return handler

        return declare


def _is_raw(annotation: Any) -> TypeGuard[type[web.StreamResponse]]:
    return isinstance(annotation, type) and issubclass(annotation, web.StreamResponse)


def install(
    app: web.Application,
    routes: list[Route],
    pace: Pace | None = None,
    budgets: Budgets | None = None,
) -> None:
    """Put declared routes into an aiohttp application, fixed paths before variable ones."""
    app[LARGE_BODIES] = LargeBodies()
    app[PACE] = pace or Pace()
    app[BUDGETS] = budgets or Budgets()
    app[ERROR_FORMS] = tuple(dict.fromkeys(route.errors for route in routes))
    app[STREAMS] = Streams()
    app.on_shutdown.append(app[STREAMS].end_all)
    app.on_cleanup.append(app[LARGE_BODIES].close)
    for route in routes:
        endpoint = _endpoint(route)
        resource = app.router.add_route(route.method, route.path, endpoint)
        setattr(resource.handler, ROUTE_KEY, route)


def route_of(request: web.Request) -> Route | None:
    """The declaration behind a request, if any."""
    return getattr(request.match_info.handler, ROUTE_KEY, None)


def _endpoint(route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    decode_body = json_decoder(route.body) if route.body is not None else None
    decode_query = _query_decoder(route.query) if route.query is not None else None

    async def answer(request: web.Request, stream: OpenStream | None) -> web.StreamResponse:
        identity = await _identify(request, route)
        if identity is not None:
            caller_is_known(request)
        if stream is not None and identity is not None:
            identity = stream.belongs_to(identity)
        call = Call(request, identity)
        if route.probe:
            return await work(call)
        caller, address = call.identity_or_none, request.remote or ""
        with (
            request.app[BUDGETS].share(caller, address, is_stream=stream is not None),
            working_for(person_of(caller.user) if caller else ""),
        ):
            return await send_if_large(request, await work(call), caller, address)

    async def work(call: Call) -> web.StreamResponse:
        request = call.request
        _check_encoding(request)
        if not route.names_files:
            for name, segment in request.match_info.items():
                check_text(segment, f"'{name}' in the path")
        if route.needs is not None:
            call.found = await route.needs.ask(call)
        arguments: dict[str, Any] = {}
        if decode_query is not None:
            arguments["query"] = decode_query(request)
        if decode_body is not None:
            arguments["body"] = await read_json(request, decode_body, route.max_body)
        content = await route.handler(call, **arguments)
        if isinstance(content, web.StreamResponse):
            return content
        if content is None:
            return web.Response(status=204 if route.status == 200 else route.status)
        return json_response(content, route.status, route.encode)

    async def endpoint(request: web.Request) -> web.StreamResponse:
        if route.streams is None:
            return await answer(request, None)
        with request.app[STREAMS].running() as stream:
            return await answer(request, stream)

    return endpoint


def json_response(
    answer: Any, status: int = 200, encode: Encode = msgspec.json.encode
) -> web.Response:
    """Encode a value as a JSON answer."""
    body = answer if isinstance(answer, bytes) else encode(answer)
    return web.Response(body=body, status=status, content_type="application/json")


async def _identify(request: web.Request, route: Route) -> Identity | None:
    token = token_shown(request.headers, route.proofs)
    if token is None:
        if route.public:
            return None
        raise NotAuthenticated(NOT_LOGGED_IN[route.proofs[0]])
    try:
        identity = await request.app[AUTHENTICATOR].authenticate(token)
    except RecursionError:
        # A token is JSON inside, and its head is read before its signature is known.
        raise NotAuthenticated(f"The token is malformed: {new_login()}") from None
    if isinstance(identity, RegistryIdentity) and BASIC not in route.proofs:
        raise NotAuthenticated("This token is for the registry, and is good for nothing else.")
    return identity


def _check_encoding(request: web.Request) -> None:
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower()
    if encoding not in ("", "identity") and request.body_exists:
        raise NotPlain(
            f"The body is compressed ('{encoding[:40]}'): send it as it is, without"
            " Content-Encoding."
        )


def _query_decoder(kind: Any) -> Callable[[web.Request], Any]:
    hints = get_type_hints(kind)
    lists = frozenset(name for name, hint in hints.items() if get_origin(hint) is list)
    check = text_check(kind)

    def decode(request: web.Request) -> Any:
        values: dict[str, Any] = {}
        for name in kind.__struct_fields__:
            if name not in request.query:
                continue
            if name in lists:
                values[name] = request.query.getall(name)
            else:
                text = request.query[name]
                values[name] = text.lower() if text in ("True", "False") else text
        try:
            query = msgspec.convert(values, kind, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"The query is not what this call takes: {error}") from None
        for name in kind.__struct_fields__:
            value = getattr(query, name)
            if isinstance(value, int) and abs(value) > _LARGEST:
                raise InvalidInput(f"'{name}' in the query is beyond {_LARGEST}.")
        check(query)
        return query

    return decode
