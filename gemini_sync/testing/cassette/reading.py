"""Reads the cassettes of this package."""

from __future__ import annotations

from typing import Any

from gemini_sync.testing.cassette.body_text import FORMATS, from_part
from gemini_sync.testing.cassette.document import MarkedMapping, error
from gemini_sync.testing.cassette.values import (
    COMPLETE,
    END_LINE,
    ENDS,
    FAILURES,
    VERSION,
    Body,
    Cassette,
    CassetteError,
    Exchange,
    Failure,
    Request,
    Response,
    split_events,
    split_sizes,
)

_KEY = "gemini_sync_cassette"
_IN_WORDS = {MarkedMapping: "a mapping", list: "a list", str: "a text", int: "a number"}


def is_own(document: MarkedMapping) -> bool:
    """True for a document of this package, of whatever version."""
    return _KEY in document


def read(document: MarkedMapping, text: str, path: str) -> Cassette:
    """The cassette in a document of our own format.

    Raises:
        CassetteError: it is of a newer version, cut off, or has a mistake in it.
    """
    version = document[_KEY]
    if type(version) is not int or not 1 <= version <= VERSION:
        what = f"it has format {version!r}, but this version of gemini_sync reads formats up to {VERSION}"
        raise error(path, document.line, f"{what}. Update gemini_sync, or record the cassette again")
    written = text.rstrip()
    if written.rpartition("\n")[2] != END_LINE:
        what = f"the file is cut off, because its last line is not {END_LINE!r}"
        raise error(path, written.count("\n") + 1, f"{what}. Restore it, or record it again")
    return _Reader(path).cassette(document)


class _Reader:
    def __init__(self, path: str) -> None:
        self._path = path

    def cassette(self, document: MarkedMapping) -> Cassette:
        found = self._get(document, "exchanges", list, [])
        exchanges = tuple(self._exchange(self._check(item, MarkedMapping, "an exchange", document)) for item in found)
        return Cassette(exchanges, self._path)

    def _exchange(self, item: MarkedMapping) -> Exchange:
        self._names(item, "request", "response", "failure")
        request = self._request(self._get(item, "request", MarkedMapping))
        if "failure" in item:
            return Exchange(request, self._failure(self._get(item, "failure", MarkedMapping)))
        return Exchange(request, self._response(self._get(item, "response", MarkedMapping)))

    def _request(self, item: MarkedMapping) -> Request:
        self._names(item, "method", "url", "headers", "body")
        known = "body" not in item or item["body"] is not None
        body = self._data(item) if known else None
        return Request(self._get(item, "method", str), self._get(item, "url", str), self._headers(item), body)

    def _response(self, item: MarkedMapping) -> Response:
        self._names(item, "status", "headers", "body", "segments", "pace", "end")
        status, end, data = self._get(item, "status", int), self._get(item, "end", str, COMPLETE), self._data(item)
        if end not in ENDS:
            raise self._error(item, f"expected end to be one of {', '.join(ENDS)}, came {end!r}", "end")
        segments = split_events(data)
        if "segments" in item:
            sizes = tuple(int(number) for number in self._numbers(item, "segments"))
            try:
                segments = split_sizes(data, sizes)
            except ValueError as exc:
                raise self._error(
                    item, f"{exc}. After an edit by hand, remove the line with segments", "segments"
                ) from exc
        pace = self._numbers(item, "pace")
        if pace and len(pace) != len(segments):
            what = f"pace has {len(pace)} numbers for {len(segments)} segments"
            raise self._error(item, f"{what}. After an edit by hand, remove the line with pace", "pace")
        return Response(status, self._headers(item), Body(tuple(filter(None, segments)), pace, end))

    def _failure(self, item: MarkedMapping) -> Failure:
        self._names(item, "kind", "message", "cause")
        kind, cause = self._get(item, "kind", str), self._get(item, "cause", str, "").split()
        if kind not in FAILURES:
            raise self._error(item, f"expected kind to be one of {', '.join(FAILURES)}, came {kind!r}", "kind")
        if cause and not (len(cause) == 2 and cause[1].lstrip("-").isdigit()):
            raise self._error(item, f"expected cause to be a name and a number, came {' '.join(cause)!r}", "cause")
        return Failure(kind, self._get(item, "message", str, ""), (cause[0], int(cause[1])) if cause else None)

    def _headers(self, item: MarkedMapping) -> dict[str, str]:
        found = self._get(item, "headers", MarkedMapping, MarkedMapping())
        return {str(name): str(value) for name, value in found.items()}

    def _data(self, item: MarkedMapping) -> bytes:
        found = self._get(item, "body", (MarkedMapping, list, str), "")
        if isinstance(found, str):
            return found.encode()
        parts = [
            self._check(part, MarkedMapping, "a part of a body", item) for part in ([found], found)[type(found) is list]
        ]
        return b"".join(self._part(part) for part in parts)

    def _part(self, part: MarkedMapping) -> bytes:
        if len(part) != 1 or next(iter(part)) not in FORMATS:
            raise self._error(part, f"expected one of {', '.join(FORMATS)} in a body, came {', '.join(map(str, part))}")
        ((name, text),) = part.items()
        try:
            return from_part(name, self._check(text, str, name, part))
        except ValueError as exc:
            raise self._error(part, f"the {name} of a body cannot be read: {exc}", name) from exc

    def _numbers(self, item: MarkedMapping, name: str) -> tuple[float, ...]:
        numbers: list[float] = []
        for word in str(item.get(name, "")).split():
            number, _, count = word.partition("x")
            try:
                numbers += [float(number)] * int(count or 1)
            except ValueError as exc:
                raise self._error(item, f"expected numbers in {name}, came {word!r}", name) from exc
        return tuple(numbers)

    # -- checks

    def _names(self, item: MarkedMapping, *known: str) -> None:
        odd = [str(name) for name in item if name not in known]
        if odd:
            raise self._error(item, f"expected {', '.join(known)}, came {', '.join(odd)}", odd[0])

    def _get(self, item: MarkedMapping, name: str, kind: Any, default: Any = None) -> Any:
        if name not in item:
            if default is None:
                raise self._error(item, f"{name} is missing")
            return default
        return self._check(item[name], kind, name, item)

    def _check(self, value: Any, kind: Any, name: str, item: MarkedMapping) -> Any:
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = " or ".join(_IN_WORDS[each] for each in (kind if isinstance(kind, tuple) else (kind,)))
            raise self._error(item, f"expected {name} to be {wanted}, came {type(value).__name__}", name)
        return value

    def _error(self, item: MarkedMapping, what: str, name: str = "") -> CassetteError:
        return error(self._path, item.line_of(name), what)
