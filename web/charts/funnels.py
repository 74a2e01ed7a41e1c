"""Funnels: how many users came as far as each step."""

from experiments.report import MetricReport, Report
from web.charts.canvas import Chart, Rows, names, order_of
from web.charts.marks import chart, colours, layer, number, text
from web.languages import gettext


def funnel(report: Report, metric: MetricReport) -> Chart:
    """The share of all users of a variant who reached each step."""
    named = names(report)
    begun = {step.variant: step.entered for step in metric.funnel if step.position == 1}
    rows: Rows = [
        {
            "step": f"{step.position} · {step.step}",
            "variant": named[step.variant],
            "entered": step.entered,
            "reached": step.reached,
            "share": 100 * step.reached / begun[step.variant],
        }
        for step in metric.funnel
        if begun[step.variant]
    ]
    share = gettext("Share of users, percent")
    steps = {"minExtent": 130, "maxExtent": 130, "labelLimit": 122, "ticks": False, "domain": False, "labelPadding": 8}
    base = {
        "x": number("share", title=share, axis={"tickCount": 6}),
        "y": text("step", sort=None, title=None, axis=steps),
        "yOffset": text("variant", sort=order_of(report, control=True)),
        "tooltip": [
            text("step", title=gettext("Step")),
            text("variant", title=gettext("Variant")),
            number("reached", title=gettext("Reached"), format=","),
            number("share", title=share, format=".2f"),
        ],
    }
    colour = colours(report, control=True, symbol="square")
    layers = [
        layer("bar", base | {"color": colour}, opacity=0.75, cornerRadiusEnd=3),
        layer("text", base | {"text": number("share", format=".1f")}, align="left", dx=4, fontSize=11),
    ]
    lines, variants = len({row["step"] for row in rows}), len({row["variant"] for row in rows})
    return Chart(f"funnel-{metric.metric}", chart(layers, lines * (12 + 18 * variants), rows), rows)
