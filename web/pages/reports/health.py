"""Can the numbers be trusted? What was checked, what was found, and what to do about it."""

from dataclasses import dataclass

from experiments.codes import HealthCode
from experiments.report import Check, Finding, Report
from web import sentences
from web.formats import Formats
from web.languages import gettext
from web.pages.reports.parts import Grid, grid, p_value
from web.pages.reports.verdict import names
from web.pages.reports.waves import history, named_after


@dataclass(frozen=True, slots=True)
class Found:
    """One finding: what, what to do, and whether it makes the report invalid."""

    sentence: str
    advice: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class Made:
    """A check that was made: of what, what it looks at, its p value, and whether it passed."""

    name: str
    question: str
    subject: str
    p_value: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Health:
    """``split_p``: of the split over all users; ``anytime_p``: however often one looks; ``waves``: each one."""

    found: list[Found]
    checks: list[Made]
    split: Grid
    split_ok: bool
    split_p: str
    anytime_p: str
    waves: Grid | None


def health(report: Report, formats: Formats) -> Health:
    """Return what is known of the health of the data."""
    srm = report.srm
    return Health(
        found=[_found(report, finding, formats) for finding in report.health],
        checks=[_made(report, check, formats) for check in report.checks],
        split=_split(report, formats),
        split_ok=srm.problem is None,
        split_p=formats.p_value(srm.p_value) if srm.p_value is not None else "",
        anytime_p=formats.p_value(srm.anytime_p) if srm.anytime_p is not None else "",
        waves=history(report, formats),
    )


def _split(report: Report, formats: Formats) -> Grid:
    """The users of each variant beside those whom the plan expects."""
    srm, named = report.srm, names(report)
    rows = [
        [
            named[variant],
            formats.count(round(expected)),
            formats.count(srm.observed.get(variant, 0)),
            formats.change("", srm.observed.get(variant, 0) - round(expected), 10),
        ]
        for variant, expected in srm.expected.items()
    ]
    return grid([gettext("Variant")], [gettext("Expected"), gettext("Actual"), gettext("Difference")], rows)


def _found(report: Report, finding: Finding, formats: Formats) -> Found:
    subject = _subject(report, finding.code, finding.subject, formats)
    return Found(*sentences.health(finding.code, finding.count, finding.of, subject, formats), finding.fatal)


def _made(report: Report, check: Check, formats: Formats) -> Made:
    return Made(
        sentences.known(sentences.CHECKS, check.code),
        sentences.known(sentences.QUESTIONS, check.code),
        _subject(report, check.code, check.subject, formats),
        p_value(check.p_value, formats),
        check.passed,
    )


def _subject(report: Report, code: HealthCode, subject: str | None, formats: Formats) -> str:
    """A finding is about a segment, a day, a metric or a variant, by its code."""
    if subject is None:
        return ""
    match code:
        case HealthCode.daily_sample_ratio_mismatch:
            return formats.day(subject)
        case HealthCode.different_before | HealthCode.outlier_influence:
            return next((metric.name for metric in report.metrics if metric.metric == subject), subject)
        case HealthCode.novelty | HealthCode.trigger_depends_on_variant | HealthCode.effect_drifted:
            return names(report).get(subject, subject)
    wave = named_after(report.experiment, subject) if report.adaptive else None
    return wave or report.segments.get(subject, subject)
