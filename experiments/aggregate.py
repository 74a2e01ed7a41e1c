"""From rows to sums: one Ibis expression over exposures and events for all metrics of an experiment.

Times to an event, and values for quantiles, take one more each. Ibis tables of facts are known here and in ``people``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np

from experiments import people
from experiments.facts import Facts
from experiments.metrics import QuantileMetric, TimeToEventMetric
from experiments.outcomes import (
    PLACEBO,
    RECEIVED,
    SLICES,
    TRIGGERED,
    Ask,
    Plan,
    Source,
    asked,
    asks_of_the_first,
    between,
    placebo_bounds,
    slice_bounds,
    window_of,
)
from experiments.people import EPOCH, Scope, epoch_us, micros
from experiments.sums import (
    DAY_US,
    LARGEST,
    MICROS,
    Aggregates,
    Cell,
    Measured,
    Sums,
    UserCounts,
    Values,
    read_sums,
    sum_columns,
)
from stats.survival import Lifetimes

_HOUR_US = 3_600 * MICROS


def from_facts(
    execute: Callable[[ir.Table], Any],
    exposures: ir.Table,
    events: ir.Table,
    metrics: Sequence[Any],
    scope: Scope,
    aliases: ir.Table | None = None,
) -> Aggregates:
    """Sum up one phase of an experiment.

    Args:
        execute: runs an Ibis expression and returns a pyarrow table.
        exposures: user_id, name, phase, variant, stratum, at, seq, batch.
        events: user_id, name, value_micros, at, batch.
        metrics: metric documents, the main one first.
        scope: which facts count.
        aliases: user_id, name (his other id), seq, batch; None where there are none.

    Returns:
        Counts and sums, of persons where ids were linked. An id seen in two variants is counted where its person was
        first seen, and in no effect. A person whose ids were each seen in one variant, but not all in the same, has
        the effect of the first, as the assignment meant it.
    """
    everyone, events = people.everyone(execute, exposures, events, aliases, scope)
    plan = Plan()
    asks = [asked(metric, plan) for metric in metrics]
    asks += list(asks_of_the_first(metrics[0], plan, scope.received, scope.trigger)) if metrics else []
    users = _joined(everyone, events, plan, scope.batch)
    caps = _caps(execute, everyone, events, metrics, scope)
    grouped = {"stratum": users.stratum, "variant": users.variant, "day": users.day}
    sums: dict[str, Any] = {
        "assigned": (~users.forced).sum(),
        "exposed": _takes_part(users).sum(),
        "forced": users.forced.sum(),
    }
    if "merged" in users.columns:
        sums["merged"] = (users.merged & ~users.forced).sum()
    for index, ask in enumerate(asks):
        counted = _matured(users, ask.horizon_us, scope)
        if ask.only is not None:
            counted &= ask.only(users) > 0
        values = [build(users) for build in ask.values]
        if ask.cut_as in caps:
            values[0] = ibis.least(values[0], ibis.literal(caps[ask.cut_as], "int64"))
        sums |= sum_columns(f"m{index}", ask.layout.columns, values, counted)
        if ask.largest:
            sums[f"m{index}_largest"] = values[0].max(where=counted)
    table = execute(users.group_by(**grouped).aggregate(**sums))
    found = _collect(table.to_pylist(), asks, caps)
    measured = {ask.name: part for ask, part in zip(asks, found.parts, strict=True)}
    for metric in metrics:
        if isinstance(metric, TimeToEventMetric):
            lifetimes = _lifetimes(execute, everyone, events, metric, scope)
            measured[metric.key] = replace(measured[metric.key], lifetimes=lifetimes)
        elif isinstance(metric, QuantileMetric):
            singles = _values(execute, everyone, events, metric, scope)
            measured[metric.key] = replace(measured[metric.key], values=singles)
    return Aggregates(
        users=found.users,
        forced=found.forced,
        merged=found.merged,
        metrics={metric.key: measured[metric.key] for metric in metrics},
        days=found.days,
        slices=measured.get(SLICES),
        bounds=slice_bounds(metrics[0]) if SLICES in measured else (),
        placebo=measured.get(PLACEBO),
        placebo_bounds=placebo_bounds(metrics[0]) if PLACEBO in measured else (),
        received=measured.get(RECEIVED),
        triggered=measured.get(TRIGGERED),
    )


def per_user(facts: Facts, metric: Any, scope: Scope, past: Sequence[Source]) -> ir.Table:
    """Return one row for each user of a phase who has matured for a metric.

    Args:
        facts: the lake's tables; ``aliases`` make people of ids.
        metric: a metric document with one number a user.
        scope: which facts count.
        past: what else to take from the events, such as the time before exposure (negative microseconds).

    Returns:
        user_id, exposed_us, variant, stratum, ``outcome`` in its own unit, the metric's covariates under their names,
        and ``past0`` ... as ``past`` has them (null where nothing happened).
    """
    everyone, events = people.everyone(facts.execute, facts.exposures, facts.events, facts.aliases, scope)
    plan = Plan()
    ask = asked(metric, plan)
    names = [plan.source(source.event, source.measure, (source.start_us, source.end_us)) for source in past]
    users = _joined(everyone, events, plan, scope.batch)
    users = users.filter(_matured(users, ask.horizon_us, scope))
    caps = _caps(facts.execute, everyone, events, [metric], scope)
    numbers = {}
    for column, build in zip(ask.layout.columns, ask.values, strict=True):
        value = build(users)
        if column is ask.layout.columns[0] and ask.cut_as in caps:
            value = ibis.least(value, ibis.literal(caps[ask.cut_as], "int64"))
        numbers[column.name] = value / column.scale
    kept = {f"past{i}": users[name] for i, name in enumerate(names)}
    return users.select("user_id", "exposed_us", "variant", "stratum", **numbers, **kept)


@dataclass(frozen=True, slots=True)
class _Found:
    users: dict[tuple[str | None, str], UserCounts]
    forced: int
    merged: int
    days: dict[date, dict[tuple[str | None, str], int]]
    parts: list[Measured]


def _collect(rows: list[dict[str, Any]], asks: Sequence[Ask], caps: Mapping[str | None, int]) -> _Found:
    users: dict[tuple[str | None, str], UserCounts] = {}
    days: dict[date, dict[tuple[str | None, str], int]] = {}
    cells: list[dict[Cell, Sums]] = [{} for _ in asks]
    largest: list[dict[Cell, int]] = [{} for _ in asks]
    forced = merged = 0
    for row in sorted(rows, key=lambda row: (row["stratum"] or "", row["variant"], row["day"])):
        who = row["stratum"], row["variant"]
        known = users.get(who, UserCounts(0, 0))
        users[who] = UserCounts(known.assigned + int(row["assigned"]), known.exposed + int(row["exposed"]))
        forced += int(row["forced"])
        merged += int(row.get("merged", 0))
        day = (EPOCH + timedelta(days=int(row["day"]))).date()
        days.setdefault(day, {})[who] = int(row["assigned"])
        cell = Cell(*who, day)
        for index, ask in enumerate(asks):
            cells[index][cell] = read_sums(f"m{index}", ask.layout.columns, row)
            if ask.largest and row[f"m{index}_largest"] is not None:
                largest[index][cell] = int(row[f"m{index}_largest"])
    parts = [
        Measured(
            ask.layout,
            cells[index],
            largest[index],
            cap=caps[ask.cut_as] / MICROS if ask.cut_as in caps else ask.cap,
        )
        for index, ask in enumerate(asks)
    ]
    return _Found(users, forced, merged, days, parts)


def _takes_part(users: ir.Table) -> ir.BooleanValue:
    return ~users.crossed & ~users.forced


def _matured(users: ir.Table, horizon_us: int, scope: Scope) -> ir.BooleanValue:
    return _takes_part(users) & (users.exposed_us <= micros(scope.as_of) - horizon_us)


def _caps(
    execute: Callable[[ir.Table], Any], users: ir.Table, events: ir.Table, metrics: Sequence[Any], scope: Scope
) -> dict[str | None, int]:
    """The caps that are percentiles: of the numbers above zero of all variants together, so blind to the effect."""
    plan = Plan()
    capped = {metric.key: metric for metric in metrics if getattr(metric, "cap_percentile", None) is not None}
    if not capped:
        return {}
    numbers = {key: plan.terms(metric.terms, window_of(metric)) for key, metric in capped.items()}
    users = _joined(users, events, plan, scope.batch)
    wanted = {}
    for key, number in numbers.items():
        counted = _matured(users, window_of(capped[key])[1], scope) & (number(users) > 0)
        wanted[key] = number(users).quantile(capped[key].cap_percentile / 100, where=counted)
    (row,) = execute(users.aggregate(**wanted)).to_pylist()
    return {key: round(value) for key, value in row.items() if value is not None}


def _joined(users: ir.Table, events: ir.Table, plan: Plan, batch: int) -> ir.Table:
    """Add the plan's columns to the users."""
    if not plan.names:
        return users
    happened = _happened(users, events, plan.names, batch)
    parts = [_funnel(happened, funnel, prefix) for funnel, prefix in plan.funnels.items()]
    for part in [_per_user(happened, plan), *parts] if plan.sources else parts:
        users = users.left_join(part, "user_id").drop("user_id_right")
    return users


def _happened(users: ir.Table, events: ir.Table, names: Sequence[str], batch: int) -> ir.Table:
    """The events of these users, with the time since exposure."""
    facts = events.filter(events.batch <= batch, events.name.isin(names))
    facts = facts.select("user_id", "name", "value_micros", happened_us=epoch_us(facts["at"]))
    joined = facts.inner_join(users.select("user_id", "exposed_us"), "user_id")
    return joined.mutate(after_us=joined.happened_us - joined.exposed_us)


def _per_user(happened: ir.Table, plan: Plan) -> ir.Table:
    joined = happened.filter(
        happened.after_us >= min(source.start_us for source in plan.sources),
        happened.after_us < max(source.end_us for source in plan.sources),
    )
    several = len(plan.names) > 1
    sums = {}
    for source, name in plan.sources.items():
        inside = (joined.after_us >= source.start_us) & (joined.after_us < source.end_us)
        if several:
            inside &= joined.name == source.event
        match source.measure:
            case "count":
                # Nothing rather than 0 for those who did nothing, as a sum has it.
                sums[name] = inside.sum().nullif(0)
            case "sum":
                sums[name] = joined.value_micros.sum(where=inside)
            case "first":
                sums[name] = joined.after_us.min(where=inside)
            case "last":
                sums[name] = joined.after_us.max(where=inside)
    return joined.group_by("user_id").aggregate(**sums)


def _funnel(happened: ir.Table, funnel: tuple[tuple[str, ...], int], prefix: str) -> ir.Table:
    """The moment at which each step was reached, null where it was not: each at or after the step before."""
    (first, *later), end_us = funnel
    inside = happened.filter(happened.after_us >= 0, happened.after_us < end_us)
    facts = inside.filter(inside.name == first)
    reached = facts.group_by("user_id").aggregate(**{f"{prefix}0": facts.after_us.min()})
    for i, step in enumerate(later, 1):
        facts = inside.filter(inside.name == step).select("user_id", "after_us")
        joined = reached.left_join(facts, ["user_id", facts.after_us >= reached[f"{prefix}{i - 1}"]])
        known = {f"{prefix}{j}": joined[f"{prefix}{j}"].min() for j in range(i)}
        reached = joined.group_by("user_id").aggregate(**known, **{f"{prefix}{i}": joined.after_us.min()})
    return reached


def _lifetimes(
    execute: Callable[[ir.Table], Any], users: ir.Table, events: ir.Table, metric: TimeToEventMetric, scope: Scope
) -> dict[tuple[str | None, str], Lifetimes]:
    """Hours to the event, or as long as a user was watched without it, in days."""
    plan = Plan()
    first = plan.first(metric)
    users = _joined(users.filter(_takes_part(users)), events, plan, scope.batch)
    so_far = micros(scope.as_of) - users.exposed_us
    watched = ibis.least(so_far, ibis.literal(metric.window_days * DAY_US, "int64"))
    happened = (users[first] < watched).fill_null(False)
    lasted = ibis.ifelse(happened, users[first], watched).cast("int64")
    hours = ibis.greatest((lasted + _HOUR_US - 1) // _HOUR_US, ibis.literal(1, "int64")).cast("int64")
    timed = users.select("stratum", "variant", hours=hours, happened=happened)
    grouped = timed.group_by("stratum", "variant", "hours").aggregate(
        events=timed.happened.sum(), censored=(~timed.happened).sum()
    )
    table = execute(grouped.order_by("stratum", "variant", "hours"))
    columns = {name: table[name].to_numpy() for name in ("hours", "events", "censored")}
    return {
        who: Lifetimes(
            columns["hours"][rows] / 24,
            columns["events"][rows].astype(np.int64),
            columns["censored"][rows].astype(np.int64),
        )
        for who, rows in _groups(table).items()
    }


def _values(
    execute: Callable[[ir.Table], Any], users: ir.Table, events: ir.Table, metric: QuantileMetric, scope: Scope
) -> dict[tuple[str | None, str], Values]:
    start, end = window_of(metric)
    users = users.filter(_matured(users, end, scope))
    per_event = metric.per == "event"
    if per_event:
        # Numbered by id, so that sums over users are added in one order.
        numbered = users.select(
            "user_id", "stratum", "variant", "day", user=ibis.row_number().over(order_by=users.user_id)
        )
        (term,) = metric.terms
        happened = _happened(users, events, [term.event], scope.batch)
        inside = happened.filter(happened.after_us >= start, happened.after_us < end, happened.value_micros.notnull())
        joined = inside.select("user_id", "value_micros").inner_join(numbered, "user_id")
        weighted = between(joined.value_micros * term.weight, -LARGEST, LARGEST).round().cast("int64")
        chosen = joined.select("stratum", "variant", "day", "user", value=weighted)
    else:
        plan = Plan()
        outcome = plan.terms(metric.terms, (start, end))
        users = _joined(users, events, plan, scope.batch)
        chosen = users.select("stratum", "variant", "day", value=outcome(users))
    keys = ["stratum", "variant", "day", "value", *(["user"] if per_event else [])]
    table = execute(chosen.order_by(keys))
    day, value = table["day"].to_numpy(), table["value"].to_numpy() / MICROS
    user = table["user"].to_numpy() if per_event else None
    return {
        who: Values(day[rows], value[rows], None if user is None else user[rows])
        for who, rows in _groups(table).items()
    }


def _groups(table: Any) -> dict[tuple[str | None, str], slice]:
    """Rows of each (stratum, variant) in a table sorted by them."""
    names = list(zip(table["stratum"].to_pylist(), table["variant"].to_pylist(), strict=True))
    starts = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    return {names[a]: slice(a, b) for a, b in pairwise([*starts, len(names)])}
