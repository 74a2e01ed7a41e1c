"""Tables of effects: the comparisons of one metric, over all users or in one segment, as texts."""

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.report import Comparison, Interval, MetricReport, Report
from web import charts, sentences
from web.formats import Formats, precision
from web.languages import gettext
from web.pages.reports.parts import Grid, effect_or_problem, grid, p_value
from web.pages.reports.verdict import names


@dataclass(frozen=True, slots=True)
class Cell:
    """An effect as text: the estimate, and its limits."""

    estimate: str
    lower: str
    upper: str


@dataclass(frozen=True, slots=True)
class Row:
    """A comparison in a table; where there is no number, ``problem`` says why.

    ``together``: the limits with all comparisons of the family, where they differ from the plain ones.
    """

    variant: str
    level: str
    users: str
    absolute: Cell | None
    together: Cell | None
    shrunk: Cell | None
    relative: Cell | None
    relative_problem: str
    p_value: str
    p_adjusted: str
    probability_better: str
    expected_loss: str
    reading: str
    problem: str


@dataclass(frozen=True, slots=True)
class Table:
    """One metric over all users, or in one segment: the control's own value, and a row for each variant."""

    title: str
    control: str
    control_level: str
    control_users: str
    rows: list[Row]


def overall(report: Report, metric: MetricReport, formats: Formats) -> Table:
    """Return the effects on all users."""
    return _table(report, metric, None, "", formats)


def by_segment(report: Report, metric: MetricReport, formats: Formats) -> list[Table]:
    """Return the effects in each segment."""
    return [_table(report, metric, key, name, formats) for key, name in report.segments.items()]


def pairs(report: Report, metric: MetricReport, formats: Formats) -> Grid | None:
    """Return the comparisons of variants other than control with each other."""
    if not metric.pairs:
        return None
    named, known = names(report), precision(metric)
    words = {
        charts.BETTER: gettext("better"),
        charts.WORSE: gettext("worse"),
        charts.UNCLEAR: gettext("not clear"),
    }
    tested = report.method.name != "bayes"
    rows = [
        [
            gettext("%(variant)s against %(other)s", variant=named[c.variant], other=named[c.control]),
            words[charts.reading(metric, c)] if c.absolute else "–",
            effect_or_problem(metric.unit, c.absolute, c.problem, formats, known),
            *([p_value(c.p_adjusted, formats)] if tested else []),
            formats.chance(c.probability_better) if c.probability_better is not None else "–",
        ]
        for c in metric.pairs
    ]
    tests = [gettext("p, adjusted")] if tested else []
    return grid(
        [gettext("Pair"), gettext("The first is")],
        [gettext("Change"), *tests, gettext("Chance to be better")],
        rows,
    )


def _table(report: Report, metric: MetricReport, segment: str | None, title: str, formats: Formats) -> Table:
    arms = {arm.variant: arm for arm in metric.arms if arm.segment == segment}
    named = names(report)

    def level(variant: str) -> str:
        arm = arms.get(variant)
        return "" if arm is None or arm.mean is None else formats.level(metric.unit, arm.mean, arm.se)

    def users(variant: str) -> str:
        return formats.count(arms[variant].n) if variant in arms else ""

    rows = [
        _row(metric, c, named, level(c.variant), users(c.variant), formats)
        for c in metric.comparisons
        if c.segment == segment
    ]
    return Table(title, named[report.control], level(report.control), users(report.control), rows)


def _row(
    metric: MetricReport, c: Comparison, named: Mapping[str, str], level: str, users: str, formats: Formats
) -> Row:
    return Row(
        variant=named[c.variant],
        level=level,
        users=users,
        absolute=_cell(metric, c.absolute, formats),
        together=_cell(metric, c.adjusted, formats) if c.adjusted != c.absolute else None,
        shrunk=_cell(metric, c.shrunk, formats),
        relative=Cell(*formats.relative(c.relative)) if c.relative else None,
        relative_problem=sentences.known(sentences.PROBLEMS, c.relative_problem) if c.relative_problem else "",
        p_value=formats.p_value(c.p_value) if c.p_value is not None else "",
        p_adjusted=formats.p_value(c.p_adjusted) if c.p_adjusted is not None else "",
        probability_better=formats.chance(c.probability_better) if c.probability_better is not None else "",
        expected_loss=loss(metric, c.expected_loss, formats),
        reading=charts.reading(metric, c),
        problem=sentences.known(sentences.PROBLEMS, c.problem) if c.problem else "",
    )


def _cell(metric: MetricReport, interval: Interval | None, formats: Formats) -> Cell | None:
    return None if interval is None else Cell(*formats.interval(metric.unit, interval, precision(metric)))


def loss(metric: MetricReport, expected: float | None, formats: Formats) -> str:
    """Return the loss to expect if the variant is taken and is worse, without a sign: a loss says which way it goes."""
    if expected is None:
        return ""
    return formats.change(metric.unit, expected, precision(metric)).removeprefix("+")
