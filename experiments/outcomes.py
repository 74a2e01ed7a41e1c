"""From metric documents to columns: which numbers of each user are summed, and from which events they come."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from typing import Any, Literal

import ibis
import ibis.expr.types as ir

from experiments.metrics import (
    ConversionMetric,
    FunnelMetric,
    MeanMetric,
    QuantileMetric,
    RatioMetric,
    RetentionMetric,
    Term,
    TimeToEventMetric,
)
from experiments.sums import DAY_US, LARGEST, MICROS, Column, Layout

Outcome = Callable[[ir.Table], ir.IntegerValue]
Measure = Literal["sum", "count", "first", "last"]
SLICES, PLACEBO, RECEIVED, TRIGGERED = "\x00slices", "\x00placebo", "\x00received", "\x00triggered"


@dataclass(frozen=True, slots=True)
class Ask:
    """What to sum: the columns and how each is made, over users whose window has closed (and ``only`` these).

    ``cap``: where the outcome was cut; ``cut_as``: the metric whose percentile it is to be cut at.
    """

    name: str
    layout: Layout
    values: Sequence[Outcome]
    horizon_us: int
    cap: float | None = None
    cut_as: str | None = None
    largest: bool = False
    only: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One event's sum of values, count, first or last moment, from ``start`` up to, not including, ``end``."""

    event: str
    measure: Measure
    start_us: int
    end_us: int


class Plan:
    """The distinct sources over all metrics, each with its column's name, and the funnels with their prefix."""

    def __init__(self) -> None:
        self.sources: dict[Source, str] = {}
        self.funnels: dict[tuple[tuple[str, ...], int], str] = {}

    @property
    def names(self) -> list[str]:
        funnel = {step for steps, _ in self.funnels for step in steps}
        return sorted({source.event for source in self.sources} | funnel)

    def source(self, event: str, measure: Measure, window: tuple[int, int]) -> str:
        return self.sources.setdefault(Source(event, measure, *window), f"s{len(self.sources)}")

    def terms(self, parts: Sequence[Term], window: tuple[int, int], cap: float | None = None) -> Outcome:
        named = [(self.source(part.event, part.aggregate, window), part) for part in parts]
        return lambda users: _capped(_weighted(users, named), cap)

    def happened(self, event: str, window: tuple[int, int]) -> Outcome:
        name = self.source(event, "count", window)
        return lambda users: (users[name].fill_null(0) > 0).cast("int64")

    def active(self, parts: Sequence[Term], window: tuple[int, int]) -> Outcome:
        """Whether any of the events happened; those that are summed, with a value."""
        names = [self.source(part.event, part.aggregate, window) for part in parts]
        return lambda users: reduce(lambda a, b: a | b, (users[name].notnull() for name in names)).cast("int64")

    def waited(self, event: str, end_us: int) -> Outcome:
        """Microseconds until the event, at most ``end_us``."""
        name = self.source(event, "first", (0, end_us))
        return lambda users: users[name].fill_null(end_us).cast("int64")

    def first(self, metric: TimeToEventMetric) -> str:
        return self.source(metric.event, "first", (0, metric.window_days * DAY_US))

    def reached(self, steps: Sequence[str], end_us: int) -> list[Outcome]:
        prefix = self.funnels.setdefault((tuple(steps), end_us), f"f{len(self.funnels)}_")
        return [
            lambda users, name=f"{prefix}{i}": users[name].notnull().cast("int64")  # type: ignore[misc]
            for i in range(len(steps))
        ]


def window_of(metric: Any) -> tuple[int, int]:
    """Microseconds after exposure at which a metric's window opens and closes."""
    return getattr(metric, "delay_days", 0) * DAY_US, metric.horizon_days * DAY_US


def asked(metric: Any, plan: Plan) -> Ask:
    """What one metric needs."""
    window = window_of(metric)
    lookback = getattr(metric, "lookback_days", None)
    before = None if lookback is None else (-lookback * DAY_US, 0)
    columns: list[Column]
    covariates: list[tuple[Column, Outcome]] = []
    uncapped = None
    if isinstance(metric, RatioMetric):
        columns = [Column("numerator", MICROS), Column("denominator", MICROS)]
        values = [plan.terms(part, window) for part in (metric.numerator, metric.denominator)]
        if before:
            covariates = [
                (Column("numerator_before", MICROS), plan.terms(metric.numerator, before)),
                (Column("denominator_before", MICROS), plan.terms(metric.denominator, before)),
            ]
    elif isinstance(metric, MeanMetric):
        columns = [Column("outcome", MICROS)]
        values = [plan.terms(metric.terms, window, metric.cap)]
        if metric.cap is not None or metric.cap_percentile is not None:
            uncapped = 1
            columns.append(Column("uncapped", MICROS))
            values.append(plan.terms(metric.terms, window))
        if before:
            # Most users did nothing before: having been active at all is a covariate of its own.
            covariates = [
                (Column("outcome_before", MICROS), plan.terms(metric.terms, before, metric.cap)),
                (Column("active_before", 1, binary=True), plan.active(metric.terms, before)),
            ]
    elif isinstance(metric, ConversionMetric | RetentionMetric):
        columns = [Column("outcome", 1, binary=True)]
        values = [plan.happened(metric.event, window)]
        if before:
            covariates = [(Column("outcome_before", 1, binary=True), plan.happened(metric.event, before))]
    elif isinstance(metric, FunnelMetric):
        columns = [Column(step, 1, binary=True) for step in metric.steps]
        values = plan.reached(metric.steps, window[1])
    elif isinstance(metric, TimeToEventMetric):
        columns, values = [Column("outcome", DAY_US)], [plan.waited(metric.event, window[1])]
    else:
        columns, values = [Column("outcome", MICROS)], [plan.terms(metric.terms, window)]
    return Ask(
        metric.key,
        Layout((*columns, *(column for column, _ in covariates)), len(covariates), uncapped),
        [*values, *(value for _, value in covariates)],
        metric.horizon_days * DAY_US,
        cap=getattr(metric, "cap", None),
        cut_as=None if getattr(metric, "cap_percentile", None) is None else metric.key,
        largest=isinstance(metric, MeanMetric),
    )


def asks_of_the_first(metric: Any, plan: Plan, received_event: str | None, trigger: str | None) -> Iterator[Ask]:
    """What is asked of the main metric only."""
    plain = asked(metric, plan)
    outcomes = 2 if isinstance(metric, RatioMetric) else 1
    if isinstance(metric, FunnelMetric):
        columns, values = plain.layout.columns[-1:], plain.values[-1:]
    else:
        columns, values = plain.layout.columns[:outcomes], plain.values[:outcomes]
    for name, bounds in ((SLICES, slice_bounds(metric)), (PLACEBO, placebo_bounds(metric))):
        if bounds:
            days = [(a * DAY_US, b * DAY_US) for a, b in pairwise(bounds)]
            parts = [
                plan.terms(metric.terms, window)
                if isinstance(metric, MeanMetric)
                else plan.happened(metric.event, window)
                for window in days
            ]
            # A slice's number is the mean a day, so that slices of unequal length compare.
            per_day = [plain.layout.columns[0].scale * (b - a) for a, b in pairwise(bounds)]
            layout = Layout(tuple(Column(f"slice{i}", scale) for i, scale in enumerate(per_day)), 0)
            yield Ask(name, layout, parts, plain.horizon_us)
    if isinstance(metric, QuantileMetric):
        return  # sums tell nothing of quantiles
    inside = (0, plain.horizon_us)
    if received_event is not None:
        layout = Layout((*columns, Column("received", 1, binary=True)), 0)
        received = [*values, plan.happened(received_event, inside)]
        yield replace(plain, name=RECEIVED, layout=layout, values=received, largest=False)
    if trigger is not None:
        only = plan.happened(trigger, inside)
        yield replace(plain, name=TRIGGERED, layout=Layout(columns, 0), values=values, largest=False, only=only)


def slice_bounds(metric: Any) -> tuple[int, ...]:
    """Return the days since exposure at which slices of a metric's window begin and end.

    There are none for a short window, or other kinds than means and conversions.
    """
    if not isinstance(metric, MeanMetric | ConversionMetric) or metric.window_days < _SLICES_OF_WINDOW:
        return ()
    return tuple(metric.delay_days + i * metric.window_days // _SLICES_OF_WINDOW for i in range(_SLICES_OF_WINDOW + 1))


def placebo_bounds(metric: Any) -> tuple[int, ...]:
    """Return the days at which the slices before exposure begin and end, as long as the first two after it."""
    after = slice_bounds(metric)
    return tuple(metric.delay_days - day for day in reversed(after[:3]))


_SLICES_OF_WINDOW = 4


def _weighted(users: ir.Table, named: Sequence[tuple[str, Term]]) -> ir.IntegerValue:
    parts: list[ir.NumericValue] = []
    whole = True
    for name, term in named:
        part = users[name].fill_null(0).cast("int64")
        unit = MICROS if term.aggregate == "count" else 1
        weight = term.weight * unit
        if weight == round(weight):
            parts.append(part * round(weight) if round(weight) != 1 else part)
        else:
            whole = False
            parts.append(part.cast("float64") * weight)
    total = between(reduce(lambda a, b: a + b, parts), -LARGEST, LARGEST)
    return total if whole else total.round().cast("int64")


def _capped(value: ir.IntegerValue, cap: float | None) -> ir.IntegerValue:
    return value if cap is None else ibis.least(value, ibis.literal(min(round(cap * MICROS), LARGEST), "int64"))


def between(value: ir.NumericValue, low: int, high: int) -> ir.NumericValue:
    return ibis.greatest(ibis.least(value, ibis.literal(high, "int64")), ibis.literal(low, "int64"))
