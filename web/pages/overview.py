"""What the list of experiments shows."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from experiments import registry, reports
from experiments.codes import Verdict
from experiments.documents import Experiment, Kind, Status
from experiments.report import Interval
from web import charts, sentences
from web.formats import Formats, precision
from web.pages import verdict

_ORDER = list(Status)
_ORDER.insert(0, _ORDER.pop(_ORDER.index(Status.running)))
BAR_WIDTH = 120


@dataclass(frozen=True, slots=True)
class Bar:
    """A small picture of an interval: positions in a box ``BAR_WIDTH`` wide."""

    lower: float
    upper: float
    estimate: float
    zero: float
    reading: str


@dataclass(frozen=True, slots=True)
class Line:
    """One experiment in the list; without a report the later fields are empty."""

    key: str
    name: str
    status: str
    status_label: str
    metric: str = ""
    effect: str = ""
    limits: tuple[str, str] | None = None
    bar: Bar | None = None
    verdict: str = ""
    verdict_label: str = ""
    users: str = ""
    as_of: str = ""


def lines(session: Session, formats: Formats) -> list[Line]:
    """Return the experiments, those that run first."""
    found: list[Experiment] = registry.all_of(session, Kind.experiment)
    found.sort(key=lambda experiment: (_ORDER.index(experiment.status), experiment.name))
    return [_line(session, experiment, formats) for experiment in found]


def _line(session: Session, experiment: Experiment, formats: Formats) -> Line:
    label = sentences.known(sentences.STATUSES, experiment.status)
    start = (experiment.key, experiment.name, experiment.status.value, label)
    report = verdict.readable(reports.latest(session, experiment.key))
    if report is None:
        return Line(*start)
    primary, best = report.primary(), verdict.leader(report)
    effect, limits, bar = "", None, None
    if best is not None and best.absolute is not None and report.decision.verdict != Verdict.invalid:
        effect, *ends = formats.interval(primary.unit, best.absolute, precision(primary))
        limits = (ends[0], ends[1])
        bar = _bar(best.absolute, charts.reading(primary, best))
    return Line(
        *start,
        metric=primary.name,
        effect=effect,
        limits=limits,
        bar=bar,
        verdict=report.decision.verdict,
        verdict_label=sentences.known(sentences.VERDICTS, report.decision.verdict),
        users=formats.count(sum(arm.exposed for arm in report.arms)),
        as_of=formats.moment(report.as_of),
    )


def _bar(interval: Interval, reading: str) -> Bar:
    low, high = min(interval.lower, 0.0), max(interval.upper, 0.0)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return round(6 + (value - low) / span * (BAR_WIDTH - 12), 1)

    return Bar(place(interval.lower), place(interval.upper), place(interval.estimate), place(0.0), reading)
