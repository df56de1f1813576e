"""Knows what a case finds: tables of figures and the targets they must meet; measures and prints nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional


@dataclass(frozen=True)
class Row:
    """What one reader took: ``value`` in the table's unit, and how many times that of the table's first row it is."""

    name: str
    value: float
    ratio: Optional[float] = None


@dataclass(frozen=True)
class Table:
    title: str
    unit: str
    rows: list[Row]


@dataclass(frozen=True)
class Target:
    """A promise: ``figure`` is at most ``limit``."""

    what: str
    figure: float
    limit: float

    @property
    def holds(self) -> bool:
        return self.figure <= self.limit


@dataclass
class Result:
    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def expect(self, what: str, figure: float, limit: float) -> None:
        self.targets.append(Target(what, figure, limit))
