"""The first thing a reader sees: what to do, what it is worth, what may go wrong, in plain words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from experiments.codes import ReasonCode, Verdict
from experiments.errors import Conflict
from experiments.report import Comparison, Interval, MetricReport, Report
from experiments.reports import Saved
from web import sentences
from web.formats import Formats, precision
from web.languages import gettext
from web.pages.reports.bars import Bar, bar


@dataclass(frozen=True, slots=True)
class Headline:
    """The verdict as shown.

    ``label`` is the short form; ``sentence`` says what to do; ``worth`` what it brings; ``worst`` what may still
    happen; ``corrected`` what is left without the luck of the best of several; ``reasons`` why. Texts are empty
    where nothing can be said.
    """

    verdict: str
    label: str
    sentence: str
    worth: str
    worst: str
    corrected: str
    reasons: list[str]


@dataclass(frozen=True, slots=True)
class Guardrail:
    """A guardrail for one variant: ``state`` is safe, unproven or harmed; ``bar`` with the zone beyond the limit."""

    metric: str
    variant: str
    state: str
    sentence: str
    change: str
    limit: str
    bar: Bar | None = None


def readable(saved: Saved | None) -> Report | None:
    """Return a saved report, or None where there is none that this version of the program can read."""
    try:
        return None if saved is None else saved.report
    except Conflict:
        return None


def headline(report: Report, formats: Formats) -> Headline:
    """Return the verdict of a report in words."""
    advice = report.decision
    return Headline(
        verdict=advice.verdict,
        label=sentences.known(sentences.VERDICTS, advice.verdict),
        sentence=_sentence(report, formats),
        worth=_worth(report, formats),
        worst=_worst(report, formats),
        corrected=_corrected(report, formats),
        reasons=[sentences.known(sentences.REASONS, code) for code in advice.reasons],
    )


def names(report: Report) -> Mapping[str, str]:
    """Return the variants' names by key."""
    return {arm.variant: arm.name for arm in report.arms}


def leader(report: Report) -> Comparison | None:
    """Return the main metric's comparison of the variant advised, or else of the one that looks best."""
    primary = report.primary()
    overall = [c for c in primary.comparisons if c.segment is None and c.absolute is not None]
    advised = [c for c in overall if c.variant == report.decision.variant]
    sign = 1 if primary.direction == "up" else -1
    return max(advised or overall, key=lambda c: sign * c.absolute.estimate if c.absolute else 0.0, default=None)


def guardrails(report: Report, formats: Formats) -> Iterator[Guardrail]:
    """Yield each guardrail metric's state for each variant."""
    named = names(report)
    for metric in report.metrics:
        if metric.role != "guardrail":
            continue
        for c in metric.comparisons:
            if c.segment is None:
                yield _guardrail(metric, c, named[c.variant], formats)


def _guardrail(metric: MetricReport, c: Comparison, variant: str, formats: Formats) -> Guardrail:
    test = c.noninferiority
    if test is None or c.absolute is None:
        problem = sentences.known(sentences.PROBLEMS, c.problem) if c.problem else gettext("No limit was set.")
        return Guardrail(metric.name, variant, "unproven", problem, "", "")
    sign = -1 if metric.direction == "up" else 1
    limit = formats.change(metric.unit, sign * test.margin, precision(metric))
    state, sentence = "unproven", gettext("Not shown to be safe yet")
    if test.passed:
        state, sentence = "safe", gettext("Safe")
    elif test.harmed:
        state, sentence = "harmed", gettext("Harmed")
    return Guardrail(
        metric.name,
        variant,
        state,
        sentence,
        formats.change(metric.unit, c.absolute.estimate, precision(metric)),
        limit,
        _picture(c.absolute, sign * test.margin),
    )


def _picture(interval: Interval, limit: float) -> Bar:
    """The limit stands half way to the edge, unless the interval goes further beyond it."""
    furthest = max(abs(interval.lower), abs(interval.upper)) * 1.05
    return bar(interval, min(max(2 * abs(limit), furthest), 4 * abs(limit)), limit)


def _sentence(report: Report, formats: Formats) -> str:
    advice = report.decision
    variant = names(report).get(advice.variant or "", "")
    match advice.verdict:
        case Verdict.ship if advice.segments:
            chosen = formats.names(report.segments.get(key, key) for key in advice.segments)
            return gettext("Roll out %(variant)s to %(segments)s.", variant=variant, segments=chosen)
        case Verdict.ship:
            return gettext("Roll out %(variant)s to everyone.", variant=variant)
        case Verdict.stop:
            return gettext("Stop, and keep %(control)s.", control=names(report)[report.control])
        case Verdict.keep_running:
            return gettext("Keep running: it is too early to decide.")
        case Verdict.inconclusive if {ReasonCode.primary_better, ReasonCode.guardrail_not_proven} <= {*advice.reasons}:
            return gettext("Better, but not shown to be safe: do not roll it out yet.")
        case Verdict.inconclusive:
            return gettext("No clear winner: the variants may well be equally good.")
    return gettext("Do not decide on these data: something is wrong with them.")


def _worth(report: Report, formats: Formats) -> str:
    value = report.decision.value_per_month
    if value is not None:
        amounts = {
            "estimate": formats.money(value.estimate, value.currency),
            "lower": formats.money(value.lower, value.currency),
            "upper": formats.money(value.upper, value.currency),
        }
        if report.decision.verdict == Verdict.stop:
            return gettext("The best variant: about %(estimate)s a month, between %(lower)s and %(upper)s.", **amounts)
        return gettext("About %(estimate)s a month, between %(lower)s and %(upper)s.", **amounts)
    best = leader(report)
    if report.decision.verdict == Verdict.invalid or best is None or best.absolute is None:
        return ""
    primary = report.primary()
    estimate, lower, upper = formats.interval(primary.unit, best.absolute, precision(primary))
    return gettext(
        "%(metric)s with %(variant)s: %(estimate)s, between %(lower)s and %(upper)s.",
        metric=primary.name,
        variant=names(report)[best.variant],
        estimate=estimate,
        lower=lower,
        upper=upper,
    )


def _worst(report: Report, formats: Formats) -> str:
    """The bad end of the interval: of the money if there is any, else of the main metric."""
    value = report.decision.value_per_month
    if value is not None:
        amount = formats.money(abs(value.lower), value.currency, signed=False)
        if value.lower < 0:
            return gettext("it loses %(amount)s a month", amount=amount)
        return gettext("it still brings in %(amount)s a month", amount=amount)
    best = leader(report)
    if report.decision.verdict == Verdict.invalid or best is None or best.absolute is None:
        return ""
    primary = report.primary()
    end = best.absolute.lower if primary.direction == "up" else best.absolute.upper
    change = formats.change(primary.unit, end, precision(primary))
    return gettext("%(metric)s: %(change)s", metric=primary.name, change=change)


def _corrected(report: Report, formats: Formats) -> str:
    effect, primary = report.decision.corrected, report.primary()
    if effect is None:
        return ""
    estimate, lower, upper = formats.interval(primary.unit, effect, precision(primary))
    return gettext(
        "Without the luck of having been picked as the best of %(number)s: %(metric)s %(estimate)s, between %(lower)s "
        "and %(upper)s.",
        number=len(report.arms) - 1,
        metric=primary.name,
        estimate=estimate,
        lower=lower,
        upper=upper,
    )
