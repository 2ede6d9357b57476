"""The types of a job's values that the platform has rules for: a check knows them too.

Constants alone are held to them: what an expression gives in a check may be a parameter's default,
and the job be run with another value.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from neuro.domain.errors import InvalidInput
from neuro.domain.names import check_tags, is_job_name
from neuro.domain.texts import check_text
from neuro.flow.syntax.bad_values import BadValue
from neuro.flow.syntax.types import INT, REMOTE_PATH, STR


def _name(value: object) -> object:
    text = STR.convert(value)
    if text and not is_job_name(str(text)):
        hint = "Use 3 to 40 lower-case letters, digits and single hyphens, a letter first."
        raise BadValue(f"'{value}' cannot be the name of a job", hint)
    return text


def _tag(value: object) -> object:
    text = str(STR.convert(value))
    try:
        check_tags([text])
        check_text(text, "The tag")
    except InvalidInput as error:
        raise BadValue(str(error)) from None
    return text


def _working_directory(value: object) -> object:
    path = REMOTE_PATH.convert(value)
    if not str(path).startswith("/"):
        raise BadValue(f"'{value}' is not an absolute path in the job", "Begin it with '/'.")
    return path


def _http_port(value: object) -> object:
    port = INT.convert(value)
    if port not in range(65536):
        raise BadValue(f"'{value}' is not a port: ports are 1 to 65535")
    return port


JOB_NAME: Final = replace(
    STR,
    from_yaml=_name,
    schema={"type": "string", "pattern": r"^(?!job-)([a-z](?=.{2,39}$)[a-z0-9]*(-[a-z0-9]+)*)?$"},
)
TAG: Final = replace(
    STR,
    from_yaml=_tag,
    schema={**STR.schema, "pattern": r"^[^\s\u0000-\u001f\u007f-\u009f]{1,256}$"},
)
WORKING_DIRECTORY: Final = replace(
    REMOTE_PATH, from_yaml=_working_directory, schema={"type": "string", "pattern": "^/"}
)
HTTP_PORT: Final = replace(
    INT,
    from_yaml=_http_port,
    schema={
        "anyOf": [
            {"type": "integer", "minimum": 0, "maximum": 65535},
            {"type": "string", "pattern": r"^\d{1,5}$"},
        ]
    },
)
