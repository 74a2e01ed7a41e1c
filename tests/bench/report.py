"""The time of one whole report from ready sums: 10 metrics, 4 variants, 20 segments with allocations of their own.

    python -m tests.bench.report [--days D] [--repeats R] [--profile]

4 conversions, 4 means (2 with covariates), 2 ratios; the bar is 50 ms of CPU. `--days` tells the sums of each day of
exposure apart, which gives the primary metric a timeline. `--profile` lists the functions that take the time.
"""

import argparse
import cProfile
import json
import pstats
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments import analysis
from experiments.analysis import Data
from experiments.design import Design, MetricSpec
from experiments.fields import Direction, Role
from experiments.sums import Cell, Column, Layout, Measured, Sums, UserCounts
from stats.simulation import Columns, Scenario, Segment, Variant, sample

BAR_MS = 50.0
SEGMENTS, USERS = 20, 400_000
START = datetime(2024, 5, 1, tzinfo=UTC)
VARIANTS = ("control", "a", "b", "c")
ALLOCATIONS = ((1.0, 1.0, 1.0, 1.0), (3.0, 1.0, 1.0, 1.0), (1.0, 1.0, 2.0, 4.0))
SCENARIO = Scenario(
    variants=(Variant("control", touches=0), Variant("a", 0.1), Variant("b", -0.05), Variant("c", 0.2, touches=3)),
    segments=tuple(
        Segment(f"s{i:02}", 1 + i % 4, 0.04 + 0.01 * (i % 10), 0.8, ALLOCATIONS[i % len(ALLOCATIONS)])
        for i in range(SEGMENTS)
    ),
    unsubscribe=0.01,
)
# name: kind, outcome (and denominator), covariates
METRICS: dict[str, tuple[Any, tuple[str, ...], tuple[str, ...]]] = {
    "buyers": ("conversion", ("converted",), ()),
    "revenue": ("mean", ("revenue",), ()),
    "revenue_adjusted": ("mean", ("revenue",), ("revenue_before", "has_history")),
    "orders": ("mean", ("orders",), ()),
    "orders_adjusted": ("mean", ("orders",), ("orders_before", "has_history")),
    "order_value": ("ratio", ("revenue", "orders"), ()),
    "orders_a_visit": ("ratio", ("orders", "visits"), ()),
    "unsubscribed": ("conversion", ("unsubscribed",), ()),
    "early_buyers": ("conversion", ("happened",), ()),
    "reached": ("conversion", ("received",), ()),
}
MONEY = ("revenue", "revenue_before")


def sums(columns: Columns, names: tuple[str, ...], days: int, *, binary: bool, covariates: int) -> Measured:
    """Exact sums of each (segment, variant, day), money in cents."""
    scales = [100 if name in MONEY else 1 for name in names]
    whole = [np.round(columns[name] * scale).astype(np.int64) for name, scale in zip(names, scales, strict=True)]
    group = np.ravel_multi_index(
        (columns["segment"], columns["variant"], columns["day"] % days), (SEGMENTS, len(VARIANTS), days)
    )
    order = np.argsort(group, kind="stable")
    present, starts, counts = np.unique(group[order], return_index=True, return_counts=True)

    def total(values: npt.NDArray[np.int64]) -> list[int]:
        return np.add.reduceat(values[order], starts).tolist()

    by_column = [total(values) for values in whole]
    by_pair = [total(a * b) for a, b in combinations_with_replacement(whole, 2)]
    cells = {}
    for index, (place, n) in enumerate(zip(present, counts, strict=True)):
        segment, variant, day = np.unravel_index(place, (SEGMENTS, len(VARIANTS), days))
        cell = Cell(
            SCENARIO.segments[segment].name,
            VARIANTS[variant],
            (START + timedelta(days=int(day))).date() if days > 1 else None,
        )
        cells[cell] = Sums(int(n), tuple(c[index] for c in by_column), tuple(p[index] for p in by_pair))
    layout = tuple(Column(name, scale, binary) for name, scale in zip(names, scales, strict=True))
    return Measured(Layout(layout, covariates), cells)


def make(days: int) -> tuple[Design, Data]:
    """A plan with all of it, and the sums of one simulated experiment."""
    columns = sample(SCENARIO, USERS, np.random.default_rng(20240501))
    metrics = []
    for index, (key, (kind, outcome, covariates)) in enumerate(METRICS.items()):
        guard = key == "unsubscribed"
        role = Role.primary if index == 0 else Role.guardrail if guard else Role.secondary
        direction = Direction.down if guard else Direction.up
        spec = MetricSpec(key, key, kind, role, direction, 0.01 if guard else None, "number", 0, 7, 1)
        names = (*outcome, *covariates)
        measured = sums(columns, names, days, binary=kind == "conversion", covariates=len(covariates))
        metrics.append((spec, measured))
    counts = Counter[tuple[str | None, str]]()
    for cell, part in metrics[0][1].cells.items():
        counts[cell.stratum, cell.variant] += part.n
    users = {who: UserCounts(n, n) for who, n in counts.items()}
    segments = [segment.name for segment in SCENARIO.segments]
    shares: Mapping[str | None, Mapping[str, float]] = {
        segment.name: {v: w / sum(segment.allocation) for v, w in zip(VARIANTS, segment.allocation, strict=True)}
        for segment in SCENARIO.segments
    }
    design = Design(
        experiment="bench",
        name="Bench",
        revision=1,
        phase=1,
        control="control",
        variants={name: name for name in VARIANTS},
        segments={name: name for name in segments},
        shares=shares,
        members={name: (name,) for name in segments},
        dimensions={"segment": tuple(segments)},
        stratified=True,
        method="sequential",
        alpha=0.05,
        planned_users=USERS,
        correction="holm",
    )
    return design, Data(users, 0, metrics)


def least(call: Callable[[], object], repeats: int) -> float:
    """CPU time of a call in ms, the least of several."""
    laps = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        laps.append(time.process_time() - start)
    return round(1000 * min(laps), 1)


def report(design: Design, data: Data) -> object:
    """What is timed."""
    return analysis.build(design, data, as_of=START + timedelta(days=60), watermark=None)


def moments(data: Data) -> object:
    """The part of it that turns sums into moments."""
    return [part.moments(found.layout.scales) for _, found in data.metrics for part in found.cells.values()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    design, data = make(arguments.days)
    plans = {"sequential": design, "fixed": replace(design, method="fixed", planned_users=None)}
    figures = {name: least(partial(report, plan, data), arguments.repeats) for name, plan in plans.items()}
    figures["of_it_sums_to_moments"] = least(partial(moments, data), arguments.repeats)
    print(json.dumps({"bar_ms": BAR_MS} | figures))
    if arguments.profile:
        with cProfile.Profile() as profile:
            report(design, data)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
