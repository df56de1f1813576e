"""The YAML of a file as mappings that know their lines; errors name the file and the line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import yaml

from gemini_sync.testing.cassette.values import CassetteError


class MarkedMapping(dict[str, Any]):
    """A mapping of the file, the line on which it begins, and the line of each name in it."""

    line = 0
    lines: Mapping[Any, int] = {}

    def line_of(self, name: Any) -> int:
        return self.lines.get(name, self.line)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The loader in C if PyYAML was built with it; its mappings know their lines."""

    def construct_mapping_with_line(self, node: Any) -> Iterator[MarkedMapping]:
        found = MarkedMapping()
        found.line = node.start_mark.line + 1
        yield found  # first, because an alias inside may name it
        found.update(self.construct_mapping(node))
        found.lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_mapping_with_line)


def parse(text: str, path: str) -> MarkedMapping:
    """The mapping in the text of a YAML or JSON file.

    Raises:
        CassetteError: it is no YAML, or no mapping.
    """
    try:
        if text.lstrip().startswith("{"):  # vcrpy can write JSON, with escapes that YAML does not have
            return json.loads(text, object_hook=MarkedMapping)  # type: ignore[no-any-return]
        document = yaml.load(text, _Loader)
    except json.JSONDecodeError as exc:
        raise error(path, exc.lineno, f"this is no JSON: {exc.msg}") from exc
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        raise error(path, mark and mark.line + 1, f"this is no YAML: {exc.problem or exc.context}") from exc
    except yaml.YAMLError as exc:
        at = getattr(exc, "position", 0)
        said = getattr(exc, "reason", "it cannot be read")
        raise error(path, text.encode()[:at].count(b"\n") + 1, f"this is no YAML: {said}") from exc
    except (ValueError, RecursionError) as exc:  # a date that does not exist, or nesting without end
        raise error(path, None, f"this is no YAML that a cassette could hold: {exc}") from exc
    if not isinstance(document, MarkedMapping):
        raise error(path, 1, "expected a mapping with exchanges, came something else. Record it again")
    return document


def error(path: str, line: Optional[int], what: str) -> CassetteError:
    place = f"{path}, line {line}" if line else path
    return CassetteError(f"The cassette {place}: {what.rstrip('.')}.")
