"""OpenAPI 3.1 from the route declarations and the messages' own types."""

from __future__ import annotations

import re
from typing import Any, get_type_hints

import msgspec

from neuro.server.access.proofs import BASIC, TOKEN
from neuro.server.http.error_forms import ErrorForm
from neuro.server.http.routes import Route
from neuro.server.http.version import HEADER, says_version

WIRE_PROTOCOL = "docs/reference/wire-protocol.md"
_VARIABLE = re.compile(r"\{(\w+)(?::[^}]*)?\}")
_REFERENCE = "#/components/schemas/{name}"
_SCHEMES = {
    TOKEN: {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    BASIC: {"type": "http", "scheme": "basic", "description": "The password is a token."},
}
_VERSION = {
    HEADER: {"description": "The server's name and version", "schema": {"type": "string"}},
}


def describe(routes: list[Route], version: str) -> dict[str, Any]:
    """The whole document."""
    types = [kind for route in routes for kind in (route.body, route.returns) if kind is not None]
    queries = [route.query for route in routes if route.query is not None]
    failures = {route.errors.schema for route in routes} - {None}
    schemas, components = msgspec.json.schema_components(
        [*types, *queries, *failures], ref_template=_REFERENCE
    )
    shown = iter(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        body = next(shown) if route.body is not None else None
        answer = next(shown) if route.returns is not None else None
        path = _VARIABLE.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, body, answer)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Neuro platform",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                proof.name.lower(): _SCHEMES[proof]
                for proof in {proof: None for route in routes for proof in route.proofs}
            },
        },
    }


def _operation(route: Route, body: Any, answer: Any) -> dict[str, Any]:
    headers = {"headers": _VERSION} if says_version(route.path) else {}
    operation: dict[str, Any] = {
        "operationId": f"{route.tag}_{route.handler.__name__}",
        "tags": [route.tag],
        "summary": route.summary,
        "security": [] if route.public else [{proof.name.lower(): []} for proof in route.proofs],
        "parameters": _path_parameters(route) + _query_parameters(route),
        "responses": {
            str(_status(route)): _answer(route, answer) | headers,
            "default": {
                "description": "What went wrong, and what to do",
                "content": {route.errors.media_type: _failure(route.errors)},
                **headers,
            },
        },
    }
    if route.needs is not None:
        operation["x-needs"] = {"uri": route.needs.uri, "action": route.needs.action.value}
    elif route.inside is not None:
        operation["x-asked-inside"] = route.inside
    if route.section:
        operation["description"] = f"See {WIRE_PROTOCOL}#{route.section}."
    if body is not None:
        operation["requestBody"] = {"required": True, "content": _json(body)}
    return operation


def _failure(form: ErrorForm) -> dict[str, Any]:
    if form.schema is None:
        return {}
    return {"schema": {"$ref": _REFERENCE.format(name=form.schema.__name__)}}


def _status(route: Route) -> int:
    return 101 if route.streams == "websocket" else route.status


def _answer(route: Route, answer: Any) -> dict[str, Any]:
    if route.streams == "websocket":
        return {"description": "A WebSocket of binary messages"}
    if route.streams is not None:
        return {"description": "A stream", "content": {route.streams: {}}}
    if answer is None:
        return {"description": "Done"}
    return {"description": "The answer", "content": _json(answer)}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _VARIABLE.findall(route.path)
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    hints = get_type_hints(route.query)
    parameters = []
    for field in msgspec.structs.fields(route.query):
        (schema,), _ = msgspec.json.schema_components([hints[field.name]], ref_template=_REFERENCE)
        parameters.append(
            {
                "name": field.encode_name,
                "in": "query",
                "required": field.required,
                "schema": schema,
            }
        )
    return parameters
