"""YAML as nodes that know their places.

The C library's events become nodes here, with limits that keep a hostile file from costing more
than its size: nesting is bounded, and so is what aliases expand to. Whatever is wrong is a problem
with a place, never an exception.
"""

import re
from typing import Any, Final

import yaml as pyyaml
from yaml import events
from yaml.nodes import ScalarNode as PlainNode

from neuro.domain.problems import Position, Source
from neuro.flow.problems import Report
from neuro.flow.syntax.yaml_nodes import Entries, Items, YamlNode, YamlScalar

EMPTY_HINT: Final = "Begin with what it is: kind: batch, or kind: live in live.yml."
MAX_DEPTH: Final = 100
# How many lists, mappings, keys and values a file may have, and how many all of its aliases may
# stand for.
MAX_NODES: Final = 300_000
MAX_ALIASED: Final = 100_000

# What YAML 1.1 lets a file contain.
_FORBIDDEN: Final = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_PROPERTIES: Final = re.compile(r"(?:[&!][^\s,\[\]{}]*(?:\s|(?<=\s)#[^\n]*)*)+")

_CORE: Final = "tag:yaml.org,2002:"
_SCALAR_TAGS: Final = frozenset(
    _CORE + name for name in ("str", "int", "float", "bool", "null", "timestamp", "value")
)

_Loader: Any = getattr(pyyaml, "CSafeLoader", pyyaml.SafeLoader)
_RESOLVERS: Any = pyyaml.SafeLoader.yaml_implicit_resolvers
_CONSTRUCTOR: Any = pyyaml.constructor.SafeConstructor()


def parse(source: Source, report: Report) -> YamlNode | None:
    """The file's one document; None where problems were reported."""
    bad = _FORBIDDEN.search(source.text)
    if bad is not None:
        report.add(
            f"The character U+{ord(bad.group()):04X} is not allowed in YAML",
            source.position(bad.start()),
            'In double quotes it can be written as an escape, such as "\\x00".',
        )
        return None
    known = len(report.problems)
    composer = _Composer(source, report)
    try:
        root = composer.compose()
    except pyyaml.MarkedYAMLError as error:
        _explain(error, source, report)
        return None
    except pyyaml.YAMLError as error:
        report.add(f"The file is not YAML: {error}", source.position(0))
        return None
    if root is None and len(report.problems) == known:
        report.add("The file is empty", source.position(0), EMPTY_HINT)
    return root


class _Frame:
    """A collection that is being read."""

    __slots__ = ("anchor", "key", "keys", "node", "weight")

    def __init__(self, node: Items | Entries, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.weight = 1
        # In a mapping: the key whose value comes next, and all keys so far.
        self.key: YamlNode | None = None
        self.keys: dict[object, YamlScalar] = {}


class _Composer:
    def __init__(self, source: Source, report: Report) -> None:
        self._source = source
        self._report = report
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[YamlNode, int]] = {}
        self._open_anchors: set[str] = set()
        self._aliased = 0
        self._root: YamlNode | None = None

    def compose(self) -> YamlNode | None:
        loader = _Loader(self._source.text)
        documents = count = 0
        try:
            while True:
                event = loader.get_event()
                kind = type(event)
                count += 1
                if count > MAX_NODES:
                    self._report.add(
                        f"The file has more than {MAX_NODES} values",
                        self._at(event.start_mark.index),
                    )
                    return None
                if kind is events.ScalarEvent:
                    start, end = self._start(event), event.end_mark.index
                    data = self._resolve(event)
                    scalar = YamlScalar(
                        self._source, min(start, end), end, event.style, event.value, data
                    )
                    if event.anchor is not None:
                        self._anchors[event.anchor] = (scalar, 1)
                    self._add(scalar, 1)
                elif kind is events.MappingStartEvent or kind is events.SequenceStartEvent:
                    if not self._open(event):
                        return None
                elif kind is events.MappingEndEvent or kind is events.SequenceEndEvent:
                    frame = self._stack.pop()
                    if frame.anchor is not None:
                        self._open_anchors.discard(frame.anchor)
                        self._anchors[frame.anchor] = (frame.node, frame.weight)
                    self._add(frame.node, frame.weight)
                elif kind is events.AliasEvent:
                    if not self._alias(event):
                        return None
                elif kind is events.DocumentStartEvent:
                    documents += 1
                    if documents > 1:
                        self._report.add(
                            "A second document starts here, and a flow file has only one",
                            self._at(event.start_mark.index),
                            "Remove the line with ---, or make two files of it.",
                        )
                        return self._root
                elif kind is events.StreamEndEvent:
                    return self._root
        finally:
            loader.dispose()

    def _at(self, index: int) -> Position:
        return self._source.position(index)

    def _start(self, event: Any) -> int:
        """Where a node's own text starts: behind its anchor and its tag."""
        start: int = event.start_mark.index
        if event.anchor is not None or event.tag is not None:
            properties = _PROPERTIES.match(self._source.text, start)
            if properties is not None:
                return properties.end()
        return start

    def _open(self, event: Any) -> bool:
        if len(self._stack) >= MAX_DEPTH:
            self._report.add(
                f"The file nests deeper than {MAX_DEPTH} levels", self._at(event.start_mark.index)
            )
            return False
        mapping = type(event) is events.MappingStartEvent
        if event.tag not in (None, "!", _CORE + ("map" if mapping else "seq")):
            self._unknown_tag(event)
        start = self._start(event)
        node = Entries(self._source, start) if mapping else Items(self._source, start)
        if event.anchor is not None:
            self._open_anchors.add(event.anchor)
        self._stack.append(_Frame(node, event.anchor))
        return True

    def _alias(self, event: Any) -> bool:
        at = event.start_mark.index
        if event.anchor in self._open_anchors:
            self._report.add(f"The alias *{event.anchor} contains itself", self._at(at))
            return False
        if event.anchor not in self._anchors:
            self._report.add(
                f"The alias *{event.anchor} has no anchor &{event.anchor} before it",
                self._at(at),
                "Text that starts with an asterisk needs quotes.",
            )
            return False
        node, weight = self._anchors[event.anchor]
        self._aliased += weight
        if self._aliased > MAX_ALIASED:
            self._report.add(
                f"The aliases of this file stand for more than {MAX_ALIASED} nodes", self._at(at)
            )
            return False
        self._add(node, weight)
        return True

    def _add(self, node: YamlNode, weight: int) -> None:
        if not self._stack:
            self._root = node
            return
        frame = self._stack[-1]
        frame.weight += weight
        parent = frame.node
        if isinstance(parent, Items):
            parent.items.append(node)
        elif frame.key is None:
            frame.key = node
        else:
            key, frame.key = frame.key, None
            self._entry(frame, parent, key, node)

    def _entry(self, frame: _Frame, parent: Entries, key: YamlNode, node: YamlNode) -> None:
        if not isinstance(key, YamlScalar):
            self._report.add("A key must be a word, not a list or a mapping", key.at)
            return
        if key.text == "<<" and not key.style:
            self._report.add(
                "YAML's merge key << is not supported in flow files",
                key.at,
                "Share keys with mixins:, or whole values with an anchor (&name) "
                "and an alias (*name).",
            )
            return
        first = frame.keys.setdefault(key.data, key)
        if first is not key:
            self._report.add(
                f"duplicate key '{key.text}', it is at line {first.at.line} already",
                key.at,
                "Keep one of the two.",
            )
            return
        parent.entries.append((key, node))

    def _resolve(self, event: Any) -> object:
        """What YAML 1.1 makes of a scalar."""
        value: str = event.value
        tag: str | None = event.tag
        if tag is None:
            if not event.implicit[0]:
                return value
            for candidate, pattern in _RESOLVERS.get(value[:1], ()):
                if pattern.match(value):
                    tag = candidate
                    break
            else:
                return value
        if tag == "!" or tag == _CORE + "str" or tag == _CORE + "merge":
            return value
        if tag not in _SCALAR_TAGS:
            self._unknown_tag(event)
            return value
        if tag == _CORE + "value":
            return value
        try:
            return _CONSTRUCTOR.construct_object(PlainNode(tag, value))
        except (ValueError, KeyError, AttributeError, OverflowError, IndexError):
            self._report.add(
                f"YAML cannot read '{_shortened(value)}' as {tag.removeprefix(_CORE)}",
                self._at(self._start(event)),
                "Text needs quotes here.",
            )
            return value

    def _unknown_tag(self, event: Any) -> None:
        shown = event.tag.replace(_CORE, "!!")
        self._report.add(
            f"The tag {shown} is not supported in flow files",
            self._at(event.start_mark.index),
            "Text that starts with an exclamation mark needs quotes.",
        )


def _flow_hint(source: Source, opened: int, bracket: str) -> str:
    line = source.line(source.position(opened).line)
    if "${{" in line or "$[[" in line:
        return "An expression inside of brackets needs quotes."
    return f"Text that starts with {bracket} needs quotes."


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def _explain(error: Any, source: Source, report: Report) -> None:
    """Say a YAML error in words that tell what to do."""
    problem: str = error.problem or "the text is not YAML"
    context: str = error.context or ""
    mark = error.problem_mark or error.context_mark
    index = min(mark.index, len(source.text)) if mark is not None else 0
    opened = min(error.context_mark.index, len(source.text)) if error.context_mark else index
    character = source.text[index : index + 1]
    at = source.position(index)
    if "cannot start any token" in problem:
        if character == "\t":
            report.add("A tab cannot indent YAML", at, "Indent with spaces.")
        else:
            report.add(
                f"A value cannot start with the character {character}", at, "Put it in quotes."
            )
    elif "found a tab" in problem or character == "\t":
        report.add("A tab cannot indent YAML", at, "Indent with spaces.")
    elif "quoted scalar" in context and ("stream" in problem or "document" in problem):
        report.add("The quote that opens here is not closed", source.position(opened))
    elif "escape character" in problem:
        report.add(
            "This escape is unknown in double quotes",
            at,
            "Write a backslash twice, or use single quotes, where it stands for itself.",
        )
    elif "expected ':'" in problem:
        report.add(
            "A key needs a colon and a space behind it",
            source.position(opened),
            "Write it as key: value.",
        )
    elif "mapping values are not allowed" in problem:
        report.add(
            "A key is not allowed here",
            at,
            "Put text with a colon in quotes, and check the indentation of this line.",
        )
    elif "flow sequence" in context:
        report.add(
            "The list that opens here is not closed, or lacks a comma",
            source.position(opened),
            _flow_hint(source, opened, "["),
        )
    elif "flow mapping" in context or "flow node" in context:
        report.add(
            "The mapping that opens here is not closed, or lacks a comma",
            source.position(opened),
            _flow_hint(source, opened, "{"),
        )
    elif "block mapping" in context:
        report.add(
            "This does not belong to the mapping above: its indentation fits no key",
            at,
            "Align it with the keys that it belongs to; text behind a closing quote is an "
            "error too.",
        )
    elif "block collection" in context or "block sequence" in problem:
        report.add(
            "This does not belong to the list above: it has no dash",
            at,
            "Start each item with a dash, or align the line with the keys it belongs to.",
        )
    elif "block scalar" in context:
        report.add(
            "The text of a block starts on the line below its | or >",
            at,
            "Text that starts with | or > needs quotes.",
        )
    elif "scanning an a" in context:
        sign = source.text[opened : opened + 1]
        report.add(
            f"A name must follow the {sign} at once",
            source.position(opened),
            f"Text that starts with {sign} needs quotes.",
        )
    elif "node content" in problem:
        report.add("A value cannot start with this", at, "Put text in quotes.")
    elif "<document start>" in problem:
        report.add(
            "This stands behind the end of the file's mapping",
            at,
            "Check the indentation of this line and of the first line.",
        )
    else:
        sentence = f"{context}: {problem}" if context else problem
        report.add(f"The file is not YAML: {sentence}", at)
