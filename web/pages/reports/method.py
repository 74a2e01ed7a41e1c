"""How the numbers were made: the plan's looks, the prior, and statistics to check with another program."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.report import Look, Report
from web import sentences
from web.formats import Formats
from web.languages import gettext
from web.pages.reports.parts import Grid, grid
from web.pages.reports.verdict import names

# As docs/statistics.md has them: signs need no translation. d: difference, se: its standard error, m: a mean.
_INTERVALS: Mapping[str, str] = {
    "asymptotic_confidence_sequence": "d ± se · √((q+1)/q · ln((q+1)/α²)), q = n·ρ² "
    "(Waudby-Smith et al., arXiv 2103.06476)",
    "classical": "d ± t · se, se² = s_T²/n_T + s_C²/n_C (Welch 1947)",
    "repeated": "d ± c_k · se (Jennison & Turnbull 1989)",
    "credible": "N(μ, τ²) × N(d, se²)",
}
_LIFT = "{r : |d − r·m_C| ≤ c · se(d − r·m_C)} (Fieller 1954)"


@dataclass(frozen=True, slots=True)
class Check:
    """A test statistic to compare with another program's."""

    metric: str
    variant: str
    statistic: str
    value: str
    df: str
    p_value: str
    adjustment: str
    variance_reduction: str


@dataclass(frozen=True, slots=True)
class Method:
    """The method in words; ``looks`` and ``next_look`` of a group-sequential plan only."""

    name: str
    interval: str
    confidence: str
    correction: str
    comparisons: str
    spending: str
    prior: str
    looks: Grid | None
    next_look: str
    tested: bool
    formulas: list[str]
    checks: list[Check]


def method(report: Report, formats: Formats, *, trusted: bool) -> Method:
    """Return how the numbers of a report were made; statistics only where the data are trusted."""
    how = report.method
    return Method(
        name=sentences.known(sentences.METHODS, how.name),
        interval=sentences.known(sentences.INTERVALS, how.interval),
        confidence=formats.percent(1 - how.alpha),
        correction=sentences.known(sentences.CORRECTIONS, how.correction),
        comparisons=sentences.known(sentences.COMPARISONS, how.comparisons),
        spending=sentences.known(sentences.SPENDING, how.spending) if how.spending else "",
        prior=_prior(report, formats),
        looks=_looks(report, formats) if how.looks and trusted else None,
        next_look=_next_look(how.looks, formats),
        tested=how.name != "bayes",
        formulas=[_INTERVALS[how.interval], _LIFT] if how.interval in _INTERVALS else [_LIFT],
        checks=_checks(report, formats) if trusted else [],
    )


def _prior(report: Report, formats: Formats) -> str:
    how = report.method
    if how.name != "bayes":
        return ""
    if how.prior is None:
        return gettext("Flat: before the data every effect is believed equally likely")
    mean, sd = how.prior
    return gettext(
        "Before the data, the change in percent is believed to be normal around %(mean)s with a standard deviation of "
        "%(sd)s",
        mean=formats.percent(mean),
        sd=formats.percent(sd),
    )


def _looks(report: Report, formats: Formats) -> Grid:
    named, looks = names(report), report.method.looks
    variants = [variant for variant in named if variant != report.control]
    futile = any(look.futility is not None for look in looks)

    def statistic(look: Look, variant: str) -> str:
        z = look.statistic.get(variant)
        if z is None:
            return "–"
        text = formats.plain(z, 3)
        return gettext("%(z)s, crossed", z=text) if variant in look.crossed else text

    def row(look: Look) -> list[str]:
        when = formats.day(look.day) if look.day else gettext("taken") if look.reached else gettext("not yet")
        return [
            str(look.number),
            when,
            formats.count(look.users),
            formats.plain(look.bound, 3),
            *([] if not futile else ["–" if look.futility is None else formats.plain(look.futility, 3)]),
            *(statistic(look, variant) for variant in variants),
        ]

    return grid(
        [gettext("Look"), gettext("Date")],
        [
            gettext("Users"),
            gettext("Bound for |z|"),
            *([gettext("Give up at z")] if futile else []),
            *(gettext("z of %(variant)s", variant=named[variant]) for variant in variants),
        ],
        [row(look) for look in looks],
    )


def _next_look(looks: Sequence[Look], formats: Formats) -> str:
    if not looks:
        return ""
    ahead = next((look for look in looks if not look.reached), None)
    if ahead is None:
        return gettext("No further look is planned.")
    return gettext(
        "Next look: number %(number)s, when %(users)s users have been compared.",
        number=ahead.number,
        users=formats.count(ahead.users),
    )


def _checks(report: Report, formats: Formats) -> list[Check]:
    named = names(report)
    return [
        Check(
            metric.name,
            named[c.variant],
            sentences.known(sentences.STATISTICS, c.statistic.name),
            formats.plain(c.statistic.value),
            formats.plain(c.statistic.df, 6) if c.statistic.df is not None else "",
            formats.p_value(c.statistic.p_value),
            sentences.known(sentences.ADJUSTMENTS, metric.adjustment),
            formats.share(c.variance_reduction) if c.variance_reduction is not None else "",
        )
        for metric in report.metrics
        for c in metric.comparisons
        if c.segment is None and c.statistic is not None
    ]
