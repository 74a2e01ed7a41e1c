from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from experiments.design import Design
from experiments.fields import Direction, Role
from experiments.report import Comparison
from stats.errors import Problem
from stats.posterior import Normal
from tests.experiments.analysis.figures import THREE, Floats, converted, limits, money, near, only, two
from tests.experiments.rows import build, design, measured, spec

PRIOR = Normal(0.05, 0.1)


def believing(shares: Any = None, **fields: Any) -> Design:
    return design(shares, method="bayes", correction="none", **fields)


def read(plan: Design, t: Floats, c: Floats, kind: str = "mean", **fields: Any) -> Comparison:
    return only(build(plan, (spec(kind=kind, **fields), measured(two(t, c), kind))))


def test_conversions_equal_two_beta_posteriors() -> None:
    found = read(believing(), converted(90, 23), converted(80, 12), "conversion")
    t, c = scipy.stats.beta(24, 68), scipy.stats.beta(13, 69)
    better, _ = scipy.integrate.quad(lambda x: t.pdf(x) * c.cdf(x), 0, 1)
    loss, _ = scipy.integrate.quad(lambda x: t.cdf(x) * c.sf(x), 0, 1)
    assert found.probability_better == near(better, rel=1e-6)
    assert found.expected_loss == near(loss, rel=1e-6)
    assert limits(found.absolute)[0] == near(24 / 92 - 13 / 82)
    for limit, share in zip(limits(found.absolute)[1:], (0.025, 0.975), strict=True):
        below, _ = scipy.integrate.quad(lambda x, d=limit: t.cdf(x + d) * c.pdf(x), 0, 1)
        assert below == near(share, rel=1e-4)
    assert found.p_value == near(2 * (1 - better), rel=1e-6)


def test_means_without_a_prior_equal_the_normal_law() -> None:
    t, c = money(1, 300, 0.5), money(2, 250)
    found = read(believing(), t, c)
    posterior = scipy.stats.norm(t.mean() - c.mean(), np.sqrt(t.var(ddof=1) / 300 + c.var(ddof=1) / 250))
    assert limits(found.absolute) == near(posterior.mean(), *posterior.interval(0.95))
    assert (found.probability_better, found.p_value) == near(posterior.sf(0), 2 * posterior.cdf(0))


def test_a_prior_of_the_lift_draws_the_effect_by_precision() -> None:
    t, c = money(1, 300, 0.5), money(2, 250)
    found = read(believing(prior=PRIOR), t, c)
    base, variance = c.mean(), t.var(ddof=1) / 300 + c.var(ddof=1) / 250
    precision = 1 / variance + 1 / (0.1 * base) ** 2
    mean = ((t.mean() - base) / variance + 0.05 * base / (0.1 * base) ** 2) / precision
    posterior = scipy.stats.norm(mean, precision**-0.5)
    assert limits(found.absolute) == near(mean, *posterior.interval(0.95))
    assert found.probability_better == near(posterior.sf(0))
    assert found.se == near(variance**0.5)


def test_a_lift_is_drawn_in_its_own_unit() -> None:
    t, c = money(5, 400, 6.0), money(6, 300, 5.0)
    found = read(believing(prior=PRIOR), t, c)
    ratio = t.mean() / c.mean()
    variance = (t.var(ddof=1) / 400 + ratio**2 * c.var(ddof=1) / 300) / c.mean() ** 2
    precision = 1 / variance + 1 / 0.1**2
    mean = ((ratio - 1) / variance + 0.05 / 0.1**2) / precision
    assert limits(found.relative) == near(mean, *scipy.stats.norm(mean, precision**-0.5).interval(0.95))
    assert found.relative_interval == "posterior"


def test_a_vague_prior_is_none() -> None:
    t, c = money(1, 300, 0.5), money(2, 250)
    one, other = read(believing(prior=Normal(0.0, 1e6)), t, c), read(believing(), t, c)
    assert limits(one.absolute) == near(*limits(other.absolute), rel=1e-6)
    assert (one.probability_better, one.expected_loss) == near(other.probability_better, other.expected_loss, rel=1e-6)


@pytest.mark.parametrize("prior", [None, PRIOR])
@pytest.mark.parametrize("kind", ["mean", "conversion"])
def test_less_is_better_turns_belief_round_and_not_the_interval(kind: str, prior: Normal | None) -> None:
    rows = (converted(90, 23), converted(80, 12)) if kind == "conversion" else (money(1, 90), money(2, 80))
    up, down = (read(believing(prior=prior), *rows, kind, direction=d) for d in (Direction.up, Direction.down))
    assert (up.absolute, up.p_value) == (down.absolute, down.p_value)
    assert up.probability_better == near(1 - (down.probability_better or 0))
    assert (down.expected_loss or 0) - (up.expected_loss or 0) == near(limits(up.absolute)[0], rel=1e-6)


def test_a_guardrail_is_the_posterior_chance_of_being_worse_than_its_margin() -> None:
    t, c = money(1, 300, -0.5), money(2, 250)
    plan = believing(prior=PRIOR)
    guard = spec("g", role=Role.guardrail, margin=2.0), measured(two(t, c))
    found = only(build(plan, (spec(), measured(two(t, c))), guard), metric=1)
    estimate, lower, upper = limits(found.absolute)
    posterior = scipy.stats.norm(estimate, (upper - lower) / 2 / scipy.stats.norm.isf(0.025))
    assert found.noninferiority is not None
    assert found.noninferiority.p_value == near(posterior.cdf(-2.0))


def test_posteriors_are_not_corrected() -> None:
    rows = {(None, v): money(i, 200, 0.4 * i) for i, v in enumerate("ctu")}
    for comparison in build(believing(THREE), (spec(), measured(rows))).metrics[0].comparisons:
        assert comparison.p_adjusted == comparison.p_value
        assert comparison.adjusted == comparison.absolute


def test_a_prior_of_a_lift_says_nothing_about_a_control_of_zero() -> None:
    found = read(believing(prior=PRIOR), money(1, 50), np.zeros(50))
    assert found.problem == Problem.LIFT_NOT_IDENTIFIED
