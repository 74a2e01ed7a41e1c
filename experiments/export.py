"""Tables for people and programs: CSV and Parquet with fixed columns, and a workbook."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xlsxwriter

from experiments.report import Report

COLUMNS = (
    "experiment", "revision", "phase", "as_of", "metric", "kind", "role", "segment", "variant", "control",
    "n", "n_control", "mean", "mean_control", "absolute", "absolute_lower", "absolute_upper",
    "relative", "relative_lower", "relative_upper", "se", "p_value", "p_adjusted", "significant",
    "probability_better", "expected_loss", "problem", "adjusted_lower", "adjusted_upper", "shrunk",
)  # fmt: skip

_TEXT = {
    "experiment", "as_of", "metric", "kind", "role", "segment", "variant", "control", "problem",
}  # fmt: skip
_WHOLE = {"revision", "phase", "n", "n_control"}
# The wide forms are formulas for spreadsheets set to Chinese or Japanese.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_SCHEMA = pa.schema(
    [
        pa.field(
            name,
            pa.string()
            if name in _TEXT
            else pa.int64()
            if name in _WHOLE
            else pa.bool_()
            if name == "significant"
            else pa.float64(),
        )
        for name in COLUMNS
    ]
)


def rows(report: Report) -> Iterator[dict[str, object]]:
    """Yield one flat row for each comparison, with the fixed ``COLUMNS``, for CSV, Parquet and frames."""
    for metric in report.metrics:
        arms = {(arm.variant, arm.segment): arm for arm in metric.arms}
        for c in metric.comparisons:
            arm, control = arms.get((c.variant, c.segment)), arms.get((c.control, c.segment))
            absolute, relative = c.absolute, c.relative
            yield {
                "experiment": report.experiment,
                "revision": report.revision,
                "phase": report.phase,
                "as_of": report.as_of,
                "metric": metric.metric,
                "kind": metric.kind,
                "role": metric.role,
                "segment": c.segment,
                "variant": c.variant,
                "control": c.control,
                "n": arm.n if arm else 0,
                "n_control": control.n if control else 0,
                "mean": arm.mean if arm else None,
                "mean_control": control.mean if control else None,
                "absolute": absolute.estimate if absolute else None,
                "absolute_lower": absolute.lower if absolute else None,
                "absolute_upper": absolute.upper if absolute else None,
                "relative": relative.estimate if relative else None,
                "relative_lower": relative.lower if relative else None,
                "relative_upper": relative.upper if relative else None,
                "se": c.se,
                "p_value": c.p_value,
                "p_adjusted": c.p_adjusted,
                "significant": c.significant,
                "probability_better": c.probability_better,
                "expected_loss": c.expected_loss,
                "problem": c.problem,
                "adjusted_lower": c.adjusted.lower if c.adjusted else None,
                "adjusted_upper": c.adjusted.upper if c.adjusted else None,
                "shrunk": c.shrunk.estimate if c.shrunk else None,
            }


def csv_bytes(columns: Sequence[str], table: Iterable[Mapping[str, object]], *, bom: bool = False) -> bytes:
    """Return rows as CSV (UTF-8, RFC 4180; empty for None). ``bom`` helps spreadsheets that guess the encoding."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="raise")
    writer.writeheader()
    for row in table:
        writer.writerow({key: _guarded(value) for key, value in row.items()})
    return text.getvalue().encode("utf-8-sig" if bom else "utf-8")


def _guarded(value: object) -> object:
    # A spreadsheet runs text that begins like a formula; numbers are not touched.
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


def report_csv(report: Report, *, bom: bool = False) -> bytes:
    """Return a report's comparisons as CSV."""
    return csv_bytes(COLUMNS, rows(report), bom=bom)


def report_parquet(report: Report) -> bytes:
    """Return a report's comparisons as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows(report)), schema=_SCHEMA), sink, compression="zstd")
    return bytes(sink.getvalue())


def report_xlsx(report: Report) -> bytes:
    """Return a report as a workbook: summary, comparisons, arms and health.

    Numbers are numbers and times are times, so that a spreadsheet writes them in its own language; texts are texts,
    whatever they begin with. Equal reports give equal bytes.
    """
    sink = io.BytesIO()
    as_of = datetime.fromisoformat(report.as_of).astimezone(UTC).replace(tzinfo=None)
    with xlsxwriter.Workbook(sink, {"in_memory": True, "constant_memory": False, "nan_inf_to_errors": False}) as book:
        book.set_properties({"title": report.name, "created": as_of})
        formats = {
            "head": book.add_format({"bold": True, "bottom": 1}),
            "time": book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"}),
        }
        _sheet(book, formats, "summary", ("field", "value"), _summary(report, as_of))
        _sheet(book, formats, "comparisons", COLUMNS, (list(row.values()) for row in rows(report)))
        _sheet(book, formats, "arms", _ARM_COLUMNS, _arms(report))
        _sheet(book, formats, "health", _HEALTH_COLUMNS, _health(report))
    return sink.getvalue()


_ARM_COLUMNS = ("metric", "variant", "segment", "n", "mean", "se", "assigned", "exposed", "matured")
_HEALTH_COLUMNS = ("kind", "code", "subject", "p_value", "passed", "count", "of", "fatal")


def _summary(report: Report, as_of: datetime) -> Iterator[list[object]]:
    advice, primary = report.decision, report.primary()
    yield ["experiment", report.experiment]
    yield ["name", report.name]
    yield ["revision", report.revision]
    yield ["phase", report.phase]
    yield ["as_of_utc", as_of]
    yield ["watermark", report.watermark]
    yield ["method", report.method.name]
    yield ["alpha", report.method.alpha]
    yield ["correction", report.method.correction]
    yield ["planned_users", report.method.planned_users]
    yield ["matured_users", primary.matured]
    yield ["primary_metric", primary.metric]
    yield ["control", report.control]
    yield ["verdict", advice.verdict.value]
    yield ["variant", advice.variant]
    yield ["segments", ", ".join(advice.segments)]
    yield ["reasons", ", ".join(advice.reasons)]
    if advice.value_per_month is not None:
        yield ["value_per_month", advice.value_per_month.estimate]
        yield ["value_per_month_lower", advice.value_per_month.lower]
        yield ["value_per_month_upper", advice.value_per_month.upper]
        yield ["currency", advice.value_per_month.currency]


def _arms(report: Report) -> Iterator[list[object]]:
    counts = {arm.variant: (arm.assigned, arm.exposed, arm.matured) for arm in report.arms}
    for metric in report.metrics:
        for arm in metric.arms:
            reached = (None, None, None) if arm.segment is not None else counts.get(arm.variant, (None, None, None))
            yield [metric.metric, arm.variant, arm.segment, arm.n, arm.mean, arm.se, *reached]


def _health(report: Report) -> Iterator[list[object]]:
    for variant, expected in report.srm.expected.items():
        yield ["split", "expected", variant, None, None, expected, None, None]
        yield ["split", "observed", variant, None, None, report.srm.observed.get(variant, 0), None, None]
    for check in report.checks:
        yield ["check", check.code.value, check.subject, check.p_value, check.passed, None, None, None]
    for finding in report.health:
        yield ["finding", finding.code.value, finding.subject, None, None, finding.count, finding.of, finding.fatal]


def _sheet(
    book: Any, formats: Mapping[str, Any], name: str, columns: Sequence[str], table: Iterable[Sequence[object]]
) -> None:
    sheet = book.add_worksheet(name)
    sheet.freeze_panes(1, 0)
    for x, column in enumerate(columns):
        sheet.write_string(0, x, column, formats["head"])
        sheet.set_column(x, x, max(len(column) + 2, 12))
    for y, row in enumerate(table, 1):
        for x, value in enumerate(row):
            match value:
                case None:
                    pass
                case bool():
                    sheet.write_boolean(y, x, value)
                case int() | float():
                    sheet.write_number(y, x, value)
                case datetime():
                    sheet.write_datetime(y, x, value, formats["time"])
                case _:
                    sheet.write_string(y, x, str(value))
