"""Charts: what is drawn is what the report holds, and the specification is Vega-Lite."""

import json
from typing import Any

import altair as alt
import pytest
from flask import Flask

from tests.web import made, rich
from tests.web.test_formats import EN
from web import charts


@pytest.fixture(autouse=True)
def _request(app: Flask) -> Any:
    with app.test_request_context():
        yield


REPORT = made.full_report()
CHARTS = {
    "effects": lambda: charts.effects(REPORT, REPORT.metrics[0], EN),
    "guardrail": lambda: charts.effects(REPORT, REPORT.metrics[2], EN),
    "segments": lambda: charts.segments(REPORT, REPORT.metrics[0], EN),
    "timeline": lambda: charts.timeline(REPORT, REPORT.metrics[0], EN),
    "shrunk": lambda: charts.segments(rich.frequency(), rich.frequency().metrics[0], EN),
    "funnel": lambda: charts.funnel(rich.frequency(), rich.frequency().metrics[1]),
    "survival": lambda: charts.survival(rich.frequency(), rich.frequency().metrics[2]),
    "slices": lambda: charts.slices(rich.frequency(), rich.frequency().metrics[0], EN),
    "gain": lambda: charts.frequency(rich.frequency().metrics[0], EN),
    "harm": lambda: charts.frequency(rich.frequency().metrics[3], EN),
    "factors": lambda: charts.factors(rich.factors(), rich.factors().metrics[0], EN),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_vega_lite_and_holds_its_own_data(name: str) -> None:
    spec = CHARTS[name]().spec
    alt.Chart.from_dict(spec, validate=True)
    assert '"url"' not in json.dumps(spec)
    assert spec["width"] == "container"


@pytest.mark.parametrize("name", ["effects", "segments"])
def test_every_comparison_with_numbers_is_a_row_and_no_other(name: str) -> None:
    rows = CHARTS[name]().rows
    segments = [None] if name == "effects" else ["new", "loyal"]
    wanted = [
        c
        for segment in segments
        for c in REPORT.metrics[0].comparisons
        if c.segment == segment and c.absolute is not None
    ]
    assert [row["estimate"] for row in rows] == [c.absolute.estimate * 100 for c in wanted if c.absolute]
    assert [row["lower"] for row in rows] == [c.absolute.lower * 100 for c in wanted if c.absolute]
    assert {row["reading"] for row in rows} == {"better"}


def test_the_rows_of_the_download_are_those_drawn() -> None:
    drawn = [row for metric in REPORT.metrics for row in charts.effects(REPORT, metric, EN).rows]
    assert charts.csv_rows(REPORT, "effects", EN) == drawn
    assert len(drawn) == 6
    assert charts.csv_rows(REPORT, "timeline", EN) == CHARTS["timeline"]().rows


def test_better_is_what_the_metrics_direction_says() -> None:
    up = made.metric("x", "primary", [])
    down = made.metric("x", "primary", [], direction="down")
    rise, fall, unclear = (made.comparison("ten", effect, 0.05) for effect in (0.1, -0.1, 0.01))
    assert [charts.reading(up, c) for c in (rise, fall, unclear)] == ["better", "worse", "unclear"]
    assert [charts.reading(down, c) for c in (rise, fall, unclear)] == ["worse", "better", "unclear"]
    assert charts.reading(up, made.no_comparison("ten")) == "unclear"


def test_the_forbidden_zone_begins_at_the_margin_on_the_bad_side() -> None:
    for direction, limit in (("down", 0.5), ("up", -0.5)):
        metric = made.metric("x", "guardrail", REPORT.metrics[2].comparisons, direction=direction)
        spec = charts.effects(REPORT, metric, EN).spec
        zone = next(layer for layer in spec["layer"] if layer["mark"]["type"] == "rect")
        (side,) = spec["datasets"][zone["data"]["name"]]
        assert side["limit"] == pytest.approx(limit)
        assert (side["end"] > side["limit"]) == (direction == "down")
    plain = charts.effects(REPORT, REPORT.metrics[0], EN).spec
    assert all(layer["mark"]["type"] != "rect" for layer in plain["layer"])


def test_a_metric_without_numbers_draws_nothing() -> None:
    empty = made.metric("x", "primary", [made.no_comparison("ten")])
    assert charts.effects(REPORT, empty, EN).rows == []
    assert charts.columns([]) == ["metric"]
