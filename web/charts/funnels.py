"""Funnels: how many users came as far as each step."""

import altair as alt

from experiments.report import MetricReport, Report
from web.charts.canvas import Chart, Rows, colour_of, names, order_of, rows_of, sized
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
    colour = colour_of(report, control=True, symbol="square")
    base = rows_of().encode(
        x=alt.X("share:Q", title=gettext("Share of users, percent"), axis=alt.Axis(tickCount=6)),
        y=alt.Y(
            "step:N",
            sort=None,
            title=None,
            axis=alt.Axis(minExtent=130, maxExtent=130, labelLimit=122, ticks=False, domain=False, labelPadding=8),
        ),
        yOffset=alt.YOffset("variant:N", sort=order_of(report, control=True)),
        tooltip=[
            alt.Tooltip("step:N", title=gettext("Step")),
            alt.Tooltip("variant:N", title=gettext("Variant")),
            alt.Tooltip("reached:Q", title=gettext("Reached"), format=","),
            alt.Tooltip("share:Q", title=gettext("Share of users, percent"), format=".2f"),
        ],
    )
    bars = base.mark_bar(opacity=0.75, cornerRadiusEnd=3).encode(color=colour)
    text = base.mark_text(align="left", dx=4, fontSize=11).encode(text=alt.Text("share:Q", format=".1f"))
    lines, variants = len({row["step"] for row in rows}), len({row["variant"] for row in rows})
    return Chart(f"funnel-{metric.metric}", sized(alt.layer(bars, text), lines * (12 + 18 * variants), rows), rows)
