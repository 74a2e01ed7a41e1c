"""How the shares of variants moved from wave to wave."""

from experiments.report import AdaptiveReport, Report
from web.charts.canvas import ZERO, Chart, Rows, names, order_of
from web.charts.marks import chart, colours, field, layer, number, text
from web.formats import Formats
from web.languages import gettext


def waves(report: Report, found: AdaptiveReport, formats: Formats) -> Chart:
    """Each variant's share of the users of each wave, above the floor, a broken line."""
    named = names(report)
    rows: Rows = [
        {
            "wave": wave.number,
            "opened": formats.moment(wave.opened_at),
            "variant": named[variant],
            "share": round(100 * share, 2),
            "users": wave.observed.get(variant, 0),
        }
        for wave in found.waves
        for variant, share in wave.shares.items()
    ]
    axis = {"labelAngle": 0, "grid": False}
    title = gettext("Share of the wave’s users, percent")
    base = {
        "x": field("wave", "ordinal", title=gettext("Wave"), axis=axis),
        "y": number("share", title=title, scale={"domainMin": 0}),
        "color": colours(report, control=True),
    }
    dash = text("variant", sort=order_of(report, control=True), legend=None)
    tooltip = [
        number("wave", title=gettext("Wave")),
        text("opened", title=gettext("Opened")),
        text("variant", title=gettext("Variant")),
        number("share", title=title, format=".1f"),
        number("users", title=gettext("Users"), format=","),
    ]
    floor = [{"floor": 100 * found.floor}]
    layers = [
        layer("rule", {"y": number("floor")}, "floor", color=ZERO, strokeDash=[4, 4], strokeWidth=1.5),
        layer("line", base | {"strokeDash": dash}, strokeWidth=2.5),
        layer("point", base | {"tooltip": tooltip}, filled=True, size=70, opacity=1),
    ]
    return Chart("waves", chart(layers, 240, rows, others={"floor": floor}), rows)
