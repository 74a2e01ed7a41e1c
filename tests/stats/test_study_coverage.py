import pytest
import scipy.stats

from tests.stats.study_coverage import ALPHA, ESTIMATES, Tallies, daily_looks, households, one_look

pytestmark = pytest.mark.study
EXPERIMENTS, WATCHED = 2000, 500
POPULATIONS = [f"{name}{suffix}" for name in ("one segment", "three strata") for suffix in ("", ", no effect")]
METHODS = [
    *((population, method + kind) for population in POPULATIONS for method in ESTIMATES for kind in ("", ", lift")),
    *((population, f"conversion, score{kind}") for population in POPULATIONS[:2] for kind in ("", ", lift")),
    ("households", "revenue"),
]
DAILY = [f"daily looks{suffix}" for suffix in ("", ", no effect")]


@pytest.fixture(scope="module")
def tallies() -> Tallies:
    return one_look(EXPERIMENTS) | households(EXPERIMENTS)


@pytest.fixture(scope="module")
def watched() -> Tallies:
    return daily_looks(WATCHED)


@pytest.mark.parametrize("method", METHODS, ids=": ".join)
def test_one_look_holds_the_truth_as_often_as_promised(tallies: Tallies, method: tuple[str, str]) -> None:
    tally = tallies[method]
    low, high = scipy.stats.binom.interval(0.99, EXPERIMENTS, 1 - ALPHA)
    assert low <= tally.held <= high, tally


@pytest.mark.parametrize("method", METHODS, ids=": ".join)
def test_one_look_misses_on_both_sides_alike(tallies: Tallies, method: tuple[str, str]) -> None:
    tally = tallies[method]
    low, high = scipy.stats.binom.interval(0.999, EXPERIMENTS, ALPHA / 2)
    assert low <= tally.below <= high, tally
    assert low <= tally.above <= high, tally


def test_nothing_else_was_tallied(tallies: Tallies) -> None:
    assert {name for name in tallies if "wrong" not in name[1]} == set(METHODS)
    assert all(tally.runs == EXPERIMENTS for tally in tallies.values())


@pytest.mark.parametrize("population", POPULATIONS[2:])
def test_pooling_strata_of_unequal_shares_does_not(tallies: Tallies, population: str) -> None:
    assert tallies[population, "conversion, strata pooled (wrong)"].held < EXPERIMENTS / 2


@pytest.mark.parametrize("population", DAILY)
def test_the_sequence_holds_the_truth_on_every_day(watched: Tallies, population: str) -> None:
    held = {m: t.held for (p, m), t in watched.items() if p == population and m.endswith("sequence")}
    assert len(held) == 4
    assert all(count >= (1 - ALPHA) * WATCHED for count in held.values()), held


@pytest.mark.parametrize("population", DAILY)
def test_intervals_for_one_look_do_not(watched: Tallies, population: str) -> None:
    held = {m: t.held for (p, m), t in watched.items() if p == population and "wrong" in m}
    assert len(held) == 4
    assert all(count < 0.85 * WATCHED for count in held.values()), held
