"""What was planned, as far as analysis and decision need it: from an experiment's documents, or from a command line."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from experiments.documents import Direction, Role


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A metric as this experiment uses it."""

    key: str
    name: str
    kind: Literal["conversion", "mean", "ratio"]
    role: Role
    direction: Direction
    margin: float | None
    unit: str
    delay_days: int
    window_days: int | None
    revision: int


@dataclass(frozen=True, slots=True)
class ValueSpec:
    """How an effect becomes money a month; ``costs`` per user of each variant."""

    metric: str
    margin: float
    monthly_users: int
    currency: str
    costs: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Design:
    """What was planned, as far as the analysis needs it.

    ``shares`` holds each variant's designed share of the users of each stratum; ``stratified`` whether effects must be
    combined from the strata; ``members`` the strata that make up each segment reported on.
    """

    experiment: str
    name: str
    revision: int
    phase: int
    control: str
    variants: Mapping[str, str]
    segments: Mapping[str, str]
    shares: Mapping[str | None, Mapping[str, float]]
    members: Mapping[str, tuple[str | None, ...]]
    stratified: bool
    method: Literal["fixed", "sequential"]
    alpha: float
    planned_users: int | None
    correction: Literal["holm", "bh", "none"]
    value: ValueSpec | None = None

    @property
    def strata(self) -> tuple[str | None, ...]:
        return tuple(self.shares)

    @property
    def treatments(self) -> list[str]:
        return [variant for variant in self.variants if variant != self.control]
