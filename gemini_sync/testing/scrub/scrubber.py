"""Replaces secrets by names that stay the same, in every part of an exchange."""

from __future__ import annotations

import bisect
import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Optional, Union
from urllib.parse import urlsplit, urlunsplit

from gemini_sync.testing.cassette.values import Body, Exchange, Failure, Request, Response, split_sizes
from gemini_sync.testing.scrub import base64_text, finding
from gemini_sync.testing.scrub.forms import tolerant_pattern
from gemini_sync.testing.scrub.secrets_seen import SecretsSeen
from gemini_sync.testing.scrub.spans import Span, merged, moved, replaced

#: A scrubber of a user's own: a text or a pattern and what replaces it, or a function of a whole exchange. If that
#: function returns None, the exchange is left out.
OwnScrubber = Union[
    tuple[Union[str, "re.Pattern[str]"], str],
    Callable[[Exchange], Optional[Exchange]],
]

ENVIRONMENT = {
    "GEMINI_API_KEY": finding.API_KEY,
    "GOOGLE_API_KEY": finding.API_KEY,
    "GEMINI_OAUTH_CLIENT_ID": finding.CLIENT_ID,
    "GEMINI_OAUTH_CLIENT_SECRET": finding.CLIENT_SECRET,
    "GOOGLE_CLOUD_PROJECT": finding.PROJECT,
    "GOOGLE_CLOUD_PROJECT_ID": finding.PROJECT,
    "GOOGLE_CLOUD_QUOTA_PROJECT": finding.PROJECT,
}
_MOST_DEPTH = 3  # of base64 in base64
_TEXT = re.compile(r'"text"\s*:\s*"((?:[^"\\]|\\.)*)"')
# In a stream they are looked for across events only if they are known: a word behind one would look like a part of it.
_NOT_ACROSS = (finding.EMAIL, finding.PROJECT, finding.CLIENT_ID)


class Scrubber:
    """Learns the secrets of exchanges, and replaces them.

    Args:
        own: scrubbers of the user's own.
        environs: the variables that may hold credentials, at one time or at several.
    """

    def __init__(self, own: Iterable[OwnScrubber] = (), *environs: Mapping[str, str]) -> None:
        own = list(own)
        # Bodies are read as one character for each byte, so names must be written so.
        self._own_patterns = [
            (_compiled(item[0]), item[1].encode().decode("latin-1")) for item in own if isinstance(item, tuple)
        ]
        self._own_functions = [item for item in own if not isinstance(item, tuple)]
        self._seen = SecretsSeen()
        for environ in environs:
            for name, kind in ENVIRONMENT.items():
                self._seen.add(kind, environ.get(name, "").strip())

    @property
    def secrets(self) -> dict[str, str]:
        """The secrets that are replaced wherever they occur, and the kind of each."""
        return dict(self._seen.kinds)

    def scrub(self, exchanges: Iterable[Exchange]) -> list[Exchange]:
        """The exchanges without secrets."""
        exchanges = list(exchanges)
        for exchange in exchanges:
            for text in _texts(exchange):
                self._learn_from(text)
            for kind, value in _named_in(exchange):
                self._seen.add(kind, value)
        return [scrubbed for exchange in exchanges if (scrubbed := self._scrub(exchange)) is not None]

    def text(self, text: str) -> str:
        """``text`` without secrets."""
        return replaced(text, self._spans(text))

    def _learn_from(self, text: str, depth: int = 0) -> None:
        for found in finding.find(text):
            if finding.is_random(found.value):
                self._seen.add(found.kind, found.value)
        if depth < _MOST_DEPTH:
            for run in base64_text.RUN.finditer(text):
                decoded = base64_text.decoded_text(run.group())
                if decoded is not None:
                    self._learn_from(decoded, depth + 1)

    def _scrub(self, exchange: Exchange) -> Optional[Exchange]:
        request, response = exchange.request, exchange.response
        body = None if request.body is None else self.text(request.body.decode("latin-1")).encode("latin-1", "replace")
        request = Request(request.method, self._url(request.url), self._headers(request.headers), body)
        if isinstance(response, Failure):
            response = replace(response, message=self.text(response.message))
        else:
            response = Response(response.status, self._headers(response.headers), self._body(response.body))
        scrubbed: Optional[Exchange] = Exchange(request, response)
        for function in self._own_functions:
            if scrubbed is not None:
                scrubbed = function(scrubbed)
        return scrubbed

    # -- texts

    def _spans(self, text: str, depth: int = 0) -> list[Span]:
        spans: list[Span] = [(found.start, found.end, (found.kind, found.value)) for found in finding.find(text)]
        spans += self._seen.spans(text)
        for pattern, name in self._own_patterns:
            spans += [(hit.start(), hit.end(), name) for hit in pattern.finditer(text) if hit.group()]
        if depth < _MOST_DEPTH:
            spans += self._base64_spans(text, depth)
        return self._named(spans)

    def _named(self, spans: Iterable[Span]) -> list[Span]:
        """The spans without overlaps, and with the name for each secret."""
        return [
            (start, end, self._seen.name(*what) if isinstance(what, tuple) else what)
            for start, end, what in merged(spans)
        ]

    def _base64_spans(self, text: str, depth: int) -> Iterator[Span]:
        forms = [form for form in self._seen.base64_forms if form in text]
        for run in base64_text.RUN.finditer(text):
            encoded = run.group()
            here = [form for form in forms if form in encoded]
            decoded = base64_text.decoded(encoded) if here else base64_text.decoded_text(encoded)
            if decoded is not None:
                scrubbed = replaced(decoded, self._spans(decoded, depth + 1))
                if scrubbed != decoded:
                    yield run.start(), run.end(), base64_text.encoded_like(encoded, scrubbed)
                    continue
            for form in here:  # what stands before it belongs to no base64
                for hit in re.finditer(re.escape(form), encoded):
                    yield run.start() + hit.start(), run.start() + hit.end(), "A" * len(form)

    # -- parts of an exchange

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name: self._header(name, value) for name, value in headers.items()}

    def _header(self, name: str, value: str) -> str:
        kind = finding.HEADERS.get(name.lower())
        scheme, secret = header_secret(name, value)
        if kind is None:
            return self.text(value)
        return value if finding.PLACEHOLDER.fullmatch(secret) else scheme + self._seen.name(kind, secret)

    def _url(self, url: str) -> str:
        """The URL without secrets; the host is none."""
        parts = urlsplit(url)
        rest = urlunsplit(("", "", parts.path, parts.query, ""))
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{self.text(rest)}"

    def _body(self, body: Body) -> Body:
        text = body.data.decode("latin-1")
        spans = self._named([*self._spans(text), *self._split_spans(text)])
        if not spans:
            return body
        data = replaced(text, spans).encode("latin-1", "replace")
        sizes = moved(body.sizes, spans)
        delays = list(body.delays)
        for at, size in enumerate(sizes):  # a segment may have been the middle of a secret
            if not size and delays and at + 1 < len(delays):
                delays[at + 1] += delays[at]
        kept = tuple(delay for delay, size in zip(delays, sizes) if size)
        return Body(split_sizes(data, tuple(filter(None, sizes))), kept, body.end)

    def _split_spans(self, text: str) -> Iterator[Span]:
        """Spans for secrets that a stream of events tells in pieces: each event has a part of one."""
        pieces = list(_TEXT.finditer(text))
        values = [_json_text(piece[1]) for piece in pieces]
        ends, total = [], 0
        for value in values:
            total += len(value)
            ends.append(total)
        changed: dict[int, str] = {}
        whole = "".join(values)
        shaped = (found for found in finding.find(whole) if found.kind not in _NOT_ACROSS)
        spans = [*self._seen.spans(whole), *((found.start, found.end, (found.kind, found.value)) for found in shaped)]
        for start, end, name in reversed(self._named(spans)):
            first, last = bisect.bisect_right(ends, start), bisect.bisect_left(ends, end)
            for at in range(first, last + 1) if first != last else ():
                value, offset = changed.get(at, values[at]), ends[at] - len(values[at])
                before = value[: max(0, start - offset)]
                after = value[end - offset :] if at == last else ""
                changed[at] = before + (name if at == first else "") + after
        for at, value in changed.items():
            yield pieces[at].start(1), pieces[at].end(1), json.dumps(value)[1:-1]


def _json_text(spelled: str) -> str:
    """What the inside of a JSON string means; ``spelled`` has one character for each byte."""
    text = spelled.encode("latin-1").decode("utf-8", "replace")
    with contextlib.suppress(ValueError):
        text = json.loads(f'"{text}"', strict=False) if "\\" in text else text
    return text


def header_secret(name: str, value: str) -> tuple[str, str]:
    """The scheme of a header, as ``"Bearer "``, and what follows it."""
    if name.lower().endswith("authorization"):
        scheme, space, secret = value.partition(" ")
        if space:
            return scheme + space, secret
    return "", value


def _named_in(exchange: Exchange) -> Iterator[tuple[str, str]]:
    """What certainly is a secret: in the headers, in the envelope of Code Assist, in a refresh and its answer."""
    request, response = exchange.request, exchange.response
    came = {} if isinstance(response, Failure) else response.headers
    for name, value in (*request.headers.items(), *came.items()):
        if name.lower() in finding.HEADERS:
            yield finding.HEADERS[name.lower()], header_secret(name, value)[1]
    sent = request.body or b""
    if b"grant_type=" in sent:
        answer = b"" if isinstance(response, Failure) else response.body.data
        for found in (*finding.find(sent.decode("latin-1")), *finding.find(answer.decode("latin-1"))):
            yield found.kind, found.value
    if "/v1internal" in request.url and sent:
        with contextlib.suppress(ValueError, AttributeError):
            yield finding.PROJECT, str(json.loads(sent).get("project") or "")


def _texts(exchange: Exchange) -> Iterator[str]:
    """All texts of an exchange; bodies have one character for each byte."""
    request, response = exchange.request, exchange.response
    yield request.url
    yield (request.body or b"").decode("latin-1")
    yield from request.headers.values()
    if isinstance(response, Failure):
        yield response.message
    else:
        yield from response.headers.values()
        yield response.body.data.decode("latin-1")


def _compiled(pattern: Union[str, re.Pattern[str]]) -> re.Pattern[str]:
    return re.compile(tolerant_pattern(pattern)) if isinstance(pattern, str) else pattern
