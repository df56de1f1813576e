"""The access token, and when it has to be replaced."""

from __future__ import annotations

import math
from typing import NamedTuple, Optional, TypeVar

# google-auth refreshes 225 s before the expiry. Both times are shorter for a token that lives less than an hour.
_USUAL_LIFETIME_SECONDS = 3600.0
_REFRESH_BEFORE_SECONDS = 225.0
_UNUSABLE_BEFORE_SECONDS = 30.0

_Class = TypeVar("_Class", bound=type)


def hide_fields(cls: _Class) -> _Class:
    """Decorate a class that holds secrets: its ``repr`` shows no field."""
    cls.__repr__ = object.__repr__  # type: ignore[method-assign, assignment]
    return cls


@hide_fields
class AccessToken(NamedTuple):
    """An access token.

    Attributes:
        access_token: goes into ``Authorization: Bearer``. Empty stands for no token, which is never usable.
        expires_at: seconds since the epoch, or None if that is not known.
        identity: differs if other credentials took over; it reveals nothing about them.
        lifetime: how long the token lives in all, in seconds.
    """

    access_token: str
    expires_at: Optional[float] = None
    identity: str = ""
    lifetime: float = _USUAL_LIFETIME_SECONDS

    @property
    def refresh_from(self) -> float:
        """From then on it should be replaced (seconds since the epoch). It still serves until ``usable_until``."""
        return self._before_expiry(_REFRESH_BEFORE_SECONDS)

    @property
    def usable_until(self) -> float:
        """From then on it must be replaced (seconds since the epoch)."""
        return self._before_expiry(_UNUSABLE_BEFORE_SECONDS)

    def _before_expiry(self, seconds: float) -> float:
        if not self.access_token:
            return -math.inf
        if self.expires_at is None:
            return math.inf
        return self.expires_at - seconds * min(1.0, self.lifetime / _USUAL_LIFETIME_SECONDS)
