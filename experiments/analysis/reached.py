"""Tactics that reach few: the effect on those reached, by instrument and by trigger, beside that of the assignment."""

from collections.abc import Iterator, Sequence

from scipy.special import chdtrc

from experiments.analysis.comparisons import Analyst
from experiments.analysis.vectors import Measurement, Row, combined
from experiments.report import Complier, Interval, Triggered
from experiments.sums import Measured
from stats import arms as builders
from stats import compliance, effects
from stats.arms import ArmVector
from stats.errors import Problem, StatError
from stats.moments import Moments

# A trigger that fires unequally with less than this p is moved by the treatment.
TRIGGER_ALARM = 0.001


def compliers(analyst: Analyst, received: Measured) -> Iterator[Complier]:
    """The effect per user reached because of the assignment, for each variant."""
    design = analyst.design
    measurement = Measurement(design, analyst.spec, received, analyst.until)
    column = len(received.layout.columns) - 1
    for variant in design.treatments:
        share = share_control = effect = p_value = problem = None
        try:
            strata = _full(measurement, [variant, design.control])
            if analyst.spec.kind == "ratio":
                outcome, strata = column + 1, builders.linearised(strata)
            else:
                outcome = 0
            pair = compliance.joint(strata, outcome, column, _means)
            share, share_control = (float(mean) for mean in pair.received.mean)
            limit = analyst.horizon(variant, design.control, None)
            found = compliance.complier_ratio(pair, 0, 1, limit)
            effect, p_value = Interval(found.estimate, found.lower, found.upper), found.p_value
        except StatError as error:
            problem = error.code
        yield Complier(variant, share, share_control, effect, p_value, problem)


def triggered(analyst: Analyst, fired: Measured) -> Iterator[Triggered]:
    """The effect among users for whom the trigger fired, unless the treatment moves the trigger."""
    design = analyst.design
    everyone = analyst.everyone.rows
    measurement = Measurement(design, analyst.spec, fired, analyst.until)
    rows = measurement.rows(design.strata)
    for variant in design.treatments:
        inside = [sum(row[v].n for row in rows) for v in (variant, design.control)]
        effect = p_value = balance = problem = None
        try:
            balance = _balance(rows, everyone, [variant, design.control])
            if balance < TRIGGER_ALARM:
                raise StatError(Problem.TRIGGER_UNBALANCED)
            vector = measurement.combine(rows, [variant, design.control])
            found = effects.difference(vector, 0, 1, analyst.horizon(variant, design.control, None))
            effect, p_value = Interval(found.estimate, found.lower, found.upper), found.p_value
        except StatError as error:
            problem = error.code
        yield Triggered(variant, inside[0], inside[1], effect, p_value, balance, problem)


def _balance(fired: Sequence[Row], everyone: Sequence[Row], variants: Sequence[str]) -> float:
    """p that the trigger fired for equal shares of users; within strata, whose triggers and allocation may differ."""
    statistic, df = 0.0, 0
    for inside, row in zip(fired, everyone, strict=True):
        users = [row[v].n for v in variants]
        if all(users):
            test = compliance.trigger_balance([inside[v].n for v in variants], users)
            statistic, df = statistic + test.statistic, df + test.df
    if not df:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=0)
    return float(chdtrc(df, statistic))


def _full(measurement: Measurement, variants: Sequence[str]) -> Sequence[Sequence[Moments]]:
    rows = [[row[v] for v in variants] for row in measurement.rows(measurement.design.strata)]
    full = [row for row in rows if all(arm.n >= 2 for arm in row)]
    if not full:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=0)
    return full


def _means(strata: Sequence[Sequence[Moments]], column: int) -> ArmVector:
    return combined([builders.means(arms, column) for arms in strata])
