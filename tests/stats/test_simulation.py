"""The simulated population against its truth; coverage by seeded simulation, inside the binomial 99.9 % interval."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from stats.arms import ArmVector, adjusted, means, stratified
from stats.effects import difference, relative
from stats.horizon import Fixed
from stats.moments import Moments
from stats.simulation import Columns, Scenario, Segment, Variant, factorial, sample, truth
from stats.srm import srm

FIXED = Fixed(0.05)
USERS = 400_000
RICH = Scenario(
    variants=(
        Variant("control", touches=0),
        Variant("weekly", lift=0.2, value_lift=0.1),
        Variant("often", touches=4, value_lift=-0.2),
    ),
    segments=(
        Segment("new", 3, 0.06, 0.0, (2, 1, 1)),
        Segment("active", 2, 0.2, 0.9, (1, 1, 8), (0.0, 0.5, -0.1)),
        Segment("dormant", 1, 0.01, 1.0),
    ),
    touch_gain=0.3,
    unsubscribe=0.1,
    reach=0.7,
    warmth=2.0,
)


def drawn(scenario: Scenario, users: int = USERS, seed: int = 14) -> Columns:
    return sample(scenario, users, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def rich() -> Columns:
    return drawn(RICH, 3 * USERS)


@pytest.mark.parametrize("column", sorted(truth(RICH)))
def test_sample_means_meet_the_truth_in_every_segment_and_arm(rich: Columns, column: str) -> None:
    expected = truth(RICH)[column]
    for segment, arm in np.ndindex(expected.shape):
        values = rich[column][(rich["segment"] == segment) & (rich["variant"] == arm)].astype(float)
        se = values.std() / math.sqrt(values.size)
        assert abs(values.mean() - expected[segment, arm]) <= 4 * se, (segment, arm)


@pytest.mark.parametrize(("rate", "rho", "spread"), [(0.03, 0.3, 0.8), (0.4, 0.6, 0.5), (0.1, 0.05, 1.2)])
def test_revenue_and_its_correlation_equal_the_integral_over_tastes(rate: float, rho: float, spread: float) -> None:
    scenario = Scenario(segments=(Segment("all", conversion=rate),), rho=rho, spread=spread, price=1.0, repeat=0.7)
    cut = scipy.stats.norm.ppf(rate)

    def over_tastes(value: Callable[[float], float]) -> float:
        return float(scipy.integrate.quad(lambda t: value(t) * scipy.stats.norm.pdf(t), -9, 9, epsabs=1e-12)[0])

    def moments(loading: float) -> tuple[float, float, float]:
        own = math.sqrt(1 - loading**2)

        def of(power: int, orders: float, t: float) -> float:
            sd = power * spread * own
            value = math.exp(power * (spread * loading * t - spread**2 / 2) + sd**2 / 2)
            return float(orders * scipy.special.ndtr((cut + loading * t) / own) * value)

        first = over_tastes(lambda t: of(1, 1.7, t))
        return first, over_tastes(lambda t: of(2, 0.7 + 1.7**2, t)), over_tastes(lambda t: of(1, 1.7, t) ** 2)

    def excess(loading: float) -> float:
        first, second, both = moments(loading)
        return (both - first**2) / (second - first**2) - rho

    loading = scipy.optimize.brentq(excess, 0.0, 0.999, xtol=1e-12)
    assert truth(scenario)["revenue"][0, 0] == pytest.approx(moments(loading)[0], rel=1e-7)


@pytest.mark.parametrize("rho", [0.05, 0.3, 0.6])
def test_history_has_the_correlation_asked_for(rho: float) -> None:
    """Over segments and users who can and cannot be reached, all of them with a history."""
    segments = tuple(replace(segment, history=1.0) for segment in RICH.segments)
    columns = drawn(replace(RICH, rho=rho, segments=segments, variants=(Variant("control", touches=0),) * 3), 2 * USERS)
    assert np.corrcoef(columns["revenue"], columns["revenue_before"])[0, 1] == pytest.approx(rho, abs=0.015)


def test_without_correlation_the_past_says_nothing() -> None:
    columns = drawn(Scenario(rho=0.0))
    assert abs(np.corrcoef(columns["revenue"], columns["revenue_before"])[0, 1]) < 0.006


def test_missing_history_is_zero_and_known_to_be_missing(rich: Columns) -> None:
    known = rich["has_history"]
    assert not rich["revenue_before"][~known].any()
    assert not rich["orders_before"][~known].any()
    for index, segment in enumerate(RICH.segments):
        assert known[rich["segment"] == index].mean() == pytest.approx(segment.history, abs=0.005)


def test_users_fall_into_segments_and_arms_by_their_shares(rich: Columns) -> None:
    counts = np.zeros((3, 3), dtype=np.int64)
    np.add.at(counts, (rich["segment"], rich["variant"]), 1)
    assert srm(counts.sum(axis=1)[None], RICH.shares[None]).overall.p_value > 0.001
    ratio = srm(counts, [[2, 1, 1], [1, 1, 8], [1, 1, 1]])
    assert ratio.overall.p_value > 0.001
    assert all(stratum is not None and stratum.p_value > 0.001 for stratum in ratio.strata)


def test_conversions_come_early_and_are_censored_by_the_end() -> None:
    scenario = Scenario(segments=(Segment("all", conversion=0.4),), days=28, window=7.0)
    columns = drawn(scenario)
    day, converted, happened, duration = (columns[c] for c in ("day", "converted", "happened", "duration"))
    assert ((duration > 0) & (duration <= 28 - day)).all()
    assert not (happened & ~converted).any()
    closed = day < 20
    assert (happened[closed] == converted[closed]).all()
    for days in (0.5, 2.0, 7.0):
        by_then = (happened & (duration <= days))[closed].mean()
        assert by_then == pytest.approx(0.4 * math.sqrt(days / 7), abs=0.004)
    assert happened[~closed].mean() < converted[~closed].mean() - 0.01


def test_tactics_reach_some_of_the_treated_and_change_only_those(rich: Columns) -> None:
    expected = truth(RICH)
    received, converted = rich["received"], rich["converted"]
    active = rich["segment"] == 1
    assert not received[rich["variant"] == 0].any()
    assert not rich["unsubscribed"][~received].any()
    # The unreached convert 0.2 / 1.7 of the time in every arm: the reached look better than the tactic made them.
    for arm in range(3):
        cold = converted[active & (rich["variant"] == arm) & ~received]
        assert arm == 0 or cold.mean() == pytest.approx(0.2 / 1.7, abs=0.006)
    effect = (expected["converted"][1, 1] - expected["converted"][1, 0]) / expected["received"][1, 1]
    assert effect == pytest.approx(0.4 / 1.7 * (0.5 + 0.3 / 3))
    as_treated = converted[active & received & (rich["variant"] == 1)].mean() - 0.2
    assert as_treated > effect + 0.02


def test_more_touches_give_ever_less_and_cost_ever_more_users() -> None:
    scenario = Scenario(
        variants=tuple(Variant(str(f), touches=f) for f in (0, 1, 2, 3, 4)), touch_gain=0.5, unsubscribe=0.03
    )
    gains = np.diff(truth(scenario)["converted"][0])
    assert (gains > 0).all()
    assert (np.diff(gains) < 0).all()
    assert truth(scenario)["unsubscribed"][0] == pytest.approx(1 - 0.97 ** np.arange(5))


def test_household_members_share_arm_segment_and_taste() -> None:
    scenario = replace(
        RICH, household=2, kinship=1.0, reach=1.0, rho=0.5, variants=(Variant("control", touches=0),) * 3
    )
    columns = drawn(scenario)
    for name in ("household", "segment", "variant"):
        assert (columns[name][::2] == columns[name][1::2]).all()
    # Members who share the whole taste are as alike as one user is in two periods.
    between = np.corrcoef(columns["revenue"][::2], columns["revenue"][1::2])[0, 1]
    assert between == pytest.approx(0.5, abs=0.02)
    assert drawn(replace(scenario, kinship=0.4))["visits"].mean() == pytest.approx(3.0, abs=0.015)
    alone = drawn(replace(scenario, household=1))
    assert abs(np.corrcoef(alone["revenue"][::2], alone["revenue"][1::2])[0, 1]) < 0.01


def test_factorial_crosses_the_levels_and_adds_their_lifts() -> None:
    factors = {"copy": {"plain": 0.0, "warm": 0.1}, "offer": {"none": 0.0, "five": 0.2, "ten": 0.3}}
    cells = factorial(factors, {("warm", "ten"): -0.15})
    assert [cell.name for cell in cells] == [f"{c}-{o}" for c in factors["copy"] for o in factors["offer"]]
    assert [cell.lift for cell in cells] == pytest.approx([0, 0.2, 0.3, 0.1, 0.3, 0.25])
    assert dict(cells[-1].levels) == {"copy": "warm", "offer": "ten"}


def test_the_same_seed_gives_the_same_users_and_no_user_gives_none() -> None:
    one, other = drawn(RICH, 1000), drawn(RICH, 1000)
    assert all((one[name] == other[name]).all() for name in one)
    assert {len(column) for column in one.values()} == {1000}
    assert all(np.isfinite(column.astype(float)).all() for column in one.values())
    assert {len(column) for column in drawn(RICH, 0).values()} == {0}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"rho": 1.0}, "rho"),
        ({"rho": math.nan}, "rho"),
        ({"reach": 0.0}, "reach"),
        ({"visits": 0.5}, "visits"),
        ({"household": 0}, "household"),
        ({"segments": (Segment("all", history=1.1),)}, "history"),
        ({"unsubscribe": -0.1}, "unsubscribe"),
        ({"kinship": 2.0}, "kinship"),
        ({"spread": -1.0}, "spread"),
        ({"days": 0}, "days"),
        ({"segments": (Segment("all", lifts=(0.0,)),)}, "one entry per variant"),
        ({"segments": (Segment("all", allocation=(1, 1, 1)),)}, "one entry per variant"),
        ({"segments": (Segment("all", conversion=0.0),)}, "rates"),
        ({"segments": (Segment("all", conversion=0.6, lifts=(0.0, 0.7)),)}, "rates"),
        ({"rho": 0.99}, "cannot be reached"),
        ({"rho": 0.0, "segments": (Segment("a"), Segment("b", conversion=0.5))}, "cannot be reached"),
    ],
)
def test_impossible_populations_are_refused(change: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        drawn(replace(Scenario(), **change), 10)


def assert_nominal(hits: int, runs: int, level: float = 0.95) -> None:
    low, high = scipy.stats.binom.interval(0.999, runs, level)
    assert low <= hits <= high, f"{hits} of {runs}"


def test_fieller_covers_the_lift_and_misses_on_both_sides_alike() -> None:
    """Control mean of ten standard errors: there the delta method misses 0.8 % and 4.1 % on its two sides."""
    rng = np.random.default_rng(11)
    se, truth, runs = np.array([0.1, 0.12]), np.array([1.0, 1.3]), 10_000
    below = above = 0
    for mean in truth + rng.normal(size=(runs, 2)) * se:
        lift = relative(ArmVector(np.array([500, 500]), mean, np.diag(se**2), np.zeros(2)), 1, 0, FIXED)
        below += lift.upper < 0.3
        above += lift.lower > 0.3
    assert_nominal(below, runs, 0.025)
    assert_nominal(above, runs, 0.025)


def test_adjusted_difference_covers_the_population_effect() -> None:
    """20/80 split, 600 users, slopes 1 and 2.5: without the sampling of the covariate mean coverage is 92 %."""
    rng = np.random.default_rng(12)
    runs, hits, hits_without = 3000, 0, 0
    for _ in range(runs):
        parts = []
        for slope, n in ((1.0, 120), (2.5, 480)):
            x = rng.normal(size=n)
            parts.append(Moments.from_rows(np.column_stack([0.5 * (slope > 1) + slope * x + rng.normal(size=n), x])))
        arms = adjusted(parts, 0, [1])
        effect = difference(arms, 1, 0, FIXED)
        hits += effect.lower <= 0.5 <= effect.upper
        se = float(np.sqrt(np.sqrt(arms.satterthwaite * [118, 478]).sum()))
        hits_without += abs(effect.estimate - 0.5) <= 1.96 * se
    assert_nominal(hits, runs)
    assert hits_without / runs < 0.935


def test_stratified_difference_covers_the_population_effect() -> None:
    """Strata of random size, own split, own effect (0, 3 and 0.5)."""
    rng = np.random.default_rng(13)
    size, effects, treated = np.array([0.5, 0.2, 0.3]), np.array([0.0, 3.0, 0.5]), (0.5, 0.9, 0.3)
    truth = float(size @ effects)
    runs, hits, hits_without = 3000, 0, 0
    for _ in range(runs):
        strata = []
        for n, effect, share in zip(rng.multinomial(500, size), effects, treated, strict=True):
            n_t = round(n * share)
            control = rng.normal(effect, 1, size=(n - n_t, 1))
            strata.append(means([Moments.from_rows(control), Moments.from_rows(rng.normal(2 * effect, 1, (n_t, 1)))]))
        result = difference(stratified(strata), 1, 0, FIXED)
        hits += result.lower <= truth <= result.upper
        weights = np.array([s.n.sum() for s in strata]) / 500
        within = float(weights**2 @ [np.trace(s.covariance) for s in strata])
        hits_without += abs(result.estimate - truth) <= 1.96 * np.sqrt(within)
    assert_nominal(hits, runs)
    assert hits_without / runs < 0.93
