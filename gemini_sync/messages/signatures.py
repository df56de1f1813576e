"""Thought signatures: which service made each one, and the placeholder for those of another service."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, Generic, Optional, TypeVar

from gemini_sync.errors import InvalidRequestError
from gemini_sync.messages.rest_json import dict_of, list_of, text_of

# Every service accepts it in place of a signature (https://ai.google.dev/gemini-api/docs/thought-signatures). The field
# holds bytes, so that the bare word, which is base64 as well, and its own base64 are both in use.
PLACEHOLDER = "skip_thought_signature_validator"
_PLACEHOLDERS = {PLACEHOLDER, "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I"}

_MOST_REMEMBERED = 10_000
_REFUSAL = re.compile(
    r"(corrupted|invalid|malformed) \W?thought[ _]?signature|thought[ _]?signature\W? is (not valid|invalid|corrupted)",
    re.IGNORECASE,
)
_STANDARD_ALPHABET = str.maketrans("-_", "+/")

_log = logging.getLogger(__name__)
_V = TypeVar("_V")


class Signatures:
    """Remembers which service made a thought signature, and which service refused one.

    The threads of an adapter share it. It keeps hashes, never a signature, and forgets the oldest of too many.
    """

    def __init__(self, most: int = _MOST_REMEMBERED) -> None:
        self._makers: _Recent[str] = _Recent(most)
        self._refused: _Recent[bool] = _Recent(most)

    def learn(self, service: str, response: Mapping[str, Any]) -> None:
        """``service`` made the signatures in ``response``, a GenerateContentResponse."""
        for candidate in list_of(response.get("candidates")):
            for signature in _signatures_in([dict_of(candidate).get("content")]):
                key = _hash(signature)
                self._makers.put(key, service)
                if self._refused.get(key + service):
                    self._refused.put(key + service, False)

    def fitted(self, contents: list[dict[str, Any]], service: str) -> list[dict[str, Any]]:
        """``contents`` for ``service``: the placeholder stands for each signature that it would refuse."""
        return [{**content, "parts": [self._fit(part, service) for part in content["parts"]]} for content in contents]

    def _fit(self, part: dict[str, Any], service: str) -> dict[str, Any]:
        signature = text_of(part.get("thoughtSignature"))
        if signature is None:
            return part
        key = _hash(signature)
        if self._makers.get(key) in (None, service) and not self._refused.get(key + service):
            return part
        return {**part, "thoughtSignature": PLACEHOLDER}

    def mend(self, body: Mapping[str, Any], service: str, error: InvalidRequestError) -> bool:
        """True if ``error``, which ``service`` answered to ``body``, is about signatures that can be replaced.

        The service has refused those of unknown origin then, or all if it made all of them: it may have made them for
        another account or model.
        """
        if error.code != 400 or not _REFUSAL.search(str(error)):
            return False
        sent = {_hash(signature) for signature in _signatures_in(list_of(body.get("contents")))}
        unknown = {key for key in sent if self._makers.get(key) is None}
        for key in unknown or sent:
            self._refused.put(key + service, True)
        if sent:
            _log.warning(
                "%s refused the thought signatures of this history (%s); asking once more with %r in place of %d",
                service, "of unknown origin" if unknown else "its own", PLACEHOLDER, len(unknown or sent),
            )  # fmt: skip
        return bool(sent)


class _Recent(Generic[_V]):
    """The values of the keys that were put or read last: at least ``most`` of them, at most twice as many.

    Nothing is guarded by a lock, because each operation on a dict is atomic. A lock could deadlock, because a signal
    handler may run in the thread that holds it, and a fork may copy it locked. If two threads meet at a full dict,
    a few of the newest keys may be forgotten.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._newer_and_older: tuple[dict[str, _V], dict[str, _V]] = ({}, {})

    def get(self, key: str) -> Optional[_V]:
        newer, older = self._newer_and_older
        if key in newer:
            return newer[key]
        value = older.get(key)
        if value is not None:
            self.put(key, value)
        return value

    def put(self, key: str, value: _V) -> None:
        newer, _ = self._newer_and_older
        if len(newer) >= self._most and key not in newer:
            self._newer_and_older = newer, _ = {}, newer
        newer[key] = value


def _signatures_in(contents: list[Any]) -> Iterator[str]:
    """The signatures in the parts of ``contents``, without placeholders."""
    for content in contents:
        for part in list_of(dict_of(content).get("parts")):
            signature = text_of(dict_of(part).get("thoughtSignature"))
            if signature is not None and signature.rstrip("=") not in _PLACEHOLDERS:
                yield signature


def _hash(signature: str) -> str:
    """The same for both alphabets of base64, with and without padding: libraries write the same bytes differently."""
    standard = signature.rstrip("=").translate(_STANDARD_ALPHABET)
    return hashlib.sha256(standard.encode("utf-8", "surrogatepass")).hexdigest()
