"""Tables for people and programs: CSV and Parquet with fixed columns."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from experiments.report import COLUMNS, Report, rows

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
