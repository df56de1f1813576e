"""The YAML or JSON of a file as mappings that know their lines; errors name the file and the line."""

from __future__ import annotations

import base64
import json
import re
from typing import Any, Optional

import yaml

from gemini_sync.testing.cassette.values import CassetteError

_BINARY = "tag:yaml.org,2002:binary"
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)")
_CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C, if PyYAML was built with it


class MarkedMapping(dict[str, Any]):
    """A mapping of the file, the line on which it begins, and the line of each name in it."""

    def __init__(self, values: Any = (), line: int = 0) -> None:
        super().__init__(values)
        self.line = line
        self.lines: dict[str, int] = {}

    def line_of(self, name: str) -> int:
        return self.lines.get(name, self.line)


def parse(text: str, path: str) -> MarkedMapping:
    """The mapping in the text of a YAML or JSON file.

    Raises:
        CassetteError: it is no YAML, or no mapping.
    """
    try:
        if text.lstrip().startswith("{"):  # vcrpy can write JSON, with escapes that YAML does not have
            return json.loads(text, object_hook=MarkedMapping)  # type: ignore[no-any-return]
        document = _Builder(text, path).document()
    except json.JSONDecodeError as exc:
        raise error(path, exc.lineno, f"this is no JSON: {exc.msg}") from exc
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        raise error(path, mark and mark.line + 1, f"this is no YAML: {exc.problem or exc.context}") from exc
    except yaml.YAMLError as exc:
        at = getattr(exc, "position", 0)
        said = getattr(exc, "reason", "it cannot be read")
        raise error(path, text.encode()[:at].count(b"\n") + 1, f"this is no YAML: {said}") from exc
    except RecursionError as exc:
        raise error(path, None, "it is nested without end") from exc
    if not isinstance(document, MarkedMapping):
        raise error(path, 1, "expected a mapping with exchanges, came something else. Record it again")
    return document


class _Builder:
    """Makes values of the events of the parser. PyYAML's own way, over nodes, takes ten times as long."""

    def __init__(self, text: str, path: str) -> None:
        self._loader, self._path = _Loader(text), path
        self._next = self._loader.get_event
        self._anchors: dict[str, Any] = {}

    def document(self) -> Any:
        try:
            self._next()  # the beginning of the stream
            event = self._next()
            if isinstance(event, yaml.StreamEndEvent):
                return None
            found = self._value(self._next())
            self._next()  # the end of the document
            event = self._next()
            if not isinstance(event, yaml.StreamEndEvent):
                raise error(self._path, event.start_mark.line + 1, "a second document begins here. Remove it")
            return found
        finally:
            self._loader.dispose()

    def _value(self, event: Any) -> Any:
        kind, found = type(event), None
        if kind is yaml.ScalarEvent:
            found = self._scalar(event)
        elif kind is yaml.MappingStartEvent:
            found = self._mapping(event)
        elif kind is yaml.SequenceStartEvent:
            found = self._list()
        elif event.anchor not in self._anchors:
            raise error(self._path, event.start_mark.line + 1, f"this is no YAML: nothing is named {event.anchor!r}")
        else:
            return self._anchors[event.anchor]
        if event.anchor is not None:
            self._anchors[event.anchor] = found
        return found

    def _list(self) -> list[Any]:
        found = []
        while type(event := self._next()) is not yaml.SequenceEndEvent:
            found.append(self._value(event))
        return found

    def _mapping(self, event: Any) -> MarkedMapping:
        found = MarkedMapping(line=event.start_mark.line + 1)
        while type(event := self._next()) is not yaml.MappingEndEvent:
            line = event.start_mark.line + 1
            name = event.value if type(event) is yaml.ScalarEvent else None
            if name is None or name in found:
                what = f"{name} stands there twice" if name else "expected a name"
                raise error(self._path, line, f"{what}. Correct it, or record it again")
            found.lines[name] = line
            found[name] = self._value(self._next())
        return found

    def _scalar(self, event: Any) -> Any:
        text = event.value
        if event.tag == _BINARY:
            try:
                return base64.b64decode(text)
            except ValueError as exc:
                raise error(self._path, event.start_mark.line + 1, f"this is no base64: {exc}") from exc
        if event.implicit[0]:
            if text in _CONSTANTS:
                return _CONSTANTS[text]
            if _NUMBER.fullmatch(text):
                return int(text)
        return text


def error(path: str, line: Optional[int], what: str) -> CassetteError:
    place = f"{path}, line {line}" if line else path
    return CassetteError(f"The cassette {place}: {what.rstrip('.')}.")
