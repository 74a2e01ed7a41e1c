import csv
import io
from datetime import datetime

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec import structs

from experiments import export
from experiments.export import COLUMNS
from experiments.fields import Role
from experiments.report import Report
from tests.experiments.rows import build, design, measured, spec
from tests.web import made as web_made


def made(name: str = "m") -> Report:
    rows = {(None, "t"): [1, 2, 4, 9], (None, "c"): [2, 5, 7, 9]}
    nothing = {(None, "t"): [1, 1], (None, "c"): [1, 1]}
    return build(design(), (spec(name), measured(rows)), (spec("none", role=Role.secondary), measured(nothing)))


def test_csv_reads_back_as_the_rows_of_the_report() -> None:
    found = list(csv.DictReader(io.StringIO(export.report_csv(made()).decode())))
    assert len(found) == 2
    for line, row in zip(found, export.rows(made()), strict=True):
        assert tuple(line) == COLUMNS
        for name, value in row.items():
            if isinstance(value, bool):
                assert line[name] == ("true" if value else "false")
            elif isinstance(value, float):
                assert float(line[name]) == value
            else:
                assert line[name] == ("" if value is None else str(value))
    assert float(found[0]["absolute"]) < 0  # a negative number stays one
    assert (found[1]["problem"], found[1]["absolute"]) == ("zero_variance", "")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", "－1", "＋1", "＠x"])
def test_text_that_a_spreadsheet_would_run_is_quoted(text: str) -> None:
    (row, _) = csv.DictReader(io.StringIO(export.report_csv(made(text)).decode(), newline=""))
    assert row["metric"] == f"'{text}"


@pytest.mark.parametrize("text", ["plain", "a=b", "10", "访问率", 'with "quotes", commas\nand lines'])
def test_other_text_is_left_alone(text: str) -> None:
    (row, _) = csv.DictReader(io.StringIO(export.report_csv(made(text)).decode(), newline=""))
    assert row["metric"] == text


def test_the_mark_of_the_encoding_is_there_when_asked_for() -> None:
    plain, marked = export.report_csv(made()), export.report_csv(made(), bom=True)
    assert marked == b"\xef\xbb\xbf" + plain


def test_a_column_that_was_not_announced_is_refused() -> None:
    with pytest.raises(ValueError, match="surprise"):
        export.csv_bytes(["a"], [{"a": 1, "surprise": 2}])


def test_parquet_has_the_columns_types_and_values_of_the_report() -> None:
    table = pq.read_table(pa.BufferReader(export.report_parquet(made())))
    assert tuple(table.column_names) == COLUMNS
    assert table.to_pylist() == list(export.rows(made()))
    kinds = {name: str(table.schema.field(name).type) for name in COLUMNS}
    assert (kinds["metric"], kinds["n"], kinds["significant"], kinds["p_value"]) == (
        "string",
        "int64",
        "bool",
        "double",
    )
    assert kinds["segment"] == "string"  # though every cell is empty here


def test_a_workbook_has_typed_numbers_and_no_formulas() -> None:
    report = web_made.full_report()
    named = structs.replace(report, name="=1+1", arms=[structs.replace(arm, name="+x") for arm in report.arms])
    book = openpyxl.load_workbook(io.BytesIO(export.report_xlsx(named)))
    assert book.sheetnames == ["summary", "comparisons", "arms", "health"]
    head, *lines = book["comparisons"].iter_rows(values_only=True)
    assert head == export.COLUMNS
    for line, row in zip(lines, export.rows(named), strict=True):
        for value, wanted in zip(line, row.values(), strict=True):
            # A workbook holds 16 digits.
            assert value == (pytest.approx(wanted, rel=1e-15) if isinstance(wanted, float) else wanted)
    summary = dict(book["summary"].iter_rows(min_row=2, max_col=2, values_only=True))
    assert summary["as_of_utc"] == datetime.fromisoformat(report.as_of).replace(tzinfo=None)
    assert (summary["name"], summary["verdict"], summary["value_per_month"]) == (
        "=1+1",
        "ship",
        web_made.WORTH.estimate,
    )
    cell = next(row[1] for row in book["summary"].iter_rows(min_row=2) if row[0].value == "name")
    assert cell.data_type == "s"
    arms = list(book["arms"].iter_rows(min_row=2, values_only=True))
    assert len(arms) == sum(len(metric.arms) for metric in report.metrics)
    assert arms[0][:4] == ("visit", "none", None, 20_000)
    assert [row[:3] for row in book["health"].iter_rows(min_row=2, max_row=3, values_only=True)] == [
        ("split", "expected", "none"),
        ("split", "observed", "none"),
    ]
    assert export.report_xlsx(named) == export.report_xlsx(named)
