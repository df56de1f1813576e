"""The result of a case: tables of figures, and the targets that they must meet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional


@dataclass(frozen=True)
class Row:
    """The figure of one reader, in the unit of its table, and its ratio to the first row."""

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
    """A limit: ``figure`` must be at most ``limit``."""

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
