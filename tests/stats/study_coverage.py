"""Coverage study: how often do the 95 % intervals hold the truth of a simulated population?

    python -m tests.stats.study_coverage [EXPERIMENTS]

Every experiment draws 4,000 users of its own (`stats.simulation`), with an effect and without; without one, a miss is a
false alarm. "Below" counts intervals that lie below the truth.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stats import proportions
from stats.arms import ArmVector, adjusted, linearised, means, ratios, stratified
from stats.effects import Effect, Interval, difference, relative
from stats.horizon import Fixed, Sequential
from stats.moments import Moments, merge
from stats.proportions import Conversions
from stats.simulation import Scenario, Segment, Variant, sample, truth

ALPHA = 0.05
FIXED = Fixed(ALPHA)
USERS = 4000
SEED = 20240601
ARMS = (Variant("control", touches=0), Variant("treatment", lift=0.15, value_lift=0.1))
ONE = Scenario(variants=ARMS, segments=(Segment("all", conversion=0.2, history=0.6),), spread=0.6, rho=0.5, days=14)
# Rates, allocations, effects and histories all differ, so that pooling goes wrong.
STRATA = replace(
    ONE,
    segments=(
        Segment("new", 0.5, 0.1, 0.0, (1, 1), (0.0, 0.3)),
        Segment("active", 0.3, 0.25, 0.9, (1, 4), (0.0, -0.1)),
        Segment("dormant", 0.2, 0.4, 0.5, (4, 1), (0.0, 0.1)),
    ),
)
HOMES = replace(ONE, household=3, kinship=1.0, rho=0.6)
COLUMNS = ("converted", "visits", "orders", "revenue", "orders_before", "revenue_before", "has_history")
CONVERTED, VISITS, ORDERS, REVENUE, *HISTORY = range(len(COLUMNS))

Strata = Sequence[Sequence[Moments]]
Tallies = dict[tuple[str, str], "Tally"]


@dataclass(slots=True)
class Tally:
    """Experiments whose interval held the truth, lay below it, lay above it."""

    held: int = 0
    below: int = 0
    above: int = 0

    def add(self, interval: Interval | Effect, value: float) -> None:
        self.below += interval.upper < value
        self.above += interval.lower > value
        self.held += interval.lower <= value <= interval.upper

    @property
    def runs(self) -> int:
        return self.held + self.below + self.above


@dataclass(frozen=True, slots=True)
class Estimate:
    """A way to the arm vector, and the columns whose true mean (or ratio of means) it estimates."""

    vector: Callable[[Strata], ArmVector]
    columns: tuple[str, ...]

    def expected(self, scenario: Scenario) -> tuple[float, float]:
        """The true difference and lift."""
        top, *bottom = (scenario.shares @ truth(scenario)[column] for column in self.columns)
        control, treated = top / bottom[0] if bottom else top
        return float(treated - control), float(treated / control - 1)


def plain(column: int) -> Callable[[Strata], ArmVector]:
    return lambda strata: stratified([means(s, column) for s in strata])


def cuped(column: int) -> Callable[[Strata], ArmVector]:
    return lambda strata: stratified([adjusted(s, column, HISTORY) for s in strata])


ESTIMATES = {
    "conversion": Estimate(plain(CONVERTED), ("converted",)),
    "revenue": Estimate(plain(REVENUE), ("revenue",)),
    "revenue, 3 covariates": Estimate(cuped(REVENUE), ("revenue",)),
    "value of an order": Estimate(lambda s: plain(-1)(linearised(s, REVENUE, ORDERS)), ("revenue", "orders")),
    "orders a visit": Estimate(lambda s: plain(-1)(linearised(s, ORDERS, VISITS)), ("orders", "visits")),
    "orders a visit, 3 covariates": Estimate(lambda s: cuped(-1)(linearised(s, ORDERS, VISITS)), ("orders", "visits")),
}


def without_effect(scenario: Scenario) -> Scenario:
    arms = tuple(replace(variant, lift=0.0, value_lift=0.0) for variant in scenario.variants)
    return replace(scenario, variants=arms, segments=tuple(replace(s, lifts=()) for s in scenario.segments))


def experiments(scenario: Scenario, number: int, rng: np.random.Generator, by: str = "segment") -> Iterator[Strata]:
    """Moments per value of the column `by`, and arm; rows are the totals of those who were assigned together."""
    size = scenario.household
    units = USERS // size
    levels = scenario.days if by == "day" else len(scenario.segments)
    for first in range(0, number, 50):
        shape = (min(50, number - first), levels, 2)
        drawn = sample(scenario, shape[0] * units * size, rng)
        rows = np.column_stack([drawn[name] for name in COLUMNS]).astype(np.float64)
        rows = rows.reshape(-1, size, len(COLUMNS)).sum(axis=1)
        place = (np.repeat(np.arange(shape[0]), units), drawn[by][::size], drawn["variant"][::size])
        group = np.ravel_multi_index(place, shape)
        ends = np.cumsum(np.bincount(group, minlength=int(np.prod(shape))))[:-1]
        parts = iter(np.split(rows[np.argsort(group, kind="stable")], ends))
        for _ in range(shape[0]):
            yield [[Moments.from_rows(next(parts)) for _ in range(2)] for _ in range(levels)]


def pooled(strata: Strata) -> list[Moments]:
    return [merge(arm) for arm in zip(*strata, strict=True)]


def worlds(name: str, scenario: Scenario) -> Iterator[tuple[str, Scenario]]:
    yield name, scenario
    yield f"{name}, no effect", without_effect(scenario)


def one_look(number: int, seed: int = SEED) -> Tallies:
    """(population, method) -> tally of the fixed-horizon intervals."""
    tallies: Tallies = defaultdict(Tally)
    rng = np.random.default_rng(seed)
    for name, world in (*worlds("one segment", ONE), *worlds("three strata", STRATA)):
        true = {method: estimate.expected(world) for method, estimate in ESTIMATES.items()}
        for strata in experiments(world, number, rng):
            for method, estimate in ESTIMATES.items():
                arms = estimate.vector(strata)
                tallies[name, method].add(difference(arms, 1, 0, FIXED), true[method][0])
                tallies[name, f"{method}, lift"].add(relative(arms, 1, 0, FIXED), true[method][1])
            apart, lift = true["conversion"]
            if len(strata) > 1:
                naive = difference(means(pooled(strata), CONVERTED), 1, 0, FIXED)
                tallies[name, "conversion, strata pooled (wrong)"].add(naive, apart)
            else:
                control, treated = (Conversions(round(arm.mean[CONVERTED] * arm.n), arm.n) for arm in strata[0])
                tallies[name, "conversion, score"].add(proportions.difference(treated, control, ALPHA), apart)
                tallies[name, "conversion, score, lift"].add(proportions.relative(treated, control, ALPHA), lift)
    return tallies


def households(number: int, seed: int = SEED) -> Tallies:
    """Homes of three who are alike, assigned together: revenue per user with the home as the unit."""
    tallies: Tallies = defaultdict(Tally)
    true, _ = Estimate(plain(REVENUE), ("revenue",)).expected(HOMES)
    for (homes,) in experiments(HOMES, number, np.random.default_rng(seed)):
        size = HOMES.household
        users = [Moments(a.n, np.append(a.mean, size), np.pad(a.cross, (0, 1))) for a in homes]
        tallies["households", "revenue"].add(difference(ratios(users, REVENUE, -1), 1, 0, FIXED), true)
    return tallies


def daily_looks(number: int, seed: int = SEED) -> Tallies:
    """A look after each of 14 days: an experiment counts by the first interval that missed the truth, if any did."""
    tallies: Tallies = defaultdict(Tally)
    rng = np.random.default_rng(seed)
    horizons = {"sequence": Sequential.tuned(ALPHA, USERS), "one-look interval (wrong)": FIXED}
    watched = {name: e for name, e in ESTIMATES.items() if name not in ("value of an order", "orders a visit")}
    for name, world in worlds("daily looks", ONE):
        true = {method: estimate.expected(world)[0] for method, estimate in watched.items()}
        for days in experiments(world, number, rng, by="day"):
            arms = [Moments.zero(len(COLUMNS))] * 2
            shown: dict[str, Effect] = {}
            for day in days:
                arms = [total + new for total, new in zip(arms, day, strict=True)]
                for method, estimate in watched.items():
                    vector = estimate.vector([arms])
                    for rule, horizon in horizons.items():
                        key = f"{method}, {rule}"
                        if key not in shown or shown[key].lower <= true[method] <= shown[key].upper:
                            shown[key] = difference(vector, 1, 0, horizon)
            for method in watched:
                for rule in horizons:
                    tallies[name, f"{method}, {rule}"].add(shown[f"{method}, {rule}"], true[method])
    return tallies


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    sys.stdout.write(f"{number} experiments of {USERS} users, alpha {ALPHA}, seed {SEED}: held, below, above\n")
    for (world, method), tally in {**one_look(number), **households(number), **daily_looks(number // 2)}.items():
        shares = " ".join(f"{count / tally.runs:6.1%}" for count in (tally.held, tally.below, tally.above))
        sys.stdout.write(f"{world:24} {method:52} {shares}\n")


if __name__ == "__main__":
    main()
