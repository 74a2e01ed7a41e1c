"""The parts of a Vega-Lite specification as plain values: a page of charts is declared in about a millisecond.

Altair, which checks every part as it is made, took about 15 ms a chart. The tests check each specification instead.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from experiments.report import Report
from web.charts.canvas import CONTROL, LINES, ZERO, Rows, names, order_of

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
Spec = dict[str, Any]


def field(name: str, kind: Literal["quantitative", "nominal", "ordinal", "temporal"], **options: Any) -> Spec:
    """Return a channel that shows a field of the rows."""
    return {"field": name, "type": kind, **options}


def number(name: str, **options: Any) -> Spec:
    """Return a channel that shows a number."""
    return field(name, "quantitative", **options)


def text(name: str, **options: Any) -> Spec:
    """Return a channel that shows a text."""
    return field(name, "nominal", **options)


def layer(mark: str, encoding: Mapping[str, Any], data: str = "rows", **style: Any) -> Spec:
    """Return a mark for every row of a named set."""
    return {"data": {"name": data}, "mark": {"type": mark, **style}, "encoding": dict(encoding)}


def zero_line(axis: Literal["x", "y"]) -> Spec:
    """Return the line of no effect, across an axis."""
    return layer("rule", {axis: number("zero")}, "zero", strokeWidth=1.5, color=ZERO)


def chart(
    layers: Sequence[Spec],
    height: int,
    rows: Rows,
    *,
    title: str | None = None,
    narrow: int | None = None,
    others: Mapping[str, Sequence[Mapping[str, object]]] | None = None,
) -> Spec:
    """Return the specification, as wide as its place, with its rows and ``others``; ``narrow``: height on a phone."""
    spec: Spec = {
        "$schema": SCHEMA,
        "width": "container",
        "height": height,
        "layer": list(layers),
        "datasets": {"rows": rows, "zero": [{"zero": 0}], **(others or {})},
    }
    if title is not None:
        spec["title"] = title
    if narrow is not None:
        spec["usermeta"] = {"narrow": {"height": narrow}}
    return spec


def colours(report: Report, *, control: bool, symbol: str = "stroke") -> Spec:
    """Return the colour of each variant's line, the control's, if it is drawn, grey; with a legend for several."""
    order, named = order_of(report, control=control), names(report)
    treatments = order_of(report, control=False)
    line = {name: LINES[i % len(LINES)] for i, name in enumerate(treatments)} | {named[report.control]: CONTROL}
    legend = {
        "title": None,
        "orient": "top",
        "columns": 6,
        "labelLimit": 150,
        "symbolType": symbol,
        "symbolStrokeWidth": 3 if symbol == "stroke" else 0,
        "symbolOpacity": 1,
    }
    shown = {"domain": order, "range": [line[name] for name in order]}
    return text("variant", sort=order, scale=shown, legend=legend if len(order) > 1 else None)
