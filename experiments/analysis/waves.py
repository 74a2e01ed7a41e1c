"""What a report says of shares that followed the evidence."""

from collections.abc import Iterator

import numpy as np

from experiments.analysis.comparisons import Analyst
from experiments.analysis.health import Users
from experiments.design import Adapting
from experiments.report import AdaptiveContrast, AdaptiveReport, ArmValue, Interval, MetricReport, WaveReport
from experiments.sums import UserCounts
from stats import srm
from stats.errors import StatError


def told(analyst: Analyst, primary: MetricReport, users: Users) -> AdaptiveReport | None:
    """Return the history of the waves, each variant's value and its difference from control; None without waves."""
    adapting = analyst.design.adapting
    if adapting is None:
        return None
    return AdaptiveReport(
        metric=adapting.metric,
        floor=adapting.floor,
        open=round(sum(size for _, size in adapting.waves.values()), 4),
        waves=list(_waves(analyst, adapting, users)),
        arms=[_value(analyst, variant) for variant in analyst.design.variants],
        contrasts=[
            AdaptiveContrast(c.variant, c.control, c.absolute, c.p_value, c.significant, c.problem)
            for c in primary.comparisons
            if c.segment is None
        ],
    )


def _waves(analyst: Analyst, adapting: Adapting, users: Users) -> Iterator[WaveReport]:
    variants, nobody = list(analyst.design.variants), UserCounts(0, 0)
    for number, (stratum, (opened_at, size)) in enumerate(adapting.waves.items(), 1):
        shares = {variant: analyst.design.shares[stratum][variant] for variant in variants}
        observed = {variant: users.get((stratum, variant), nobody).assigned for variant in variants}
        try:
            p_value = srm.srm(np.array([list(observed.values())]), np.array([list(shares.values())])).overall.p_value
        except StatError:
            p_value = None
        yield WaveReport(number, opened_at, size, shares, observed, p_value)


def _value(analyst: Analyst, variant: str) -> ArmValue:
    measurement, design = analyst.measurement, analyst.design
    n = sum(row[variant].n for row in analyst.everyone.rows)
    try:
        mean, se = measurement.own(design.strata, variant)
        limit = analyst.horizon(design.treatments[0], design.control, None)
    except StatError as error:
        return ArmValue(variant, n, None, error.code)
    half = limit.critical(n, None) * se
    return ArmValue(variant, n, Interval(mean, mean - half, mean + half), None)
