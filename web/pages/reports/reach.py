"""How far the tactic came: users at each step from assignment to action, and how far the plan has come."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from math import ceil, sqrt
from statistics import fmean, stdev

from experiments.codes import Verdict
from experiments.report import MetricReport, Report
from web.formats import Formats, precision
from web.languages import gettext, ngettext
from web.pages.reports.verdict import leader, names

# Days whose arrivals tell how many will come a day, and how many of them are needed to tell.
_RECENT, _FEWEST = 14, 4
_Z = 1.645


@dataclass(frozen=True, slots=True)
class Stage:
    """One step for one variant: a number, and its share of those assigned (a hundredth part of the bar)."""

    text: str
    share: float | None


@dataclass(frozen=True, slots=True)
class Arm:
    """A variant's steps, and its share of the users beside the planned one."""

    name: str
    control: bool
    stages: list[Stage]
    planned_share: str
    actual_share: str


@dataclass(frozen=True, slots=True)
class Reach:
    """The steps that the data know, as (name, explanation), and every variant's users at each."""

    stages: list[tuple[str, str]]
    arms: list[Arm]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the plan has come; ``left`` and ``precision`` are empty where nothing can be said."""

    share: float
    text: str
    left: str
    precision: str


def reach(report: Report, formats: Formats) -> Reach:
    """Return the users at each step that is known: of touches only those reached, where the plan names the event."""
    assigned = {arm.variant: arm.assigned for arm in report.arms}
    steps = list(_steps(report, formats))
    observed, expected = report.srm.observed, report.srm.expected
    total, planned = sum(observed.values()), sum(expected.values())
    arms = []
    for arm in report.arms:
        stages = []
        for _, _, counts in steps:
            count = counts.get(arm.variant)
            if count is None:
                stages.append(Stage("–", None))
                continue
            number, text = count
            whole = assigned[arm.variant]
            stages.append(Stage(text, round(100 * min(number / whole, 1), 1) if whole else None))
        arms.append(
            Arm(
                arm.name,
                arm.variant == report.control,
                stages,
                formats.share(expected[arm.variant] / planned) if planned else "",
                formats.share(observed[arm.variant] / total) if total else "",
            )
        )
    return Reach([(title, hint) for title, hint, _ in steps], arms)


_Counts = Mapping[str, tuple[float, str]]


def _steps(report: Report, formats: Formats) -> Iterator[tuple[str, str, _Counts]]:
    def counted(counts: Mapping[str, int]) -> _Counts:
        return {variant: (count, formats.count(count)) for variant, count in counts.items()}

    matured = {arm.variant: arm.matured for arm in report.arms}
    yield (
        gettext("Assigned"),
        gettext("First seen in this variant"),
        counted({arm.variant: arm.assigned for arm in report.arms}),
    )
    yield (
        gettext("Exposed"),
        gettext("Of these, never seen in another variant"),
        counted({arm.variant: arm.exposed for arm in report.arms}),
    )
    yield (
        gettext("Matured"),
        gettext("Of these, with the observation window closed: these are compared"),
        counted(matured),
    )
    if report.decision.verdict == Verdict.invalid:
        return
    if report.triggered:
        fired = {entry.variant: entry.users for entry in report.triggered}
        fired[report.control] = report.triggered[0].users_control
        yield gettext("Due"), gettext("The treatment was due, or in control would have been (ghost)"), counted(fired)
    received = {entry.variant: entry.received for entry in report.compliers}
    if report.compliers:
        received[report.control] = report.compliers[0].received_control
        known = {v: (share * matured[v], formats.share(share)) for v, share in received.items() if share is not None}
        yield gettext("Reached"), gettext("Of those compared, who received the treatment"), known
    primary = report.primary()
    if primary.unit == "share" and primary.kind in ("conversion", "retention", "funnel"):
        means = {arm.variant: arm.mean for arm in primary.arms if arm.segment is None and arm.mean is not None}
        acted = {v: (mean * matured[v], formats.share(mean)) for v, mean in means.items() if v in matured}
        yield gettext("Acted"), gettext("Of those compared: %(metric)s", metric=primary.name), acted


def progress(report: Report, formats: Formats) -> Progress | None:
    """Return how far the plan has come, while there is something to wait for."""
    primary, planned = report.primary(), report.method.planned_users
    if planned is None or report.decision.verdict != Verdict.keep_running:
        return None
    text = gettext(
        "%(matured)s of %(planned)s planned users",
        matured=formats.count(primary.matured),
        planned=formats.count(planned),
    )
    remaining = planned - primary.matured
    left = _left(primary, remaining) if remaining > 0 else ""
    return Progress(min(primary.matured / planned, 1.0), text, left, _precision(report, primary, planned, formats))


def days_left(metric: MetricReport, remaining: int) -> tuple[int, int | None] | None:
    """Return in how many days so many users more will be compared, at the earliest and at the latest (None: open).

    As users came on the last days: their mean a day, and how much it may be off (90 %).
    """
    # Every point counts one variant and the control; points of one variant rise as the users do.
    points = [point for point in metric.timeline if point.variant == metric.timeline[0].variant]
    days: list[int] = []
    for earlier, later in pairwise(points):
        apart = (date.fromisoformat(later.day) - date.fromisoformat(earlier.day)).days
        days += [*[0] * (apart - 1), later.n - earlier.n]
    days = days[-_RECENT:]
    if len(days) < _FEWEST or not points[-1].n:
        return None
    of_all = metric.matured / points[-1].n
    mean, error = fmean(days) * of_all, stdev(days) * of_all / sqrt(len(days)) * _Z
    if mean <= 0:
        return None
    slowest = mean - error
    return ceil(remaining / (mean + error)), ceil(remaining / slowest) if slowest > 0 else None


def _left(metric: MetricReport, remaining: int) -> str:
    found = days_left(metric, remaining)
    if found is None:
        return ""
    low, high = found
    if high is None:
        return ngettext("At least one more day", "At least %(num)s more days", low)
    if low == high:
        return ngettext("About one more day", "About %(num)s more days", low)
    return gettext("About %(low)s to %(high)s more days, if users come as lately", low=low, high=high)


def _precision(report: Report, primary: MetricReport, planned: int, formats: Formats) -> str:
    best = leader(report)
    if best is None or best.absolute is None or not 0 < primary.matured < planned:
        return ""
    half, known = (best.absolute.upper - best.absolute.lower) / 2, precision(primary)
    then = half * sqrt(primary.matured / planned)
    return gettext(
        "%(metric)s of %(variant)s is known to ±%(now)s today, at the planned size to about ±%(then)s.",
        metric=primary.name,
        variant=names(report)[best.variant],
        now=formats.change(primary.unit, half, known).lstrip("+"),
        then=formats.change(primary.unit, then, known).lstrip("+"),
    )
