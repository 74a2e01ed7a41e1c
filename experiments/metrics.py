"""Metric documents: how a user's events become one number.

Every kind has a window after exposure. A user counts once, when his window has closed (a time to event counts at once,
and as far as it was watched).
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from experiments.fields import Direction, Document, EventName, Key, Name, Role, distinct

Days = Annotated[int, Field(ge=1, le=3650)]


class Term(Document):
    """A part of a user's number: ``weight`` times the sum of the events' values, or times their count.

    Net value, for example, is revenue × 0.3, less the coupon's value, less 0.05 for each message sent.
    """

    event: EventName
    aggregate: Literal["sum", "count"] = "sum"
    weight: float = 1.0


Terms = Annotated[list[Term], Field(min_length=1, max_length=20)]


class _Metric(Document):
    key: Key
    name: Name
    window_days: Days
    direction: Direction = Direction.up
    role: Role = Role.secondary
    margin: Annotated[float, Field(gt=0)] | None = None
    unit: Literal["share", "money", "number", "days"] = "number"

    @property
    def horizon_days(self) -> int:
        """Days after exposure at which the last window closes."""
        return getattr(self, "delay_days", 0) + self.window_days

    def _inconsistencies(self) -> Iterator[tuple[str, str]]:
        if self.role is Role.guardrail and self.margin is None:
            yield "margin", "give a guardrail the loss that would still be acceptable, in its own unit"


class _Windowed(_Metric):
    """Counted from ``delay_days`` after exposure; ``lookback_days`` before exposure give the covariate of CUPED."""

    delay_days: int = Field(default=0, ge=0, le=3650)
    lookback_days: Days | None = None


class ConversionMetric(_Windowed):
    """The share of users with at least one ``event`` in the window."""

    kind: Literal["conversion"]
    event: EventName
    unit: Literal["share"] = "share"


class MeanMetric(_Windowed):
    """The mean over users of the weighted terms.

    Heavy tails are cut at ``cap``, or at the percentile ``cap_percentile`` of the users' numbers above zero, all
    variants together; the report shows the effect without the cut beside it.
    """

    kind: Literal["mean"]
    terms: Terms
    cap: Annotated[float, Field(gt=0)] | None = None
    cap_percentile: Annotated[float, Field(ge=50, lt=100)] | None = None
    unit: Literal["money", "number"] = "number"

    def _inconsistencies(self) -> Iterator[tuple[str, str]]:
        yield from super()._inconsistencies()
        if self.cap is not None and self.cap_percentile is not None:
            yield "cap_percentile", "give a cap or a percentile, not both"


class RatioMetric(_Windowed):
    """The sum of the numerator over all users divided by the sum of the denominator."""

    kind: Literal["ratio"]
    numerator: Terms
    denominator: Terms


class RetentionMetric(_Metric):
    """The share of users with an ``event`` on day ``day`` after exposure, or within ``window_days`` from that day.

    D7 retention is day 7 with the window of one day; rolling retention (came back on day 7 or later) has a long window.
    """

    kind: Literal["retention"]
    event: EventName
    day: Days
    window_days: Days = 1
    unit: Literal["share"] = "share"

    @property
    def delay_days(self) -> int:
        """The window opens on this day."""
        return self.day


class TimeToEventMetric(_Metric):
    """Mean days until the first ``event``, watched for ``window_days`` (restricted mean survival time)."""

    kind: Literal["time_to_event"]
    event: EventName
    direction: Direction = Direction.down
    unit: Literal["days"] = "days"


class QuantileMetric(_Metric):
    """The ``quantile`` of the users' numbers, or of single events' values (``per``); users stay the unit of chance."""

    kind: Literal["quantile"]
    terms: Terms
    quantile: Annotated[float, Field(gt=0, lt=1)]
    per: Literal["user", "event"] = "user"
    unit: Literal["money", "number"] = "number"

    def _inconsistencies(self) -> Iterator[tuple[str, str]]:
        yield from super()._inconsistencies()
        if self.per == "event" and [term.aggregate for term in self.terms] != ["sum"]:
            yield "terms", "give one term, a sum: its single events' values are what the quantile is of"


class FunnelMetric(_Metric):
    """The share of users who went through all ``steps`` in this order in the window; each step is reported too."""

    kind: Literal["funnel"]
    steps: list[EventName] = Field(min_length=2, max_length=10)
    unit: Literal["share"] = "share"

    def _inconsistencies(self) -> Iterator[tuple[str, str]]:
        yield from super()._inconsistencies()
        if not distinct(self.steps):
            yield "steps", "name each step once"


Metric = Annotated[
    ConversionMetric | MeanMetric | RatioMetric | RetentionMetric | TimeToEventMetric | QuantileMetric | FunnelMetric,
    Field(discriminator="kind"),
]

MetricKind = Literal["conversion", "mean", "ratio", "retention", "time_to_event", "quantile", "funnel"]
