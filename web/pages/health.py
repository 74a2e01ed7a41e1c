"""Can the numbers be trusted? What was checked, what was found, and what to do about it."""

from dataclasses import dataclass

from experiments.codes import HealthCode
from experiments.report import Check, Finding, Report
from web import sentences
from web.formats import Formats
from web.pages.parts import p_value
from web.pages.verdict import names


@dataclass(frozen=True, slots=True)
class Found:
    """One finding: what, what to do, and whether it makes the report invalid."""

    sentence: str
    advice: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class Made:
    """A check that was made: of what, its p value, and whether it passed."""

    name: str
    subject: str
    p_value: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Health:
    """``split_p``: of the split over all users; ``anytime_p``: the same, however often one looks."""

    found: list[Found]
    checks: list[Made]
    split_ok: bool
    split_p: str
    anytime_p: str


def health(report: Report, formats: Formats) -> Health:
    """Return what is known of the health of the data."""
    srm = report.srm
    return Health(
        found=[_found(report, finding, formats) for finding in report.health],
        checks=[_made(report, check, formats) for check in report.checks],
        split_ok=srm.problem is None,
        split_p=formats.p_value(srm.p_value) if srm.p_value is not None else "",
        anytime_p=formats.p_value(srm.anytime_p) if srm.anytime_p is not None else "",
    )


def _found(report: Report, finding: Finding, formats: Formats) -> Found:
    subject = _subject(report, finding.code, finding.subject, formats)
    return Found(*sentences.health(finding.code, finding.count, finding.of, subject, formats), finding.fatal)


def _made(report: Report, check: Check, formats: Formats) -> Made:
    return Made(
        sentences.known(sentences.CHECKS, check.code),
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
    return report.segments.get(subject, subject)
