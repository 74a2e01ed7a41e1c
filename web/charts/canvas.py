"""What all charts share: their colours, their rows, their size, and the words on their axes.

Colour says better, worse or unclear (blue, orange, grey: no red and green, which mean opposite things to different
readers), and so does the shape, so that nothing hangs on colour alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.report import Comparison, Interval, MetricReport, Report
from web.formats import Formats
from web.languages import gettext

BETTER, WORSE, UNCLEAR = "better", "worse", "unclear"
COLOURS: Mapping[str, str] = {BETTER: "#2f7de1", WORSE: "#e07b1f", UNCLEAR: "#8a94a3"}
SHAPES: Mapping[str, str] = {BETTER: "triangle-up", WORSE: "triangle-down", UNCLEAR: "diamond"}
ZERO = "#5b6675"
LINES = ("#2f7de1", "#e07b1f", "#7a5cc7", "#1a9c9c", "#b0487a", "#7d8a2e")
CONTROL = "#8a94a3"
_AXIS, _TITLE, _LEGEND = 45, 21, 29

Rows = list[dict[str, object]]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart: its name, its Vega-Lite specification, and the rows it draws."""

    name: str
    spec: dict[str, Any]
    rows: Rows

    @property
    def room(self) -> tuple[int, int]:
        """Return how high it will be on a desktop and on a phone, in pixels: with axis, title and legend."""
        keyed = any(part.get("encoding", {}).get("color", {}).get("legend") for part in self.spec["layer"])
        around = _AXIS + (_TITLE if "title" in self.spec else 0) + (_LEGEND if keyed else 0)
        wide: int = self.spec["height"]
        narrow: int = self.spec.get("usermeta", {}).get("narrow", {}).get("height", wide)
        return wide + around, narrow + around


def reading(metric: MetricReport, comparison: Comparison) -> str:
    """Return whether a comparison is better, worse, or unclear."""
    if not comparison.significant or comparison.absolute is None:
        return UNCLEAR
    return side(metric, comparison.absolute)


def read_once(metric: MetricReport, interval: Interval) -> str:
    """Return the same for an interval that stands for itself: it is clear where it leaves out zero."""
    return UNCLEAR if interval.lower <= 0 <= interval.upper else side(metric, interval)


def side(metric: MetricReport, interval: Interval) -> str:
    """Return on which side an effect lies."""
    return BETTER if (interval.estimate > 0) == (metric.direction == "up") else WORSE


def scale(metric: MetricReport) -> int:
    """Return by what numbers are multiplied for an axis: shares are drawn in percent."""
    return 100 if metric.unit == "share" else 1


def scaled(interval: Interval, factor: int) -> dict[str, object]:
    """Return an interval as columns of a row."""
    return {
        "estimate": interval.estimate * factor,
        "lower": interval.lower * factor,
        "upper": interval.upper * factor,
    }


def texts(metric: MetricReport, interval: Interval, precision: float, formats: Formats) -> dict[str, object]:
    """Return an interval as the texts that a pointer shows."""
    estimate, lower, upper = formats.interval(metric.unit, interval, precision)
    return {"effect": estimate, "interval": gettext("%(lower)s to %(upper)s", lower=lower, upper=upper)}


def difference_title(report: Report, metric: MetricReport) -> str:
    """Return the title of an axis of differences."""
    control = names(report)[report.control]
    if metric.unit == "share":
        return gettext("Difference from %(control)s, percentage points", control=control)
    if metric.unit == "money" and metric.kind == "mean":
        return gettext("Difference from %(control)s, per user", control=control)
    if metric.unit == "days":
        return gettext("Difference from %(control)s, days", control=control)
    return gettext("Difference from %(control)s", control=control)


def daily_title(report: Report) -> str:
    """Return the title of an axis of differences a day."""
    return gettext("Difference from %(control)s, a day", control=names(report)[report.control])


def names(report: Report) -> Mapping[str, str]:
    """Return the variants' names by key."""
    return {arm.variant: arm.name for arm in report.arms}


def order_of(report: Report, *, control: bool) -> list[str]:
    """Return the names of the variants that are drawn, in the plan's order."""
    return [arm.name for arm in report.arms if control or arm.variant != report.control]
