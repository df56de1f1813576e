"""Tells objects that they are in a forked child process, so that they replace their locks and connections."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class ForkAware(Protocol):
    def after_fork(self) -> None:
        """Replace the locks, because a thread of the parent may hold them, and drop what belongs to the parent."""


_registered: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def register_after_fork(target: ForkAware) -> None:
    """Call ``target.after_fork()`` in each forked child for as long as the object lives."""
    _registered.add(target)


def _after_fork() -> None:
    for target in list(_registered):
        target.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, where there is no fork
    os.register_at_fork(after_in_child=_after_fork)
