"""Looks for known secrets in what is about to be saved, by other means than those that replaced them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote_to_bytes

from gemini_sync.testing.cassette.values import Cassette, Failure
from gemini_sync.testing.scrub.forms import plain_forms
from gemini_sync.testing.scrub.secrets_seen import WORDS


def leaks(cassette: Cassette, text: str, secrets: Mapping[str, str]) -> Iterator[str]:
    """Where a secret still is: ``"a API-KEY in the body of response 2"``; never the secret itself.

    Args:
        text: of the file as it will be.
        secrets: the kind of each secret.
    """
    places = [("the file", text.encode())]
    for number, exchange in enumerate(cassette.exchanges, 1):
        request, response = exchange.request, exchange.response
        places.append((f"the URL of request {number}", unquote_to_bytes(request.url)))
        places.append((f"the body of request {number}", request.body or b""))
        if isinstance(response, Failure):
            places.append((f"failure {number}", response.message.encode()))
        else:
            places.append((f"the body of response {number}", response.body.data))
    for secret, kind in secrets.items():
        forms = [secret.encode("utf-8", "surrogatepass")]
        forms += [form.encode("utf-8", "surrogatepass") for form in plain_forms(secret)]
        forms += _base64_forms(secret.encode("utf-8", "surrogatepass"))
        alone = re.compile(rb"(?<![\w-])%s(?![\w-])" % re.escape(forms[0])) if kind in WORDS else None
        for place, data in places:
            if alone.search(data) if alone else any(form in data for form in forms):
                yield f"{kind} in {place}"


def _base64_forms(data: bytes) -> Iterator[bytes]:
    """The whole groups of four characters that the secret alone decides, in either alphabet."""
    for skipped in range(3):
        whole = data[skipped : skipped + (len(data) - skipped) // 3 * 3]
        if len(whole) >= 6:
            yield base64.b64encode(whole)
            yield base64.urlsafe_b64encode(whole)
