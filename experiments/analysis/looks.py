"""Where a group-sequential plan stands: which of its looks were reached, and on what data they were taken.

A look is taken with the users exposed up to the first day by which enough of them have matured. It is a function of the
data, whenever and however often the report is made: between two looks the report shows the one before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from experiments.analysis.vectors import Measurement
from experiments.design import Design
from experiments.fields import Direction
from experiments.report import Look
from stats import groupsequential
from stats.effects import contrast
from stats.errors import StatError
from stats.groupsequential import Spending

# So near below a planned look, as a share of it, the look is taken: two looks there would be one.
_NEAR = 1e-3


@dataclass(frozen=True, slots=True)
class Reading:
    """``information``: shares of the planned users at the looks up to the one shown, empty before the first.

    ``until``: last day of exposure of its users (None: everyone). ``stopped``: the only variant crossed its bound,
    so that later looks are not taken. ``final``: the experiment ended below its planned size, and all that was left of
    alpha is spent at this look.
    """

    looks: list[Look]
    information: tuple[float, ...] = ()
    until: date | None = None
    stopped: bool = False
    final: bool = False

    def until_for(self, primary_days: int, days: int) -> date | None:
        """The last day of exposure for a metric that takes other ``days`` to mature, seen at the same moment."""
        return None if self.until is None else self.until + timedelta(days=primary_days - days)

    def on(self, closed: date) -> "Reading | None":
        """Where the plan stood at the look on the day by which these windows had closed; None if there was none."""
        for number, look in enumerate(self.looks, 1):
            if look.day == closed.isoformat():
                last = number == len(self.information)
                return Reading([], self.information[:number], stopped=self.stopped and last, final=self.final and last)
        return None


@dataclass(frozen=True, slots=True)
class _Taken:
    """A look reached: share of the planned users, how many, last day of exposure, and the data (None: of the past).

    ``final``: there will be no other, though the planned size was not reached.
    """

    share: float
    users: int
    day: date | None
    data: Measurement | None
    final: bool = False


def read(design: Design, primary: Measurement, as_of: date) -> Reading:
    """Return where the plan stands.

    Args:
        design: what was planned; its method is group_sequential.
        primary: the main metric.
        as_of: the day of the data.
    """
    planned = design.planned_users or 0
    spending = design.spending or Spending("obrien_fleming")
    taken = list(_taken(design, primary, planned, as_of))
    looks: list[Look] = []
    stopped = futile = False
    for number, look in enumerate(taken, 1):
        information = tuple(part.share for part in taken[:number])
        bound = float(groupsequential.bounds(information, design.alpha, spending, final=look.final)[-1])
        floor = None if look.final else _futility(design, spending, information)
        statistic = {} if look.data is None else _statistics(look.data)
        crossed = [variant for variant, z in statistic.items() if abs(z) >= bound]
        closed = None if look.day is None else primary.closed(look.day).isoformat()
        looks.append(Look(number, look.users, closed, bound, statistic, crossed, reached=True, futility=floor))
        # A file does not show the looks before: that they crossed no bound is not known there.
        known = all(part.data is not None for part in taken[:number])
        stopped = known and len(design.treatments) == 1 and bool(crossed)
        futile = looks[-1].hopeless(up=primary.spec.direction is Direction.up)
        if stopped or futile:
            break
    shown = len(looks)
    information = tuple(part.share for part in taken[:shown])
    final = shown > 0 and taken[shown - 1].final
    if not (stopped or futile or final):
        looks += _ahead(design, spending, planned, information)
    until = taken[shown - 1].day if shown else None
    return Reading(looks, information, until, stopped, final)


def _taken(design: Design, primary: Measurement, planned: int, as_of: date) -> list[_Taken]:
    days = list(primary.users_by_day())
    if not days:
        # No days (a file): this is the last look reached, those before were taken as planned.
        users = primary.users()
        share = _share(users / planned, design.looks)
        reached = [look for look in design.looks if look <= share]
        if not reached:
            return []
        past = [_Taken(look, round(look * planned), None, None) for look in reached[:-1]]
        return [*past, _Taken(max(share, 1.0) if reached[-1] == 1 else reached[-1], users, None, primary)]
    taken: list[_Taken] = []
    ahead = list(design.looks)
    for day, users in days:
        # The windows of everyone exposed that day have closed, in every time zone.
        if primary.closed(day) + timedelta(days=2) > as_of:
            break
        share = _share(users / planned, ahead)
        if ahead and share >= ahead[0]:
            taken.append(_Taken(share, users, day, primary.as_of(day)))
            ahead = [look for look in ahead if look > share]
    else:
        # Every window has closed. Where nobody new will come, this is the last look.
        so_far = taken[-1].share if taken else 0.0
        if design.ended and so_far < 1 and users / planned > so_far + _NEAR:
            taken.append(_Taken(users / planned, users, day, primary, final=True))
    return taken


def _share(share: float, looks: Sequence[float]) -> float:
    """The share of the planned users, or the planned look that it all but reaches."""
    return max([share, *(look for look in looks if share < look <= share / (1 - _NEAR))])


def _statistics(data: Measurement) -> dict[str, float]:
    design = data.design
    statistic = {}
    for variant in design.treatments:
        try:
            vector = data.vector(data.rows(design.strata), design.strata, [variant, design.control])
            pair = contrast(vector, [(0, 1.0), (1, -1.0)])
        except StatError:
            continue
        statistic[variant] = pair.estimate / pair.se
    return statistic


def _futility(design: Design, spending: Spending, information: tuple[float, ...]) -> float | None:
    """The z at or below which the rest of the plan would hardly help, were the effect the one planned for."""
    beta = design.futility
    if beta is None or information[-1] >= 1:
        return None
    whole = (*information, *(look for look in design.looks if look > information[-1]))
    upper = groupsequential.bounds(whole, design.alpha / 2, spending, sides=1)
    try:
        drift = groupsequential.required_drift(whole, upper, 1 - beta)
        return float(groupsequential.futility(whole, upper, drift, beta, spending)[len(information) - 1])
    except ValueError:
        return None  # odd looks: nothing would be left between the two bounds


def _ahead(design: Design, spending: Spending, planned: int, information: tuple[float, ...]) -> list[Look]:
    rest = [look for look in design.looks if look > (information[-1] if information else 0)]
    if not rest:
        return []
    bounds = groupsequential.bounds((*information, *rest), design.alpha, spending)
    return [
        Look(number, round(look * planned), None, float(bounds[number - 1]), {}, [], reached=False)
        for number, look in enumerate(rest, len(information) + 1)
    ]
