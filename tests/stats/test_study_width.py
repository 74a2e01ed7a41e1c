import math
from typing import Any

import pytest

from stats.effects import difference
from stats.horizon import Sequential
from tests.stats.reference import load
from tests.stats.study_width import RHOS, against_gbstats, arms_of, with_covariate

CASES = load("width.json")["cases"]
AT_PLAN = [case for case in CASES if case["users"] == case["tuned"]]


def label(case: dict[str, Any]) -> str:
    return f"{case['alpha']}-{case['users']}of{case['tuned']}"


@pytest.mark.parametrize("case", CASES, ids=label)
def test_interval_equals_gbstats_at_its_approximate_tuning(case: dict[str, Any]) -> None:
    """gbstats takes rho^2 = (-2 log a + log(1 - 2 log a)) / n* (Waudby-Smith et al., eq. 161)."""
    log_alpha = math.log(case["alpha"])
    rho_squared = (-2 * log_alpha + math.log1p(-2 * log_alpha)) / case["tuned"]
    effect = difference(arms_of(case), 1, 0, Sequential(case["alpha"], rho_squared))
    assert (effect.lower, effect.upper) == pytest.approx((case["lower"], case["upper"]), rel=1e-12)


@pytest.mark.parametrize("case", AT_PLAN, ids=label)
def test_at_the_planned_size_no_wider_than_gbstats(case: dict[str, Any]) -> None:
    assert 0.9999 < against_gbstats(case, case["tuned"]) < 1


@pytest.mark.parametrize("case", CASES, ids=label)
def test_tuned_to_the_plan_no_wider_than_gbstats_tuned_to_anything(case: dict[str, Any]) -> None:
    assert against_gbstats(case, case["users"]) < 1


@pytest.mark.parametrize("rho", RHOS)
def test_a_covariate_narrows_by_its_correlation(rho: float) -> None:
    assert with_covariate(rho) == pytest.approx(math.sqrt(1 - rho**2), abs=0.01)
