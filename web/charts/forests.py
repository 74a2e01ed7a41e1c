"""Effects as intervals around a zero line: of variants, of segments, of the factors of a design."""

from collections.abc import Iterable, Mapping
from unicodedata import east_asian_width

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
    scale,
    scaled,
    texts,
)
from web.charts.marks import Spec, chart, layer, number, text, zero_line
from web.formats import Formats, precision
from web.languages import gettext

_ROW = 34
_LABELS, _MOST_LABELS = 130, 230
# On a phone there is no room behind the bar: charts.js moves what is called so above it, to the left edge.
_NAMES = "names"
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


def _intervals(rows: Rows, label: str, title: str, limit: float | None) -> Spec:
    """Intervals with their estimates, one row each; with a zone beyond a guardrail's ``limit``."""
    several = label == "segment" and len({row["variant"] for row in rows}) > 1
    shrunk = any(row.get("shrunk_estimate") is not None for row in rows)
    ends = [float(str(row[end])) for row in rows for end in ("lower", "upper")] + [0.0]
    ends += [] if limit is None else [limit * 1.25]
    low, high = min(ends), max(ends)
    pad = (high - low) * 0.06 or 1.0
    # Names of variants stand behind the bars.
    domain = [low - pad, high + pad * (4 if several else 1)]
    within = {"domain": domain, "nice": False, "zero": False}

    def x(name: str) -> Spec:
        return number(name, title=title, axis={"tickCount": 8}, scale=within)

    room = _room(str(row[label]) for row in rows)
    labels = {"labelLimit": room - 8, "ticks": False, "domain": False, "labelPadding": 8}
    codes = [BETTER, WORSE, UNCLEAR]
    colour = text("reading", scale={"domain": codes, "range": [COLOURS[code] for code in codes]}, legend=None)
    shape = text("reading", scale={"domain": codes, "range": [SHAPES[code] for code in codes]}, legend=None)
    heads = {"segment": gettext("Segment"), "variant": gettext("Variant"), "levels": gettext("Effect of")}
    tooltip = [
        *(text(name, title=head) for name, head in heads.items() if rows and name in rows[0]),
        text("effect", title=gettext("Change")),
        text("interval", title=gettext("Interval")),
    ]
    base: Spec = {"y": text(label, sort=None, title=None, axis={"minExtent": room, "maxExtent": room, **labels})}
    if several:
        base["yOffset"] = text("variant", sort=None)
    marked = base | {"color": colour}
    layers: list[Spec] = []
    side: list[dict[str, object]] = []
    if limit is not None:
        side = [{"limit": limit, "end": domain[0] if limit < 0 else domain[1]}]
        orange = COLOURS[WORSE]
        layers.append(layer("rect", {"x": x("limit"), "x2": {"field": "end"}}, "zone", color=orange, opacity=0.14))
        layers.append(layer("rule", {"x": number("limit")}, "zone", color=orange, strokeDash=[5, 4], strokeWidth=1.5))
    layers.append(zero_line("x"))
    strong, chosen = _RAW, {}
    if shrunk:
        strong = {name: f"strong_{name}" for name in _RAW}
        known = "isValid(datum.shrunk_estimate)"
        picked = [(strong[name], f"{known} ? datum.shrunk_{name} : datum.{name}") for name in _RAW]
        chosen = {"transform": [{"calculate": formula, "as": name} for name, formula in picked]}
        raw = marked | {"x": x("lower"), "x2": {"field": "upper"}}
        layers += [
            layer("rule", raw, strokeWidth=1.5, opacity=0.6),
            layer("point", marked | {"x": x("estimate")}, size=50, opacity=0.7, filled=False),
        ]
    bar = marked | {"x": x(strong["lower"]), "x2": {"field": strong["upper"]}, "tooltip": tooltip}
    dot = marked | {"x": x(strong["estimate"]), "shape": shape, "tooltip": tooltip}
    layers += [
        layer("rule", bar, strokeWidth=5, strokeCap="round", opacity=0.55) | chosen,
        layer("point", dot, filled=True, size=110, opacity=1) | chosen,
    ]
    lines = len({row[label] for row in rows})
    variants = len({row["variant"] for row in rows}) if several else 1
    if several:
        behind = base | {"x": x("end" if shrunk else "upper"), "text": text("variant")}
        last = "isValid(datum.shrunk_upper) ? max(datum.upper, datum.shrunk_upper) : datum.upper"
        after = {"transform": [{"calculate": last, "as": "end"}]} if shrunk else {}
        layers.append(layer("text", behind, fontSize=11, align="left", dx=9, dy=-1) | after | {"name": _NAMES})
    height = max(lines, 1) * (_ROW if not several else 14 + 22 * variants)
    narrow = max(lines, 1) * (20 + 36 * variants) if several else None
    return chart(layers, height, rows, narrow=narrow, others={"zone": side} if side else None)


def _room(labels: Iterable[str]) -> int:
    """Pixels for the longest of the labels; Chinese characters are about twice as wide."""
    widths = (sum(12 if east_asian_width(sign) in "WF" else 7 for sign in label) + 16 for label in labels)
    return min(max(_LABELS, *widths, 0), _MOST_LABELS)
