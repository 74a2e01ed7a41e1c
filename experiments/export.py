"""Tables for people and programs: CSV and Parquet with fixed columns."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

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
