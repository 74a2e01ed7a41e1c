"""Effects as intervals around a zero line: of variants, of segments, of the factors of a design."""

from collections.abc import Iterable, Mapping
from typing import Any
from unicodedata import east_asian_width

import altair as alt

from experiments.report import Comparison, MetricReport, Report
from web.charts.canvas import (
    BETTER,
    COLOURS,
    SHAPES,
    UNCLEAR,
    WORSE,
    Chart,
    Rows,
    difference_title,
    names,
    read_once,
    reading,
    rows_of,
    scale,
    scaled,
    sized,
    texts,
    zero_line,
)
from web.formats import Formats, precision
from web.languages import gettext

_ROW = 34
_LABELS, _MOST_LABELS = 130, 230
_NAMES_OF_VARIANTS = (("align", "'right'", "'left'"), ("dx", 0, 9), ("dy", -8, -1))
_RAW = {"estimate": "estimate", "lower": "lower", "upper": "upper"}


def effects(report: Report, metric: MetricReport, formats: Formats) -> Chart:
    """Each variant's effect on one metric, over all users; for a guardrail with the zone it must stay out of."""
    drawn = [c for c in metric.comparisons if c.segment is None and c.absolute is not None]
    named = names(report)
    rows = [_row(metric, c, named[c.variant], None, formats) for c in drawn]
    margin = next((c.noninferiority.margin for c in drawn if c.noninferiority is not None), None)
    limit = None if margin is None else (-margin if metric.direction == "up" else margin) * scale(metric)
    spec = _intervals(rows, "variant", difference_title(report, metric), limit)
    return Chart(f"effects-{metric.metric}", spec, rows)


def segments(report: Report, metric: MetricReport, formats: Formats) -> Chart:
    """Each variant's effect in each segment; strong where the others were taken into account, behind it the raw one."""
    named = names(report)
    rows = [
        _row(metric, c, named[c.variant], report.segments.get(c.segment, c.segment), formats)
        for segment in report.segments
        for c in metric.comparisons
        if c.segment == segment and c.absolute is not None
    ]
    return Chart("segments", _intervals(rows, "segment", difference_title(report, metric), None), rows)


def factors(report: Report, metric: MetricReport, formats: Formats) -> Chart:
    """The main effects and interactions of a factorial design."""
    rows: Rows = [
        {
            "metric": metric.name,
            "levels": levels(entry.levels),
            **scaled(entry.absolute, scale(metric)),
            **texts(metric, entry.absolute, precision(metric), formats),
            "reading": read_once(metric, entry.absolute),
        }
        for entry in (metric.factorial.effects if metric.factorial else [])
        if entry.absolute is not None
    ]
    return Chart("factors", _intervals(rows, "levels", difference_title(report, metric), None), rows)


def levels(of: Mapping[str, str]) -> str:
    """Return the levels of an effect of a factorial design as its name."""
    return " × ".join(f"{factor}: {level}" for factor, level in of.items())


def _row(
    metric: MetricReport, comparison: Comparison, variant: str, segment: str | None, formats: Formats
) -> dict[str, object]:
    absolute, shrunk = comparison.absolute, comparison.shrunk
    assert absolute is not None  # callers draw only what has an effect
    factor = scale(metric)
    row: dict[str, object] = {"metric": metric.name, "variant": variant}
    if segment is not None:
        row["segment"] = segment
    row |= scaled(absolute, factor)
    row |= texts(metric, absolute, precision(metric), formats)
    row["reading"] = reading(metric, comparison)
    if segment is not None:
        strong = {} if shrunk is None else scaled(shrunk, factor)
        row |= {f"shrunk_{name}": strong.get(name) for name in _RAW}
    return row


def _intervals(rows: Rows, label: str, title: str, limit: float | None) -> dict[str, Any]:
    """Intervals with their estimates, one row each; with a zone beyond a guardrail's ``limit``."""
    several = label == "segment" and len({row["variant"] for row in rows}) > 1
    shrunk = any(row.get("shrunk_estimate") is not None for row in rows)
    ends = [float(str(row[end])) for row in rows for end in ("lower", "upper")] + [0.0]
    ends += [] if limit is None else [limit * 1.25]
    low, high = min(ends), max(ends)
    pad = (high - low) * 0.06 or 1.0
    # Names of variants stand behind the bars.
    domain = [low - pad, high + pad * (4 if several else 1)]
    within = alt.Scale(domain=domain, nice=False, zero=False)

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", title=title, axis=alt.Axis(tickCount=8), scale=within)

    room = _room(str(row[label]) for row in rows)
    y = alt.Y(
        f"{label}:N",
        sort=None,
        title=None,
        axis=alt.Axis(minExtent=room, maxExtent=room, labelLimit=room - 8, ticks=False, domain=False, labelPadding=8),
    )
    codes = [BETTER, WORSE, UNCLEAR]
    colour = alt.Color("reading:N", scale=alt.Scale(domain=codes, range=[COLOURS[code] for code in codes]), legend=None)
    shape = alt.Shape("reading:N", scale=alt.Scale(domain=codes, range=[SHAPES[code] for code in codes]), legend=None)
    heads = {"segment": gettext("Segment"), "variant": gettext("Variant"), "levels": gettext("Effect of")}
    tooltip = [
        *(alt.Tooltip(f"{name}:N", title=head) for name, head in heads.items() if rows and name in rows[0]),
        alt.Tooltip("effect:N", title=gettext("Change")),
        alt.Tooltip("interval:N", title=gettext("Interval")),
    ]
    base = rows_of().encode(y=y)
    if several:
        base = base.encode(yOffset=alt.YOffset("variant:N", sort=None))
    layers: list[Any] = []
    side: list[dict[str, object]] = []
    if limit is not None:
        side = [{"limit": limit, "end": domain[0] if limit < 0 else domain[1]}]
        zone = rows_of("zone")
        layers.append(zone.mark_rect(color=COLOURS[WORSE], opacity=0.14).encode(x=x("limit"), x2="end:Q"))
        layers.append(zone.mark_rule(color=COLOURS[WORSE], strokeDash=[5, 4], strokeWidth=1.5).encode(x="limit:Q"))
    layers.append(zero_line("x"))
    strong = _RAW
    if shrunk:
        strong = {name: f"strong_{name}" for name in _RAW}
        known = "isValid(datum.shrunk_estimate)"
        chosen = {strong[name]: f"{known} ? datum.shrunk_{name} : datum.{name}" for name in _RAW}
        layers += [
            base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(x=x("lower"), x2="upper:Q", color=colour),
            base.mark_point(size=50, opacity=0.7, filled=False).encode(x=x("estimate"), color=colour),
        ]
        base = base.transform_calculate(**chosen)
    layers += [
        base.mark_rule(strokeWidth=5, strokeCap="round", opacity=0.55).encode(
            x=x(strong["lower"]), x2=f"{strong['upper']}:Q", color=colour, tooltip=tooltip
        ),
        base.mark_point(filled=True, size=110, opacity=1).encode(
            x=x(strong["estimate"]), color=colour, shape=shape, tooltip=tooltip
        ),
    ]
    if several:
        # On a phone there is no room behind the bar: the name stands above its end.
        narrow = {name: alt.ExprRef(f"width < 300 ? {a} : {b}") for name, a, b in _NAMES_OF_VARIANTS}
        layers.append(base.mark_text(fontSize=11, **narrow).encode(x=x("upper"), text="variant:N"))
    lines = len({row[label] for row in rows})
    variants = len({row["variant"] for row in rows}) if several else 1
    height = max(lines, 1) * (_ROW if not several else 14 + 22 * variants)
    return sized(alt.layer(*layers), height, rows, **({"zone": side} if side else {}))


def _room(labels: Iterable[str]) -> int:
    """Pixels for the longest of the labels; Chinese characters are about twice as wide."""
    widths = (sum(12 if east_asian_width(sign) in "WF" else 7 for sign in label) + 16 for label in labels)
    return min(max(_LABELS, *widths, 0), _MOST_LABELS)
