from dataclasses import replace

import numpy as np
import pytest

from experiments.uplift.choose import choose, policy
from experiments.uplift.crossfit import Crossfit
from experiments.uplift.frame import Frame
from stats import uplift
from tests.experiments.uplift.study_usable import made_up, usable_share


def test_a_policy_takes_what_is_worth_its_cost() -> None:
    effects = np.array([[1.0, 2.0], [1.0, 0.2], [-1.0, -2.0], [0.4, 0.9]])
    assert policy(effects, np.zeros(3)).tolist() == [2, 1, 0, 2]
    assert policy(effects, np.array([0.0, 0.5, 1.6])).tolist() == [1, 1, 0, 0]
    assert policy(effects, np.array([0.5, 0.0, 0.0])).tolist() == [2, 1, 0, 2]


def with_lists(found: Crossfit, **lists: np.ndarray) -> Crossfit:
    forward = {name: np.where((found.fold < found.first)[:, None], np.nan, list_) for name, list_ in lists.items()}
    return replace(found, effects=lists, forward=forward)


def test_the_learner_that_knows_is_chosen() -> None:
    found, truth = made_up(np.random.default_rng(1), strength=1.0)
    noise = np.random.default_rng(2).normal(size=truth.shape)
    chosen = choose(with_lists(found, s=noise, t=truth, x=-truth), alpha=0.05, rng=np.random.default_rng(1))
    assert chosen.learner == "t"
    assert chosen.usable
    assert chosen.qini["x"].estimate < 0 < chosen.qini["t"].lower
    for name, least in (("s", 0.05), ("x", 0.9)):
        assert min(test.p_value for test in chosen.tests if test.learner == name) > least


def test_with_two_variants_the_area_is_that_of_stats() -> None:
    found, truth = made_up(np.random.default_rng(3), strength=0.5)
    area = choose(with_lists(found, t=truth), alpha=0.05, rng=np.random.default_rng(1)).qini["t"]
    expected = uplift.rate(truth[:, 0], found.scores[:, 1] - found.scores[:, 0], "qini", found.fold)
    assert (area.estimate, area.se) == pytest.approx((expected.estimate, expected.se), rel=1e-9)


def test_a_dominated_variant_does_not_pass_for_difference_between_users() -> None:
    """Variant 2 helps all alike and variant 1 nobody: a list of chance names the worse one now and then."""
    found, truth = made_up(np.random.default_rng(4), strength=0.0, arms=3, lift=(0.0, 1.0))
    noise = np.random.default_rng(5).normal(size=truth.shape)
    chosen = choose(with_lists(found, s=noise), alpha=0.05, rng=np.random.default_rng(1))
    assert not chosen.usable
    assert chosen.qini["s"].upper < 0


def test_a_list_without_an_order_is_no_better_than_chance() -> None:
    found, truth = made_up(np.random.default_rng(6), strength=0.0)
    chosen = choose(with_lists(found, s=np.ones_like(truth)), alpha=0.05, rng=np.random.default_rng(1))
    assert not chosen.usable
    assert chosen.p_value > 0.3
    assert chosen.qini["s"].estimate == pytest.approx(0, abs=1e-12)


def test_costs_change_what_is_best() -> None:
    found, truth = made_up(np.random.default_rng(7), strength=1.0, arms=3)
    frame: Frame = replace(found.frame, costs=np.array([0.0, 100.0, 0.0]))
    dear = with_lists(replace(found, frame=frame), t=truth)
    assert not (policy(truth, frame.costs) == 1).any()
    rng = np.random.default_rng(1)
    assert choose(dear, alpha=0.05, rng=rng).usable


def test_noise_is_rarely_called_usable() -> None:
    """A few runs of the study: at 5 % each, ten or more of sixty come once in 1,000 times."""
    assert usable_share(60, users=600, seed=11) < 10 / 60
