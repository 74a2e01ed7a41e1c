"""What was checked of the data, each with a small picture, what was found, and what to do: drawn without a script."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log10

from experiments.analysis.health import CROSSOVER_ALARM, SRM_ALARM
from experiments.codes import HealthCode, Verdict
from experiments.report import Check, Finding, Interval, MetricReport, Report
from web import charts, sentences
from web.charts.courses import days_of
from web.formats import Formats, known_to
from web.languages import gettext
from web.pages.reports.bars import Bar, bar
from web.pages.reports.parts import effect, p_is
from web.pages.reports.verdict import names
from web.pages.reports.waves import named_after

# The p values on the picture: from 1 at the right to this at the left.
_RAREST = 1e-6
# So many days of a drifting effect are drawn.
_DAYS = 5


@dataclass(frozen=True, slots=True)
class Share:
    """A part of 100, to be drawn as a bar; ``mark``: where it was planned to end, or should end at most."""

    part: float
    mark: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a picture: a name, a share or an interval, and the number in words."""

    label: str
    number: str
    picture: Share | Bar
    state: str

    @property
    def is_share(self) -> bool:
        return isinstance(self.picture, Share)


@dataclass(frozen=True, slots=True)
class Picture:
    """``told``: its numbers for those who do not see it; ``hint``: how to read it."""

    lines: list[Line]
    told: str
    hint: str


@dataclass(frozen=True, slots=True)
class Made:
    """A check, or something found without one: of what, what came of it, what to do; ``p_value`` empty without one."""

    name: str
    question: str
    subject: str
    p_value: str
    state: str
    word: str
    picture: Picture | None
    sentence: str
    advice: str


def checks(report: Report, formats: Formats) -> list[Made]:
    """Return every check and every finding: what calls for something first."""
    made = {(check.code, check.subject): check for check in report.checks}
    found = sorted(report.health, key=lambda finding: (not finding.fatal, (finding.code, finding.subject) not in made))
    told = {(finding.code, finding.subject) for finding in found}
    left = sorted(
        (check for key, check in made.items() if key not in told),
        key=lambda check: (check.passed, check.p_value is None),
    )
    return [
        *(_found(report, finding, made.get((finding.code, finding.subject)), formats) for finding in found),
        *(_made(report, check, formats) for check in left),
    ]


def _found(report: Report, finding: Finding, check: Check | None, formats: Formats) -> Made:
    code, subject = finding.code, subject_of(report, finding.code, finding.subject, formats)
    state = "harmed" if finding.fatal or check else "unproven"
    sentence, advice = sentences.health(code, finding.count, finding.of, subject, formats)
    return Made(
        sentences.known(sentences.CHECKS, code),
        str(sentences.QUESTIONS.get(code, "")),
        subject,
        _p(check, formats),
        state,
        gettext("striking") if state == "harmed" else gettext("good to know"),
        _picture(report, code, finding.subject, check, finding, state, formats),
        sentence,
        advice,
    )


def _made(report: Report, check: Check, formats: Formats) -> Made:
    state = "safe" if check.passed else "harmed"
    sentence, advice = _passed(report, check, formats) if check.passed else ("", "")
    return Made(
        sentences.known(sentences.CHECKS, check.code),
        str(sentences.QUESTIONS.get(check.code, "")),
        subject_of(report, check.code, check.subject, formats),
        _p(check, formats),
        state,
        gettext("fine") if check.passed else gettext("striking"),
        _picture(report, check.code, check.subject, check, None, state, formats),
        sentence,
        advice,
    )


def _p(check: Check | None, formats: Formats) -> str:
    return "" if check is None or check.p_value is None else p_is(check.p_value, formats)


def subject_of(report: Report, code: HealthCode, subject: str | None, formats: Formats) -> str:
    """Return the name of what a finding is about: a segment, a day, a metric or a variant."""
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


def _passed(report: Report, check: Check, formats: Formats) -> tuple[str, str]:
    """What a check that raised nothing says, and what to do."""
    nothing = gettext("Nothing to do.")
    match check.code:
        case HealthCode.sample_ratio_mismatch:
            if check.p_value is None:
                return gettext("Too few users to judge the split."), gettext("Look again when more users have come.")
            off = max(abs(report.srm.observed.get(v, 0) - planned) for v, planned in report.srm.expected.items())
            facts = {"off": formats.count(round(off)), "of": formats.count(sum(report.srm.observed.values()))}
            return (
                gettext(
                    "The variants got their planned shares: off by %(off)s of %(of)s users at most, which chance "
                    "explains.",
                    **facts,
                ),
                nothing,
            )
        case HealthCode.segment_sample_ratio_mismatch:
            return gettext("In this segment too, the variants got their planned shares of users."), nothing
        case HealthCode.daily_sample_ratio_mismatch:
            return gettext("Even on the day that stands out most, users were split as planned."), nothing
        case HealthCode.different_before:
            return gettext("Before the experiment the users of all variants behaved alike."), nothing
        case HealthCode.novelty:
            return gettext("No clear sign that the effect fades or grows with the days since exposure."), nothing
        case HealthCode.outlier_influence:
            metric = _metric(report, check.subject)
            shares = [entry.share for entry in metric.influence if entry.share is not None] if metric else []
            if not shares:
                return gettext("The answer stays the same without the largest user of each variant."), nothing
            return (
                gettext(
                    "The answer stays the same without the largest user of each variant, who makes up %(share)s of "
                    "its total at most.",
                    share=formats.share(max(shares)),
                ),
                nothing,
            )
        case HealthCode.trigger_depends_on_variant:
            return gettext("The trigger fires about as often as with control."), nothing
    return "", nothing


def _picture(
    report: Report,
    code: HealthCode,
    subject: str | None,
    check: Check | None,
    finding: Finding | None,
    state: str,
    formats: Formats,
) -> Picture | None:
    """The picture of a check or finding; None where the report holds nothing to draw, or no effect may be shown."""
    lines, hint = list[Line](), ""
    metric, primary = _metric(report, subject), report.primary()
    trusted = report.decision.verdict != Verdict.invalid
    match code:
        case HealthCode.sample_ratio_mismatch:
            lines, hint = list(_split(report, state, formats)), gettext("The line is the planned share.")
        case HealthCode.segment_sample_ratio_mismatch | HealthCode.daily_sample_ratio_mismatch if check:
            lines = list(_rarity(report, check, state, formats))
            hint = gettext("Further left: rarer by chance alone. Hatched: so rare that something is wrong.")
        case HealthCode.different_before if metric:
            before = [(names(report)[point.variant], point.absolute) for point in metric.placebo]
            apart = charts.UNCLEAR if state == "safe" else state
            lines = list(_intervals(metric, before, formats, apart))
            hint = gettext("Difference from control a day, before exposure. The line is no difference.")
        case HealthCode.novelty if trusted:
            days = [
                (gettext("Days %(days)s", days=days_of(point)), point.absolute)
                for point in primary.slices
                if point.variant == subject
            ]
            lines = list(_intervals(primary, days, formats))
            hint = gettext("Change a day, by the days since exposure. The line is no change.")
        case HealthCode.effect_drifted if trusted:
            course = [(formats.day(p.day), p.absolute) for p in primary.timeline if p.variant == subject]
            lines = list(_intervals(primary, course[-_DAYS:], formats))
            hint = gettext("The effect as it was read on the last days. The line is no effect.")
        case HealthCode.outlier_influence if metric:
            lines = list(_largest(report, metric, state, formats))
            hint = gettext("The largest user's part of all that the variant's users bring.")
        case HealthCode.trigger_depends_on_variant:
            lines = list(_fired(report, subject, state, formats))
            hint = gettext("Users for whom the trigger fired, of all compared.")
        case HealthCode.thin_segment:
            lines = list(_thin(report, subject, state, formats))
            hint = gettext("Users of the segment, by variant.")
        case HealthCode.crossovers | HealthCode.identity_crossovers if finding and finding.of:
            lines = [_of(finding, state, formats, mark=CROSSOVER_ALARM * 100)]
            hint = gettext("Beyond the line nothing can be concluded from the data.")
        case HealthCode.immature_users | HealthCode.forced_users if finding and finding.of:
            lines, hint = [_of(finding, state, formats)], gettext("Part of all users.")
    if not lines:
        return None
    between, after = ("；", "：") if formats.chinese else ("; ", ": ")
    told = between.join(f"{line.label}{after}{line.number}" if line.label else line.number for line in lines)
    return Picture(lines, f"{sentences.known(sentences.CHECKS, code)}{after}{told}", hint)


def _metric(report: Report, key: str | None) -> MetricReport | None:
    return next((metric for metric in report.metrics if metric.metric == key), None)


def _split(report: Report, state: str, formats: Formats) -> Iterable[Line]:
    observed, expected = report.srm.observed, report.srm.expected
    users, planned = sum(observed.values()), sum(expected.values())
    if not users or not planned:
        return
    for variant, name in names(report).items():
        part, due = observed.get(variant, 0) / users, expected.get(variant, 0.0) / planned
        number = gettext("%(actual)s, planned %(planned)s", actual=formats.share(part), planned=formats.share(due))
        yield Line(name, number, Share(part * 100, due * 100), state)


def _rarity(report: Report, check: Check, state: str, formats: Formats) -> Iterable[Line]:
    """Where p stands, and from where on it alarms: of segments the more of them there are, the further out."""
    if check.p_value is None:
        return
    segments = check.code == HealthCode.segment_sample_ratio_mismatch
    alarm = SRM_ALARM / (len(report.segments) or 1) if segments else SRM_ALARM
    half = log10(_RAREST) / 2

    def place(p: float) -> Interval:
        middle = 1 - log10(max(p, _RAREST)) / half
        return Interval(middle, middle, middle)

    limit = bar(place(alarm), 1.0).estimate
    drawn = bar(place(check.p_value), 1.0)
    picture = Bar(drawn.lower, drawn.upper, drawn.estimate, limit, (0.0, limit))
    yield Line(gettext("How rare by chance"), p_is(check.p_value, formats), picture, state)


def _intervals(
    metric: MetricReport, found: Sequence[tuple[str, Interval]], formats: Formats, apart: str | None = None
) -> Iterable[Line]:
    """Intervals on one zero line; ``apart``: the state of those that leave out zero, where it is no gain or loss."""
    reach = max((max(abs(interval.lower), abs(interval.upper)) for _, interval in found), default=0.0) or 1.0
    known = known_to(interval for _, interval in found)
    for label, interval in found:
        state = apart or (charts.BETTER if (interval.estimate > 0) == (metric.direction == "up") else charts.WORSE)
        if interval.lower <= 0 <= interval.upper:
            state = charts.UNCLEAR
        yield Line(label, effect(metric.unit, interval, formats, known), bar(interval, reach), state)


def _largest(report: Report, metric: MetricReport, state: str, formats: Formats) -> Iterable[Line]:
    for entry in metric.influence:
        if entry.share is not None:
            part = min(100.0, max(0.0, entry.share * 100))
            yield Line(names(report)[entry.variant], formats.share(entry.share), Share(part), state)


def _fired(report: Report, variant: str | None, state: str, formats: Formats) -> Iterable[Line]:
    compared = {arm.variant: arm.n for arm in report.primary().arms if arm.segment is None}
    for entry in report.triggered:
        if entry.variant != variant:
            continue
        for key, fired in ((entry.variant, entry.users), (report.control, entry.users_control)):
            if users := compared.get(key):
                facts = {"share": formats.share(fired / users), "users": formats.count(fired)}
                number = gettext("%(share)s, %(users)s users", **facts)
                yield Line(names(report)[key], number, Share(min(100.0, fired / users * 100)), state)


def _thin(report: Report, segment: str | None, state: str, formats: Formats) -> Iterable[Line]:
    users = {arm.variant: arm.n for arm in report.primary().arms if arm.segment == segment}
    most = max(users.values(), default=0)
    if most:
        for variant, n in users.items():
            yield Line(names(report)[variant], formats.count(n), Share(n / most * 100), state)


def _of(finding: Finding, state: str, formats: Formats, mark: float | None = None) -> Line:
    part = finding.count / finding.of
    facts = {"share": formats.share(part), "count": formats.count(finding.count), "of": formats.count(finding.of)}
    return Line("", gettext("%(share)s: %(count)s of %(of)s", **facts), Share(part * 100, mark), state)
