"""Whether a file holds what the question takes it to hold: its columns, and every cell of those that are read."""

from collections.abc import Iterator
from typing import Any

import ibis.expr.types as ir

from experiments.errors import FieldProblem, InvalidDocument
from experiments.files.question import Question
from experiments.sums import LARGEST, MICROS

_Check = tuple[ir.BooleanValue, str, str, str]


def check_columns(table: ir.Table, question: Question) -> None:
    """Refuse columns that are not there, and text where numbers are needed."""
    wanted = [("variant" if question.variant else "factor", column) for column in question.arms]
    single = ("unit", "cluster", "received", "triggered")
    wanted += [(option, getattr(question, option)) for option in single if getattr(question, option) is not None]
    wanted += [("metric", column) for metric in question.metrics for column in metric.columns]
    wanted += [("covariate", column) for column in question.covariates]
    wanted += [("segment", column) for column in question.segments]
    remedy = f"name one of the file's columns: {', '.join(table.columns[:50])}"
    problems = [
        FieldProblem(option, column, "unknown_column", remedy)
        for option, column in wanted
        if column not in table.columns
    ]
    numeric = {column for metric in question.metrics for column in metric.columns} | set(question.covariates)
    numeric |= {column for column in (question.received, question.triggered) if column is not None}
    for column in sorted(numeric & set(table.columns)):
        kind = table[column].type()
        if not (kind.is_numeric() or kind.is_boolean()):
            problems.append(FieldProblem(column, str(kind), "not_a_number", "give a column of numbers"))
    if problems:
        raise InvalidDocument(problems, "command")


def check_values(engine: Any, table: ir.Table, question: Question) -> frozenset[str]:
    """Refuse cells that are empty, no numbers, or not 0 or 1 where they must be, counting them.

    Returns:
        The covariates that have empty cells.
    """
    checks = {f"{check[2]}:{check[1]}": check for check in _checks(table, question)}
    counted = {f"c{i}": check[0].fill_null(False).sum() for i, check in enumerate(checks.values())}
    counted |= {f"x{i}": table[column].isnull().sum() for i, column in enumerate(question.covariates)}
    (row,) = engine.to_pyarrow(table.aggregate(**counted)).to_pylist()
    problems = [
        FieldProblem(column, f"{row[f'c{i}']} rows", problem, remedy)
        for i, (_, column, problem, remedy) in enumerate(checks.values())
        if row[f"c{i}"]
    ]
    problems += _torn_clusters(engine, table, question)
    if problems:
        raise InvalidDocument(problems, "file")
    return frozenset(column for i, column in enumerate(question.covariates) if row[f"x{i}"])


def _checks(table: ir.Table, question: Question) -> Iterator[_Check]:
    for column in (*question.arms, question.unit, question.cluster):
        if column is not None:
            yield table[column].isnull(), column, "empty", "fill the cells, or drop the rows"
    binary = [column for column in (question.received, question.triggered) if column is not None]
    for metric in question.metrics:
        for column in metric.columns:
            yield from _numbers(table, column)
        if metric.kind in ("conversion", "funnel"):
            binary += metric.columns
        if metric.kind == "time_to_event":
            days, happened = metric.columns
            binary.append(happened)
            if not table[days].type().is_boolean():
                yield table[days] < 0, days, "negative", "give the days watched, 0 or more"
    for column in binary:
        if column in (question.received, question.triggered):
            yield table[column].isnull(), column, "empty", "fill the cells (0 if it did not happen)"
        if not table[column].type().is_boolean():
            yield ~table[column].isin([0, 1]), column, "not_0_or_1", "give 0 or 1 (what is counted is a mean)"
    for column in question.covariates:
        yield from _finite(table, column)


def _numbers(table: ir.Table, column: str) -> Iterator[_Check]:
    yield table[column].isnull(), column, "empty", "fill the cells (0 if nothing happened)"
    yield from _finite(table, column)


def _finite(table: ir.Table, column: str) -> Iterator[_Check]:
    value = table[column]
    if value.type().is_boolean():
        return
    number = value.cast("float64")
    # NaN is above every number for the engine, but Parquet's statistics do not know it, and the engine trusts them.
    odd = number.isnan() | ~number.between(-LARGEST / MICROS, LARGEST / MICROS)
    yield odd, column, "not_finite", f"give finite numbers up to {LARGEST / MICROS:.0e}"
    if not value.type().is_integer():
        fine = (value != 0) & (value.abs() < 1 / MICROS)
        yield fine, column, "too_fine", "rescale the column: six decimals are kept"


def _torn_clusters(engine: Any, table: ir.Table, question: Question) -> Iterator[FieldProblem]:
    """A cluster counts once, so it lies in one segment."""
    if question.cluster is None or not question.segments:
        return
    values = {f"s{i}": table[column].cast("string").fill_null("") for i, column in enumerate(question.segments)}
    rows = table.select(cluster=table[question.cluster], **values)
    by_cluster = rows.group_by("cluster").aggregate(**{name: rows[name].nunique() for name in values})
    torn = by_cluster.aggregate(**{name: (by_cluster[name] > 1).sum() for name in values})
    (row,) = engine.to_pyarrow(torn).to_pylist()
    for column, count in zip(question.segments, row.values(), strict=True):
        if count:
            remedy = f"give a column that is the same for all rows of one {question.cluster}"
            yield FieldProblem(column, f"{count} clusters", "torn_clusters", remedy)
