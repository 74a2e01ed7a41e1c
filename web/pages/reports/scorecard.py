"""All metrics in one table, their intervals drawn on one zero line: in percent, in their own unit, or in money."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from experiments.documents import Experiment
from experiments.report import Comparison, Interval, MetricReport, Report
from web import charts, sentences
from web.formats import Formats, known_to, precision
from web.languages import gettext
from web.pages.reports.bars import Bar, bar
from web.pages.reports.verdict import names

View = Literal["relative", "absolute", "net"]
# An interval this many times as wide as the middle one is cut, or the others could not be read.
_WIDEST = 2.5


@dataclass(frozen=True, slots=True)
class Line:
    """One metric for one variant; ``problem`` instead of an effect."""

    variant: str
    level: str
    control_level: str
    reading: str
    word: str
    estimate: str
    lower: str
    upper: str
    bar: Bar | None
    problem: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A metric with a line for each variant."""

    key: str
    name: str
    role: str
    lines: list[Line]


@dataclass(frozen=True, slots=True)
class Scorecard:
    """The table as it is looked at; ``ends`` are written under the axis where it has one scale."""

    view: View
    views: list[tuple[View, str]]
    entries: list[Entry]
    ends: tuple[str, str] | None
    hint: str


def scorecard(report: Report, experiment: Experiment, view: str, formats: Formats) -> Scorecard:
    """Return the table in a view; an unknown one, or money where none is planned, is shown in percent."""
    views: list[tuple[View, str]] = [("relative", gettext("In percent")), ("absolute", gettext("In its own unit"))]
    if money(report, experiment) is not None:
        views.append(("net", gettext("Money per user, net")))
    chosen: View = next((code for code, _ in views if code == view), "relative")
    if chosen == "net":
        return _net(report, experiment, views, formats)
    if chosen == "absolute":
        hint = gettext("Every metric has a scale of its own; the zero line is the same.")
        entries = [_entry(report, metric, None, formats) for metric in report.metrics]
        return Scorecard(chosen, views, entries, None, hint)
    found = [c.relative for metric in report.metrics for c in _overall(metric) if c.relative is not None]
    reach = _reach(found)
    entries = [_entry(report, metric, reach, formats) for metric in report.metrics]
    limit = formats.relative(Interval(reach, 0, reach * 2))[0]
    ends = (limit.replace("+", "−"), limit) if found else None
    return Scorecard(chosen, views, entries, ends, gettext("All bars are on one scale: the change against control."))


def money(report: Report, experiment: Experiment) -> MetricReport | None:
    """Return the metric that is valued in money, if the plan says what it is worth and the report has it."""
    value = experiment.value
    return None if value is None else next((m for m in report.metrics if m.metric == value.metric), None)


def per_user(experiment: Experiment, metric: MetricReport, variant: str, effect: Interval) -> Interval:
    """Return an effect on the valued metric as money per user, less what the variant costs more than control."""
    assert experiment.value is not None  # ``money`` found a metric
    costs = {v.key: float(v.costs.per_user) for v in experiment.variants}
    cost = costs.get(variant, 0.0) - costs.get(experiment.control, 0.0)
    factor = experiment.value.margin * (1 if metric.direction == "up" else -1)
    low, high = sorted((effect.lower * factor - cost, effect.upper * factor - cost))
    return Interval(effect.estimate * factor - cost, low, high)


def _overall(metric: MetricReport) -> list[Comparison]:
    return [c for c in metric.comparisons if c.segment is None]


def _reach(found: Sequence[Interval]) -> float:
    ends = [max(abs(interval.lower), abs(interval.upper)) for interval in found]
    return min(max(ends), _WIDEST * median(ends)) or 1.0 if ends else 1.0


def _entry(report: Report, metric: MetricReport, reach: float | None, formats: Formats) -> Entry:
    """``reach``: of the common scale of relative effects; None for absolute ones."""
    named, means = names(report), {arm.variant: arm for arm in metric.arms if arm.segment is None}
    absolute = [c.absolute for c in _overall(metric) if c.absolute is not None]

    def level(variant: str) -> str:
        arm = means.get(variant)
        return "–" if arm is None or arm.mean is None else formats.level(metric.unit, arm.mean, arm.se)

    lines = []
    for c in _overall(metric):
        shown = c.absolute if reach is None else c.relative
        word, texts, picture, problem = _word(metric, c), ("", "", ""), None, ""
        if shown is None:
            problem = sentences.known(sentences.PROBLEMS, c.problem or c.relative_problem or "")
        elif reach is None:
            texts, picture = formats.interval(metric.unit, shown, precision(metric)), bar(shown, _reach(absolute))
        else:
            texts, picture = formats.relative(shown), bar(shown, reach)
        reading = charts.reading(metric, c)
        lines.append(
            Line(named[c.variant], level(c.variant), level(c.control), reading, word, *texts, picture, problem)
        )
    return Entry(metric.metric, metric.name, sentences.known(sentences.ROLES, metric.role), lines)


def _word(metric: MetricReport, c: Comparison) -> str:
    return _words()[charts.reading(metric, c)]


def _words() -> Mapping[str, str]:
    return {
        charts.BETTER: gettext("better"),
        charts.WORSE: gettext("worse"),
        charts.UNCLEAR: gettext("not clear"),
    }


def _net(report: Report, experiment: Experiment, views: list[tuple[View, str]], formats: Formats) -> Scorecard:
    metric = money(report, experiment)
    assert metric is not None  # the view is offered only then
    named, words = names(report), _words()
    found = {
        c.variant: per_user(experiment, metric, c.variant, c.absolute)
        for c in _overall(metric)
        if c.absolute is not None
    }
    reach, known = _reach(list(found.values())), known_to(found.values())
    lines = []
    for c in _overall(metric):
        net = found.get(c.variant)
        if net is None:
            problem = sentences.known(sentences.PROBLEMS, c.problem or "")
            lines.append(Line(named[c.variant], "", "", charts.UNCLEAR, "", "", "", "", None, problem))
            continue
        reading = charts.UNCLEAR if net.lower <= 0 <= net.upper else charts.BETTER if net.estimate > 0 else charts.WORSE
        texts = formats.interval("money", net, known)
        lines.append(Line(named[c.variant], "", "", reading, words[reading], *texts, bar(net, reach), ""))
    entry = Entry(metric.metric, metric.name, sentences.known(sentences.ROLES, metric.role), lines)
    hint = gettext(
        "What a user brings more than with control, after margin and costs. Only the metric that the plan values in "
        "money has a net value."
    )
    return Scorecard("net", views, [entry], None, hint)
