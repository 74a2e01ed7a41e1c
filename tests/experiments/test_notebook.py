import builtins
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments import export, files, notebook
from experiments import report as reports
from experiments.errors import InvalidDocument, NotFound
from experiments.notebook import Analysis
from tests.experiments.rows import build, design, measured, spec

MOMENT = datetime(2024, 5, 1, tzinfo=UTC)
METRICS = {"spend": "mean:spend", "won": "conversion:won"}


def frame(n: int = 300) -> pd.DataFrame:
    r = np.random.default_rng(1)
    columns = {
        "variant": r.choice(["none", "t"], n),
        "spend": r.exponential(10, n).round(2),
        "won": r.integers(0, 2, n),
        "before": r.normal(size=n).round(3),
        "city": r.choice(["上海", "北京"], n),
    }
    return pd.DataFrame(columns)


def asked(source: Any, **options: Any) -> Analysis:
    return notebook.analyse(source, variant="variant", control="none", metrics=METRICS, as_of=MOMENT, **options)


def test_frames_of_all_kinds_give_one_report() -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    plain = asked(frame()).report
    assert asked(pa.Table.from_pandas(frame())).report == plain
    assert asked(polars.from_pandas(frame())).report == plain


@pytest.mark.parametrize("change", ["category", "index", "missing"])
def test_what_pandas_may_hold_is_read(change: str) -> None:
    table = frame()
    plain = asked(table, segments=["city"], covariates=["before"]).report
    if change == "category":
        table["city"] = table["city"].astype("category")
    elif change == "index":
        table = table.set_index(pd.Index(range(7, 307), name="row"))
    else:
        table.loc[::2, "before"] = np.nan
    found = asked(table, segments=["city"], covariates=["before"]).report
    assert (found == plain) == (change != "missing")
    assert found.metrics[0].adjustment == "cuped"


def test_an_arrow_table_gives_the_report_of_its_pandas_frame() -> None:
    assert asked(pa.Table.from_pandas(frame())).report == asked(frame()).report


def test_a_path_gives_the_report_of_the_command(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(pa.Table.from_pandas(frame()), path)
    question = files.Question("variant", "none", [files.FileMetric.parse(f"{n}={k}") for n, k in METRICS.items()])
    assert asked(path).report == asked(str(path)).report == files.analyse(path, question)


def test_metrics_may_be_a_list_and_options_are_those_of_the_question() -> None:
    texts = [f"{name}={kind}" for name, kind in METRICS.items()]
    found = notebook.analyse(
        frame(), variant="variant", control="none", metrics=texts, as_of=MOMENT, method="bayes", prior=(0, 0.1)
    )
    assert found.report.method.prior == [0, 0.1]
    with pytest.raises(TypeError, match="colour"):
        asked(frame(), colour="red")


def test_a_frame_has_the_columns_and_numbers_of_the_export() -> None:
    found = asked(frame(), segments=["city"])
    table = found.frame()
    assert tuple(table.columns) == export.COLUMNS
    assert table["absolute"].tolist() == [c.absolute.estimate for m in found.report.metrics for c in m.comparisons]  # type: ignore[union-attr]


def test_a_chart_draws_every_effect_of_the_metric_asked_for() -> None:
    found = asked(frame(), segments=["city"])
    for name, metric in ((None, found.report.metrics[0]), ("won", found.report.metrics[1])):
        document = found.chart(name).to_dict()
        rows = [row for data in document["datasets"].values() for row in data if "effect" in row]
        scale = 100 if metric.unit == "share" else 1
        assert [row["estimate"] / scale for row in rows] == pytest.approx(
            [c.absolute.estimate for c in metric.comparisons if c.absolute]
        )
    with pytest.raises(NotFound, match="spend, won"):
        found.chart("nothing")


def test_a_notebook_shows_the_verdict() -> None:
    shown = asked(frame())._repr_html_()
    assert '<div class="verdict">' in shown
    assert "<html" not in shown


def test_reports_of_the_service_are_wrapped_and_read_back(tmp_path: Path) -> None:
    report = build(design(), (spec(), measured({(None, "t"): [10, 12, 14, 19], (None, "c"): [1, 2, 3, 5]})))
    body = reports.encode(report)
    path = tmp_path / "report.json"
    path.write_bytes(body)
    assert notebook.of(report) == notebook.load(body) == notebook.load(path) == notebook.load(str(path))


@pytest.mark.parametrize("source", [b"{}", b"no json", "nowhere.json"], ids=str)
def test_what_is_no_report_is_refused(source: Any) -> None:
    with pytest.raises(InvalidDocument) as refused:
        notebook.load(source)
    assert refused.value.problems[0].problem == "unreadable"


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(InvalidDocument) as refused:
        asked([1, 2, 3])
    (problem,) = refused.value.problems
    assert (problem.value, problem.problem) == ("list", "not_a_frame")


def test_without_pandas_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked(pa.Table.from_pandas(frame()))
    real = builtins.__import__

    def refused(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refused)
    with pytest.raises(ModuleNotFoundError, match=r"upturn\[notebook\]"):
        found.frame()
