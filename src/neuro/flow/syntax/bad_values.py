"""Values that their type does not take, and how messages tell of them."""


class BadValue(ValueError):
    """A value that its type does not take: a sentence, and a hint where one helps."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def refuse_nothing(value: object) -> None:
    """Raise BadValue for null, which a required value cannot be."""
    if value is None:
        raise BadValue("None is not allowed")


def shown(value: object) -> str:
    """A value as messages quote it: as a string in quotes, whatever YAML made of it."""
    if isinstance(value, bool):
        return f"'{str(value).lower()}'"
    return repr(value) if isinstance(value, str) else f"'{value}'"


def describe(value: object) -> str:
    """The name of a value's type in a message: "a list", "a string"."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return "a bool"
        case int():
            return "a number"
        case float():
            return "a number"
        case str():
            return "a string"
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return f"a {type(value).__name__}"
