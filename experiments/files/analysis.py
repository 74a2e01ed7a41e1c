"""The answer to a question about a file: its design, and the report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import floor, inf
from pathlib import Path
from typing import Any

import duckdb
import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import scipy.stats

from experiments import analysis
from experiments.design import Design, MetricSpec
from experiments.errors import FieldProblem, InvalidDocument
from experiments.fields import Direction, Role
from experiments.files import measures, people
from experiments.files.checks import check_columns, check_values
from experiments.files.measures import Measures
from experiments.files.people import Shape
from experiments.files.question import FileMetric, Question, problems
from experiments.plans import Plan
from experiments.report import Report
from experiments.sums import Measured
from stats.groupsequential import Spending
from stats.posterior import Normal

MAX_STRATA = 1000
# Splits that differ between segments with less than this p are taken to differ by design.
SPLIT_DIFFERS = 0.001


def analyse(path: Path, question: Question) -> Report:
    """Analyse a file.

    Args:
        path: a ``.parquet`` file, else CSV (also compressed), with a header.
        question: what to compute.

    Returns:
        The report, as of the file's time of change.

    Raises:
        InvalidDocument: the file cannot be read, a column is missing or holds what it should not, or an option does
            not fit the data or another one.
    """
    if not path.is_file():
        raise InvalidDocument([FieldProblem("file", str(path), "not_found", "name a CSV or Parquet file")], "command")

    def read(engine: Any) -> ir.Table:
        return engine.read_parquet(path) if path.suffix == ".parquet" else engine.read_csv(path, sample_size=-1)

    as_of = datetime.fromtimestamp(path.stat().st_mtime, UTC).replace(microsecond=0)
    return _analyse(read, question, path.name, as_of)


def analyse_table(table: pa.Table, question: Question, *, name: str, as_of: datetime) -> Report:
    """Analyse a table in memory; see ``analyse``.

    Args:
        table: the rows.
        question: what to compute.
        name: what to call it.
        as_of: the moment the data stand for.
    """
    return _analyse(lambda _: ibis.memtable(table), question, name, as_of)


def _analyse(read: Callable[[Any], ir.Table], question: Question, name: str, as_of: datetime) -> Report:
    found = list(problems(question))
    if found:
        raise InvalidDocument(found, "command")
    plan = question.plan()
    # One order of the groups, whatever the order of the options: sums of floats depend on it.
    question = replace(question, segments=sorted(set(question.segments)))
    engine = ibis.duckdb.connect()
    try:
        data, design = _measure(engine, read(engine), question, plan, name)
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        problem = FieldProblem("file", name, "unreadable", f"give a CSV (UTF-8) or Parquet file: {reason}")
        raise InvalidDocument([problem], "file") from None
    finally:
        engine.disconnect()
    return analysis.build(design, data, as_of=as_of, watermark=None)


def _measure(engine: Any, table: ir.Table, question: Question, plan: Plan, name: str) -> tuple[analysis.Data, Design]:
    check_columns(table, question)
    shape = Shape(question, check_values(engine, table, question))
    rows = people.rows_of(table, shape)
    users, caps = people.cut(people.users_of(rows, shape), shape, engine.to_pyarrow)
    found = measures.sum_up(engine.to_pyarrow, people.units_of(users, shape), caps, shape)
    design = _design(name, shape, plan, found)
    metrics = []
    for index, (metric, measured) in enumerate(zip(question.metrics, found.metrics, strict=True)):
        if metric.kind == "time_to_event":
            measured = replace(measured, lifetimes=measures.lifetimes(engine.to_pyarrow, users, index, shape))
        elif metric.kind == "quantile":
            measured = replace(measured, values=measures.values(engine.to_pyarrow, rows, index, shape))
        metrics.append((_spec(metric, index, question, metric.window_days or _watched(measured, design)), measured))
    data = analysis.Data(found.users, 0, metrics, received=found.received, triggered=found.triggered)
    return data, design


def _design(name: str, shape: Shape, plan: Plan, found: Measures) -> Design:
    question = shape.question
    variants = _variants(shape, found)
    if len(found.strata) > MAX_STRATA:
        remedy = f"choose columns with fewer values: they make {len(found.strata)} groups, {MAX_STRATA} at most"
        raise InvalidDocument([FieldProblem("segment", list(question.segments), "too_many", remedy)], "command")
    weights = _weights(question, variants)
    assigned = {who: counts.assigned for who, counts in found.users.items()}
    table = np.array([[assigned.get((stratum, variant), 0) for variant in variants] for stratum in found.strata])
    stratified = False
    if len(found.strata) > 1 and question.weights is None and (table.sum(axis=0) > 0).all():
        stratified = float(scipy.stats.chi2_contingency(table)[1]) < SPLIT_DIFFERS
    planned = question.planned_users
    if planned is None and plan.method == "sequential":
        planned = int(table.sum())
    members: dict[str, list[str | None]] = {}
    dimensions: dict[str, dict[str, None]] = {column: {} for column in question.segments}
    for stratum, values in found.strata.items():
        for column, value in zip(question.segments, values, strict=True):
            members.setdefault(f"{column}={value}", []).append(stratum)
            dimensions[column][f"{column}={value}"] = None
    return Design(
        experiment=name.split(".")[0],
        name=name,
        revision=1,
        phase=1,
        control=variants[0],
        variants={variant: variant for variant in variants},
        segments={segment: segment for segment in sorted(members)},
        shares=dict.fromkeys(found.strata, weights),
        members={segment: tuple(strata) for segment, strata in sorted(members.items())},
        stratified=stratified,
        method=plan.method,
        alpha=plan.alpha,
        planned_users=planned,
        correction=plan.correction,
        dimensions={column: tuple(sorted(segments)) for column, segments in dimensions.items()},
        pairs=plan.comparisons == "all_pairs",
        looks=tuple(plan.looks or ()),
        spending=None if plan.spending is None else Spending(plan.spending.name, plan.spending.parameter),
        prior=None if plan.prior is None else Normal(plan.prior.mean, plan.prior.sd),
        factors={variant: dict(zip(question.factors, found.levels[variant], strict=True)) for variant in variants}
        if question.factors
        else {},
        doses=_doses(question, variants),
        ghosts=question.triggered is not None,
    )


def _variants(shape: Shape, found: Measures) -> list[str]:
    """The variants, the control first."""
    question = shape.question
    levels = tuple(question.factors.values()) or (question.control or "",)
    control = measures.variant_name(levels, shape)
    variants = sorted(found.levels, key=lambda name: (name != control, name))
    if control not in variants or len(variants) < 2:
        option, column = ("baseline", "the factors") if question.factors else ("control", repr(question.variant))
        remedy = f"name one of the values of {column}: {', '.join(variants[:20])}"
        raise InvalidDocument([FieldProblem(option, control, "unknown_variant", remedy)], "command")
    return variants


def _weights(question: Question, variants: Sequence[str]) -> dict[str, float]:
    given = question.weights
    if given is None:
        return {variant: 1 / len(variants) for variant in variants}
    if set(given) != set(variants) or min(given.values()) < 0 or not 0 < sum(given.values()) < inf:
        remedy = f"give a weight of 0 or more for each of {', '.join(variants)}"
        raise InvalidDocument([FieldProblem("weights", dict(given), "bad_weights", remedy)], "command")
    return {variant: given[variant] / sum(given.values()) for variant in variants}


def _doses(question: Question, variants: Sequence[str]) -> Mapping[str, float]:
    for variant in question.doses:
        if variant not in variants:
            remedy = f"name variants: {', '.join(variants)}"
            raise InvalidDocument([FieldProblem("dose", variant, "unknown_variant", remedy)], "command")
    return question.doses


def _spec(metric: FileMetric, position: int, question: Question, window_days: int | None) -> MetricSpec:
    margin = question.guardrails.get(metric.name)
    role = Role.primary if position == 0 else Role.secondary if margin is None else Role.guardrail
    down = metric.name in question.lower_is_better or metric.kind == "time_to_event"
    down = down and metric.name not in question.higher_is_better
    # Sums over clusters divided by their users.
    by_cluster = question.cluster is not None and metric.kind in ("conversion", "mean")
    return MetricSpec(
        key=metric.name,
        name=metric.name,
        kind="ratio" if by_cluster else metric.kind,
        role=role,
        direction=Direction.down if down else Direction.up,
        margin=margin,
        unit=_UNITS.get(metric.kind, "number"),
        horizon_days=0,
        window_days=window_days,
        revision=1,
        quantile=metric.quantile,
    )


_UNITS: Mapping[str, str] = {"conversion": "share", "funnel": "share", "time_to_event": "days"}


def _watched(measured: Measured, design: Design) -> int | None:
    """The whole days for which some user of every group compared was watched: as far as all curves are known."""
    ends: dict[tuple[str | None, str], float] = {}
    for (stratum, variant), part in (measured.lifetimes or {}).items():
        group = stratum if design.stratified else None, variant
        ends[group] = max(ends.get(group, 0.0), float(part.times[-1]))
    return floor(min(ends.values())) or None if ends else None
