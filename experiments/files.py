"""Analysis of a file: any CSV or Parquet with one row a user (or several, with ``unit``), no store needed.

It goes the way of the service from the sums on, so the same users give the same figures.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, Literal

import duckdb
import ibis
import ibis.expr.types as ir
import numpy as np
import scipy.stats

from experiments import analysis
from experiments.aggregate import (
    LARGEST,
    MICROS,
    Cell,
    Column,
    Layout,
    Measured,
    Sums,
    UserCounts,
    read_sums,
    sum_columns,
)
from experiments.design import Design, MetricSpec
from experiments.documents import Direction, Role
from experiments.errors import FieldProblem, InvalidDocument
from experiments.report import Report

MAX_STRATA = 1000
# Splits that differ between segments with less than this p are taken to differ by design.
SPLIT_DIFFERS = 0.001

_METRIC = re.compile(r"(?P<name>[^=]+)=(?P<kind>conversion|mean|ratio):(?P<columns>[^/]+(?:/[^/]+)?)")


@dataclass(frozen=True, slots=True)
class FileMetric:
    """A metric of a file: ``columns`` hold one column, or numerator and denominator."""

    name: str
    kind: Literal["conversion", "mean", "ratio"]
    columns: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "FileMetric":
        """Read ``NAME=KIND:COL`` or ``NAME=ratio:COL/COL``."""
        match = _METRIC.fullmatch(text)
        columns = tuple(match["columns"].split("/")) if match else ()
        if match is None or (match["kind"] == "ratio") != (len(columns) == 2):
            remedy = "write NAME=conversion:COL, NAME=mean:COL or NAME=ratio:COL/COL"
            raise InvalidDocument([FieldProblem("metric", text, "bad_metric", remedy)], "command")
        return cls(match["name"], match["kind"], columns)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Question:
    """What to compute from a file.

    The first metric is the primary one, the others are secondary, or guardrails where ``guardrails`` gives a margin.
    ``weights`` is the designed split, equal if not given.
    """

    variant: str
    control: str
    metrics: Sequence[FileMetric]
    unit: str | None = None
    covariates: Sequence[str] = ()
    segments: Sequence[str] = ()
    weights: Mapping[str, float] | None = None
    guardrails: Mapping[str, float] | None = None
    lower_is_better: Sequence[str] = ()
    method: Literal["fixed", "sequential"] = "fixed"
    planned_users: int | None = None
    alpha: float = 0.05
    correction: Literal["holm", "bh", "none"] = "holm"


def analyse(path: Path, question: Question) -> Report:
    """Analyse a file.

    Args:
        path: a ``.parquet`` file, else CSV (also compressed), with a header.
        question: what to compute.

    Returns:
        The report, as of the file's time of change.

    Raises:
        InvalidDocument: the file cannot be read, a column is missing or holds what it should not, or an option does
            not fit the data.
    """
    if not path.is_file():
        raise InvalidDocument([FieldProblem("file", str(path), "not_found", "name a CSV or Parquet file")], "command")
    # One order of the groups, whatever the order of the options: sums of floats depend on it.
    question = replace(question, segments=sorted(set(question.segments)))
    engine = ibis.duckdb.connect()
    try:
        return _analyse(engine, path, question)
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        problem = FieldProblem("file", str(path), "unreadable", f"give a CSV (UTF-8) or Parquet file: {reason}")
        raise InvalidDocument([problem], "file") from None
    finally:
        engine.disconnect()


def _analyse(engine: Any, path: Path, question: Question) -> Report:
    is_parquet = path.suffix == ".parquet"
    table = engine.read_parquet(path) if is_parquet else engine.read_csv(path, sample_size=-1)
    _check_columns(table, question)
    _check_values(engine, table, question)
    users = _users(table, question)
    columns = _columns(question)
    where = ~users.crossed
    keys = [f"segment{i}" for i in range(len(question.segments))]
    aggregates: dict[str, Any] = {"assigned": users.count(), "exposed": where.sum()}
    for index, layout in enumerate(columns):
        values = [users[f"m{index}_{i}"] for i in range(len(layout.columns))]
        aggregates |= sum_columns(f"m{index}", layout.columns, values, where)
    rows = engine.to_pyarrow(users.group_by("variant", *keys).aggregate(**aggregates)).to_pylist()
    rows.sort(key=lambda row: [row["variant"], *(str(row[key]) for key in keys)])
    variants = sorted({row["variant"] for row in rows}, key=lambda name: (name != question.control, name))
    if question.control not in variants or len(variants) < 2:
        remedy = f"name one of the values of {question.variant!r}: {', '.join(variants[:20])}"
        raise InvalidDocument([FieldProblem("control", question.control, "unknown_variant", remedy)], "command")
    strata = _strata(question, rows, keys)
    counts: dict[tuple[str | None, str], UserCounts] = {}
    cells: list[dict[Cell, Sums]] = [{} for _ in question.metrics]
    for row in rows:
        stratum = _stratum(row, keys)
        counts[stratum, row["variant"]] = UserCounts(int(row["assigned"]), int(row["exposed"]))
        for index, layout in enumerate(columns):
            cells[index][Cell(stratum, row["variant"], None)] = read_sums(f"m{index}", layout.columns, row)
    design = _design(path, question, variants, strata, counts)
    measured = [
        (_spec(metric, position, question), Measured(layout, part))
        for position, (metric, layout, part) in enumerate(zip(question.metrics, columns, cells, strict=True))
    ]
    # The primary metric leads, whatever else was asked to be a guardrail.
    data = analysis.Data(counts, 0, measured)
    as_of = datetime.fromtimestamp(path.stat().st_mtime, UTC).replace(microsecond=0)
    return analysis.build(design, data, as_of=as_of, watermark=None)


def _check_columns(table: ir.Table, question: Question) -> None:
    wanted = [("variant", question.variant)]
    wanted += [("unit", question.unit)] if question.unit else []
    wanted += [("metric", column) for metric in question.metrics for column in metric.columns]
    wanted += [("covariate", column) for column in question.covariates]
    wanted += [("segment", column) for column in question.segments]
    remedy = f"name one of the file's columns: {', '.join(table.columns[:50])}"
    problems = [
        FieldProblem(option, column, "unknown_column", remedy)
        for option, column in wanted
        if column not in table.columns
    ]
    names = [metric.name for metric in question.metrics]
    problems += [
        FieldProblem("metric", name, "not_unique", "give each metric a name of its own")
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    for option, given in (("guardrail", question.guardrails or {}), ("lower-is-better", question.lower_is_better)):
        for name in given:
            if name not in names:
                problems.append(FieldProblem(option, name, "unknown_metric", f"name a metric: {', '.join(names)}"))
    if names and question.guardrails and names[0] in question.guardrails:
        problems.append(FieldProblem("guardrail", names[0], "primary", "the first metric is the primary one"))
    numeric = {column for metric in question.metrics for column in metric.columns} | set(question.covariates)
    for column in sorted(numeric & set(table.columns)):
        kind = table[column].type()
        if not (kind.is_numeric() or kind.is_boolean()):
            problems.append(FieldProblem(column, str(kind), "not_a_number", "give a column of numbers"))
    if problems:
        raise InvalidDocument(problems, "command")


def _check_values(engine: Any, table: ir.Table, question: Question) -> None:
    """Refuse empty cells, values that are not numbers, and conversions that are not 0 or 1, counting them."""
    checks: dict[str, tuple[ir.BooleanValue, str, str, str]] = {
        f"empty:{column}": (table[column].isnull(), column, "empty", "fill the cells, or drop the rows")
        for column in (question.variant, question.unit)
        if column is not None
    }
    for metric in question.metrics:
        for column in metric.columns:
            _check_numbers(checks, table, column)
            if metric.kind == "conversion" and not table[column].type().is_boolean():
                bad = ~table[column].isin([0, 1])
                checks[f"conversion:{column}"] = (bad, column, "not_0_or_1", "give 0 or 1, or use mean")
    for column in question.covariates:
        _check_numbers(checks, table, column)
    counted = {f"c{i}": check[0].fill_null(False).sum() for i, check in enumerate(checks.values())}
    row = engine.to_pyarrow(table.aggregate(**counted)).to_pylist()[0]
    problems = [
        FieldProblem(column, f"{row[f'c{i}']} rows", problem, remedy)
        for i, (_, column, problem, remedy) in enumerate(checks.values())
        if row[f"c{i}"]
    ]
    if problems:
        raise InvalidDocument(problems, "file")


def _check_numbers(checks: dict[str, tuple[ir.BooleanValue, str, str, str]], table: ir.Table, column: str) -> None:
    value = table[column]
    checks[f"empty:{column}"] = (value.isnull(), column, "empty", "fill the cells (0 if nothing happened)")
    if value.type().is_boolean():
        return
    number = value.cast("float64")
    # NaN is above every number for the engine, but Parquet's statistics do not know it, and the engine trusts them.
    odd = number.isnan() | ~number.between(-LARGEST / MICROS, LARGEST / MICROS)
    checks[f"odd:{column}"] = (odd, column, "not_finite", f"give finite numbers up to {LARGEST / MICROS:.0e}")
    if not value.type().is_integer():
        fine = (value != 0) & (value.abs() < 1 / MICROS)
        checks[f"fine:{column}"] = (fine, column, "too_fine", "rescale the column: six decimals are kept")


def _users(table: ir.Table, question: Question) -> ir.Table:
    """One row a user with whole numbers: variant, crossed, segments, and the columns of each metric."""
    named: dict[str, Any] = {"variant": table[question.variant].cast("string")}
    for i, column in enumerate(question.segments):
        named[f"segment{i}"] = table[column].cast("string").fill_null("")
    for index, (metric, layout) in enumerate(zip(question.metrics, _columns(question), strict=True)):
        for i, source in enumerate([*metric.columns, *question.covariates]):
            value = table[source]
            if layout.columns[i].binary:
                named[f"m{index}_{i}"] = value.cast("int64")
            else:
                named[f"m{index}_{i}"] = (value.cast("float64") * MICROS).round().cast("int64")
    if question.unit is None:
        return table.select(**named, crossed=ibis.literal(value=False))
    rows = table.select(**named, unit=table[question.unit])
    folded: dict[str, Any] = {"variant": rows.variant.min(), "crossed": rows.variant.min() != rows.variant.max()}
    folded |= {name: rows[name].min() for name in named if name.startswith("segment")}
    for index, layout in enumerate(_columns(question)):
        for i, part in enumerate(layout.columns):
            name = f"m{index}_{i}"
            known_before = i >= len(layout.columns) - layout.covariates
            folded[name] = rows[name].max() if part.binary or known_before else rows[name].sum()
    return rows.group_by("unit").aggregate(**folded)


def _columns(question: Question) -> list[Layout]:
    covariates = tuple(Column(name, MICROS) for name in question.covariates)
    layouts = []
    for metric in question.metrics:
        binary = metric.kind == "conversion"
        outcomes = tuple(Column(name, 1 if binary else MICROS, binary) for name in metric.columns)
        layouts.append(Layout(outcomes + covariates, len(covariates)))
    return layouts


def _stratum(row: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return "\x1f".join(row[key] for key in keys) if keys else None


@dataclass(frozen=True, slots=True)
class _Strata:
    names: tuple[str | None, ...]
    members: dict[str, tuple[str | None, ...]]


def _strata(question: Question, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> _Strata:
    names = tuple(dict.fromkeys(_stratum(row, keys) for row in rows))
    if len(names) > MAX_STRATA:
        remedy = f"choose columns with fewer values: they make {len(names)} groups, {MAX_STRATA} at most"
        raise InvalidDocument([FieldProblem("segment", list(question.segments), "too_many", remedy)], "command")
    members: dict[str, list[str | None]] = {}
    for row, (column, key) in product(rows, zip(question.segments, keys, strict=True)):
        group = members.setdefault(f"{column}={row[key]}", [])
        if _stratum(row, keys) not in group:
            group.append(_stratum(row, keys))
    return _Strata(names, {name: tuple(group) for name, group in sorted(members.items())})


def _design(
    path: Path,
    question: Question,
    variants: Sequence[str],
    strata: _Strata,
    counts: Mapping[tuple[str | None, str], UserCounts],
) -> Design:
    weights = _weights(question, variants)
    table = np.array([[_assigned(counts, name, variant) for variant in variants] for name in strata.names])
    stratified = False
    if len(strata.names) > 1 and question.weights is None and (table.sum(axis=0) > 0).all():
        stratified = float(scipy.stats.chi2_contingency(table)[1]) < SPLIT_DIFFERS
    planned = question.planned_users
    if planned is None and question.method == "sequential":
        planned = int(table.sum())
    return Design(
        experiment=path.name.split(".")[0],
        name=path.name,
        revision=1,
        phase=1,
        control=question.control,
        variants={variant: variant for variant in variants},
        segments={name: name for name in strata.members},
        shares=dict.fromkeys(strata.names, weights),
        members=strata.members,
        stratified=stratified,
        method=question.method,
        alpha=question.alpha,
        planned_users=planned,
        correction=question.correction,
    )


def _assigned(counts: Mapping[tuple[str | None, str], UserCounts], stratum: str | None, variant: str) -> int:
    known = counts.get((stratum, variant))
    return 0 if known is None else known.assigned


def _weights(question: Question, variants: Sequence[str]) -> dict[str, float]:
    given = question.weights
    if given is None:
        return {variant: 1 / len(variants) for variant in variants}
    if set(given) != set(variants) or min(given.values()) < 0 or sum(given.values()) <= 0:
        remedy = f"give a weight of 0 or more for each of {', '.join(variants)}"
        raise InvalidDocument([FieldProblem("weights", dict(given), "bad_weights", remedy)], "command")
    return {variant: given[variant] / sum(given.values()) for variant in variants}


def _spec(metric: FileMetric, position: int, question: Question) -> MetricSpec:
    margin = (question.guardrails or {}).get(metric.name)
    role = Role.primary if position == 0 else Role.secondary if margin is None else Role.guardrail
    return MetricSpec(
        key=metric.name,
        name=metric.name,
        kind=metric.kind,
        role=role,
        direction=Direction.down if metric.name in question.lower_is_better else Direction.up,
        margin=margin,
        unit="share" if metric.kind == "conversion" else "number",
        delay_days=0,
        window_days=None,
        revision=1,
    )
