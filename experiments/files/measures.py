"""From one row a user to what the analysis needs: exact sums, and times to an event and single values besides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np

from experiments.files.people import JOINT, Shape
from experiments.sums import (
    DAY_US,
    MICROS,
    Cell,
    Column,
    Layout,
    Measured,
    Sums,
    UserCounts,
    Values,
    read_sums,
    sum_columns,
)
from stats.survival import Lifetimes

Who = tuple[str | None, str]
Execute = Callable[[ir.Table], Any]


@dataclass(frozen=True, slots=True)
class Measures:
    """Users of each (stratum, variant) and the sums of each metric.

    ``strata``: the segments' values of each stratum, one combination of them. ``levels``: of each variant.
    """

    users: Mapping[Who, UserCounts]
    metrics: list[Measured]
    received: Measured | None
    triggered: Measured | None
    strata: Mapping[str | None, tuple[str, ...]]
    levels: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Ask:
    """Columns to sum, their names in the table, and over whom."""

    layout: Layout
    names: Sequence[str]
    where: ir.BooleanValue
    largest: bool = False


def sum_up(execute: Execute, units: ir.Table, caps: Mapping[int, float], shape: Shape) -> Measures:
    """Sum up the users, or clusters, of each variant and stratum that were in one variant only."""
    asks = _asks(units, shape)
    aggregates: dict[str, Any] = {"assigned": units.count(), "exposed": (~units.crossed).sum()}
    for i, ask in enumerate(asks.values()):
        values = [units[name] for name in ask.names]
        aggregates |= sum_columns(f"a{i}", ask.layout.columns, values, ask.where)
        if ask.largest:
            aggregates[f"a{i}_largest"] = values[0].max(where=ask.where)
    rows = execute(units.group_by("variant", *shape.segments).aggregate(**aggregates)).to_pylist()
    users: dict[Who, UserCounts] = {}
    strata: dict[str | None, tuple[str, ...]] = {}
    levels: dict[str, tuple[str, ...]] = {}
    cells: list[dict[Cell, Sums]] = [{} for _ in asks]
    largest: list[dict[Cell, int]] = [{} for _ in asks]
    for row in sorted(rows, key=lambda row: [row["variant"], *(row[name] for name in shape.segments)]):
        stratum, variant = _who(row, shape)
        strata[stratum] = tuple(row[name] for name in shape.segments)
        levels[variant] = tuple(row["variant"].split(JOINT))
        users[stratum, variant] = UserCounts(int(row["assigned"]), int(row["exposed"]))
        cell = Cell(stratum, variant, None)
        for i, ask in enumerate(asks.values()):
            cells[i][cell] = read_sums(f"a{i}", ask.layout.columns, row)
            if ask.largest and row[f"a{i}_largest"] is not None:
                largest[i][cell] = int(row[f"a{i}_largest"])
    found = {name: Measured(ask.layout, cells[i], largest[i]) for i, (name, ask) in enumerate(asks.items())}
    metrics = [replace(found[f"m{i}"], cap=caps.get(i)) for i in range(len(shape.question.metrics))]
    return Measures(users, metrics, found.get("received"), found.get("triggered"), strata, levels)


def _asks(units: ir.Table, shape: Shape) -> dict[str, _Ask]:
    question, clean = shape.question, ~units.crossed
    asks: dict[str, _Ask] = {}
    for i, metric in enumerate(question.metrics):
        # The sum of a cluster is no user's number.
        asks[f"m{i}"] = _Ask(*shape.layout(i), clean, largest=metric.kind == "mean" and question.cluster is None)
    outcome = shape.columns(0)
    outcome = {name: column for name, column in outcome.items() if name != "m0_uncapped"}
    if question.metrics[0].kind == "funnel":
        outcome = dict(list(outcome.items())[-1:])
    if question.received is not None:
        both = outcome | {"received": Column("received", 1, binary=True)}
        asks["received"] = _Ask(Layout(tuple(both.values()), 0), list(both), clean)
    if question.triggered is not None:
        asks["triggered"] = _Ask(Layout(tuple(outcome.values()), 0), list(outcome), clean & (units.triggered > 0))
    return asks


def lifetimes(execute: Execute, users: ir.Table, index: int, shape: Shape) -> dict[Who, Lifetimes]:
    """Days to the event, or as long as a user was watched without it."""
    clean = users.filter(~users.crossed)
    days, happened = clean[f"m{index}_0"], clean[f"m{index}_1"]
    keys = ["variant", *shape.segments, "days"]
    grouped = clean.mutate(days=days).group_by(keys).aggregate(events=happened.sum(), users=happened.count())
    table = execute(grouped.order_by(keys))
    columns = {name: table[name].to_numpy().astype(np.int64) for name in ("days", "events", "users")}
    return {
        who: Lifetimes(
            columns["days"][part] / DAY_US, columns["events"][part], columns["users"][part] - columns["events"][part]
        )
        for who, part in _groups(table, shape)
    }


def values(execute: Execute, rows: ir.Table, index: int, shape: Shape) -> dict[Who, Values]:
    """Single values, one a row; where a user or cluster has several rows, with whose they are."""
    question = shape.question
    owner = "cluster" if question.cluster is not None else "unit" if question.unit is not None else None
    keys = ["variant", *shape.segments, "value"]
    chosen = rows.mutate(value=rows[f"m{index}_0"])
    if owner is not None:
        own = ibis.window(group_by=owner)
        numbered = chosen.mutate(
            crossed=rows.variant.min().over(own) != rows.variant.max().over(own),
            user=ibis.dense_rank().over(ibis.window(order_by=owner)),
            **{name: rows[name].min().over(own) for name in shape.segments},
        )
        chosen, keys = numbered.filter(~numbered.crossed), [*keys, "user"]
    table = execute(chosen.select(keys).order_by(keys))
    value = table["value"].to_numpy() / MICROS
    user = None if owner is None else table["user"].to_numpy()
    # Without days of exposure all are of one day.
    day = np.zeros(value.size, dtype=np.int64)
    return {
        who: Values(day[part], value[part], None if user is None else user[part]) for who, part in _groups(table, shape)
    }


def _groups(table: Any, shape: Shape) -> list[tuple[Who, slice]]:
    """Rows of each (stratum, variant) in a table sorted by them."""
    columns = [table[name].to_pylist() for name in ("variant", *shape.segments)]
    names = list(zip(*columns, strict=True))
    starts = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    keys = ("variant", *shape.segments)
    return [
        (_who(dict(zip(keys, names[a], strict=True)), shape), slice(a, b))
        for a, b in zip(starts, [*starts[1:], len(names)], strict=True)
    ]


def _who(row: Mapping[str, Any], shape: Shape) -> Who:
    stratum = JOINT.join(row[name] for name in shape.segments) if shape.segments else None
    return stratum, variant_name(row["variant"].split(JOINT), shape)


def variant_name(levels: Sequence[str], shape: Shape) -> str:
    """What a variant is called: its value, or the levels of its factors."""
    if not shape.question.factors:
        return JOINT.join(levels)
    return ", ".join(f"{factor}={level}" for factor, level in zip(shape.question.factors, levels, strict=True))
