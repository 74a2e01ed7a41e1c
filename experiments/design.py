"""What was planned, as far as analysis and decision need it: from an experiment's documents, or from a command line."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

from experiments.fields import Direction, Role
from experiments.metrics import MetricKind
from stats.groupsequential import Spending
from stats.posterior import Normal

Method = Literal["fixed", "sequential", "group_sequential", "bayes"]


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A metric as this experiment uses it. ``horizon_days`` after exposure its window has closed."""

    key: str
    name: str
    kind: MetricKind
    role: Role
    direction: Direction
    margin: float | None
    unit: str
    horizon_days: int
    window_days: int | None
    revision: int
    quantile: float | None = None


@dataclass(frozen=True, slots=True)
class ValueSpec:
    """How an effect becomes money a month; ``costs`` per user of each variant."""

    metric: str
    margin: float
    monthly_users: int
    currency: str
    costs: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Adapting:
    """Shares that follow the evidence: by which metric, the least share, and of each wave its instant and its size."""

    metric: str
    floor: float
    waves: Mapping[str, tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Design:
    """What was planned, as far as the analysis needs it.

    ``shares`` holds each variant's designed share of the users of each stratum; ``stratified`` whether effects must be
    combined from the strata; ``members`` the strata that make up each segment reported on; ``dimensions`` the segments
    that together make up everyone, by what they are segments of. ``pairs``: compare all pairs of variants. ``factors``:
    levels of each variant, ``doses`` its touches a week. ``ghosts``: a trigger is recorded in every variant. ``ended``:
    nobody new is exposed any more. ``adapting``: the strata are waves whose shares followed the ones before.
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
    method: Method
    alpha: float
    planned_users: int | None
    correction: Literal["holm", "bh", "none"]
    dimensions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pairs: bool = False
    looks: tuple[float, ...] = ()
    spending: Spending | None = None
    futility: float | None = None
    prior: Normal | None = None
    factors: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    doses: Mapping[str, float] = field(default_factory=dict)
    ghosts: bool = False
    ended: bool = False
    value: ValueSpec | None = None
    adapting: Adapting | None = None

    @property
    def strata(self) -> tuple[str | None, ...]:
        return tuple(self.shares)

    @property
    def treatments(self) -> list[str]:
        return [variant for variant in self.variants if variant != self.control]

    @property
    def compared(self) -> list[tuple[str, str]]:
        """Which variant is compared with which: with the control first of all."""
        against_control = [(variant, self.control) for variant in self.treatments]
        others = [(b, a) for a, b in combinations(self.treatments, 2)] if self.pairs else []
        return against_control + others
