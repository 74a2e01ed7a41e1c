"""From a file's rows to one row a user, or a cluster: whole numbers, folded, cut and filled as the question asks.

Columns of the tables made here: ``variant`` (levels of a factorial design joined by ``JOINT``), ``crossed``,
``s0…`` segments, ``x0…`` covariates with ``k0…`` whether they are known, ``m0_0…`` the columns of each metric,
``received``, ``triggered``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import ibis
import ibis.expr.types as ir

from experiments.files.question import FileMetric, Question
from experiments.sums import DAY_US, LARGEST, MICROS, Column, Layout

JOINT = "\x1f"


@dataclass(frozen=True, slots=True)
class Shape:
    """How the rows of a question become columns: the layout of each metric, and the covariates with empty cells."""

    question: Question
    missing: frozenset[str]

    @property
    def segments(self) -> list[str]:
        """The columns of the segments."""
        return [f"s{i}" for i in range(len(self.question.segments))]

    def capped(self, metric: FileMetric) -> bool:
        """Whether heavy tails are cut."""
        return metric.name in self.question.caps or metric.name in self.question.cap_percentiles

    def covariates(self) -> dict[str, Column]:
        """The columns of the covariates, by their names in the tables."""
        found = {}
        for i, name in enumerate(self.question.covariates):
            found[f"x{i}"] = Column(name, MICROS)
            if name in self.missing:
                # Any number in place of the unknown ones gives the same effects, once it is told which they are.
                found[f"k{i}"] = Column(f"{name} known", 1, binary=True)
        return found

    def columns(self, index: int) -> dict[str, Column]:
        """The columns of a metric's outcome, by their names in the tables."""
        metric = self.question.metrics[index]
        match metric.kind:
            case "conversion" | "funnel":
                outcome = [Column(name, 1, binary=True) for name in metric.columns]
            case "time_to_event":
                outcome = [Column("days", DAY_US)]
            case _:
                outcome = [Column(name, MICROS) for name in metric.columns]
        named = {f"m{index}_{i}": column for i, column in enumerate(outcome)}
        if self.question.cluster is not None and metric.kind in ("conversion", "mean"):
            summed = {name: Column(column.name, column.scale) for name, column in named.items()}
            return summed | {"users": Column("users", 1)}
        if self.capped(metric):
            named[f"m{index}_uncapped"] = Column("uncapped", MICROS)
        return named

    def layout(self, index: int) -> tuple[Layout, list[str]]:
        """The layout of a metric, and the names of its columns in the tables."""
        kind = self.question.metrics[index].kind
        outcome = self.columns(index)
        before = self.covariates() if kind in ("conversion", "mean", "ratio") else {}
        uncapped = f"m{index}_uncapped" in outcome
        layout = Layout((*outcome.values(), *before.values()), len(before), len(outcome) - 1 if uncapped else None)
        return layout, [*outcome, *before]


def rows_of(table: ir.Table, shape: Shape) -> ir.Table:
    """The rows of the file in whole numbers."""
    question = shape.question
    names = [table[column].cast("string") for column in question.arms]
    named: dict[str, Any] = {"variant": reduce(lambda a, b: a + JOINT + b, names)}
    for option in ("unit", "cluster"):
        column = getattr(question, option)
        if column is not None:
            named[option] = table[column]
    for name, column in zip(shape.segments, question.segments, strict=True):
        named[name] = table[column].cast("string").fill_null("")
    for i, column in enumerate(question.covariates):
        named[f"x{i}"] = _whole(table[column], MICROS)
    for option in ("received", "triggered"):
        column = getattr(question, option)
        if column is not None:
            named[option] = table[column].cast("int64")
    for index, metric in enumerate(question.metrics):
        for i, column in enumerate(metric.columns):
            happened = metric.kind in ("conversion", "funnel") or (metric.kind == "time_to_event" and i == 1)
            scale = DAY_US if metric.kind == "time_to_event" else MICROS
            named[f"m{index}_{i}"] = table[column].cast("int64") if happened else _whole(table[column], scale)
    return table.select(**named)


def users_of(rows: ir.Table, shape: Shape) -> ir.Table:
    """One row a user: sums of money, any success, the first event; covariates and segments are the same in all rows."""
    question = shape.question
    if question.unit is not None:
        owner = ["unit", *(["cluster"] if question.cluster is not None else [])]
        folded = _identity(rows, shape)
        for index, metric in enumerate(question.metrics):
            folded |= _folded(rows, metric, f"m{index}_")
        folded |= {name: rows[name].max() for name in ("received", "triggered") if name in rows.columns}
        folded |= {f"x{i}": rows[f"x{i}"].max() for i in range(len(question.covariates))}
        users = rows.group_by(owner).aggregate(**folded)
    else:
        users = rows.mutate(other=rows.variant)
    changed: dict[str, Any] = {}
    for index, metric in enumerate(question.metrics):
        if metric.kind == "funnel":
            steps = [users[f"m{index}_{i}"] for i in range(len(metric.columns))]
            changed |= {f"m{index}_{i}": reduce(lambda a, b: a * b, steps[: i + 1]) for i in range(len(steps))}
        if shape.capped(metric):
            changed[f"m{index}_uncapped"] = users[f"m{index}_0"]
    return users.mutate(crossed=users.variant != users.other, **changed)


def cut(users: ir.Table, shape: Shape, execute: Callable[[ir.Table], Any]) -> tuple[ir.Table, dict[int, float]]:
    """Cut heavy tails. Returns the users, and where each metric was cut.

    A percentile is that of the numbers above zero of all variants together, so blind to the effect.
    """
    question = shape.question
    places = {metric.name: index for index, metric in enumerate(question.metrics)}
    caps = {places[name]: min(round(cap * MICROS), LARGEST) for name, cap in question.caps.items()}
    wanted = {}
    for name, percentile in question.cap_percentiles.items():
        value = users[f"m{places[name]}_0"]
        wanted[f"c{places[name]}"] = value.quantile(percentile / 100, where=~users.crossed & (value > 0))
    if wanted:
        (row,) = execute(users.aggregate(**wanted)).to_pylist()
        caps |= {int(name[1:]): round(value) for name, value in row.items() if value is not None}
    lower = {f"m{index}_0": ibis.least(users[f"m{index}_0"], ibis.literal(cap, "int64")) for index, cap in caps.items()}
    return users.mutate(**lower) if lower else users, {index: cap / MICROS for index, cap in caps.items()}


def units_of(users: ir.Table, shape: Shape) -> ir.Table:
    """One row of what was randomised: of each user, or of each cluster with the sums of its users."""
    question = shape.question
    known = [f"x{i}" for i in range(len(question.covariates))]
    if question.cluster is not None:
        sums = [name for name in users.columns if name.startswith("m")]
        folded = _identity(users, shape) | {"users": users.count()}
        folded |= {name: users[name].sum().cast("int64") for name in sums}
        folded |= {name: users[name].mean().round().cast("int64") for name in known}
        units = users.group_by("cluster").aggregate(**folded)
        units = units.mutate(crossed=units.variant != units.other)
    else:
        units = users
    filled: dict[str, Any] = {f"k{name[1:]}": units[name].notnull().cast("int64") for name in known}
    return units.mutate(**filled, **{name: units[name].fill_null(0) for name in known}) if known else units


def _identity(rows: ir.Table, shape: Shape) -> dict[str, Any]:
    other = rows.other if "other" in rows.columns else rows.variant
    named: Mapping[str, Any] = {name: rows[name].min() for name in shape.segments}
    return {"variant": rows.variant.min(), "other": other.max(), **named}


def _folded(rows: ir.Table, metric: FileMetric, prefix: str) -> dict[str, Any]:
    columns: Sequence[ir.IntegerValue] = [rows[f"{prefix}{i}"] for i in range(len(metric.columns))]
    if metric.kind == "time_to_event":
        days, happened = columns
        first = days.min(where=happened == 1)
        return {f"{prefix}0": ibis.coalesce(first, days.max()), f"{prefix}1": happened.max()}
    if metric.kind in ("conversion", "funnel"):
        return {f"{prefix}{i}": column.max() for i, column in enumerate(columns)}
    return {f"{prefix}{i}": column.sum().cast("int64") for i, column in enumerate(columns)}


def _whole(value: ir.NumericValue, scale: int) -> ir.IntegerValue:
    return (value.cast("float64") * scale).round().cast("int64")
