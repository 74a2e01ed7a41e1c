"""What the tests of the analysis share: made-up users, and short ways to the numbers of a report."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from experiments.report import Comparison, Interval, Report
from experiments.sums import UserCounts
from tests.experiments import rows
from tests.experiments.rows import START, Event, Exposure, build, design, spec

Floats = npt.NDArray[np.float64]


def money(seed: int, n: int, shift: float = 0.0) -> Floats:
    """Skewed spends in cents, many of them zero."""
    r = np.random.default_rng(seed)
    return np.round(r.lognormal(2, 1, n) * (r.random(n) < 0.4) + shift, 2)


def converted(n: int, successes: int) -> Floats:
    return np.repeat([1.0, 0.0], [successes, n - successes])


def two(treatment: Any, control: Any, stratum: str | None = None) -> dict[Any, Any]:
    return {(stratum, "t"): treatment, (stratum, "c"): control}


def only(report: Report, segment: str | None = None, variant: str = "t", metric: int = 0) -> Comparison:
    (found,) = (c for c in report.metrics[metric].comparisons if (c.segment, c.variant) == (segment, variant))
    return found


def limits(interval: Interval | None) -> tuple[float, float, float]:
    assert interval is not None
    return interval.estimate, interval.lower, interval.upper


def near(*values: float | None, rel: float = 1e-9) -> Any:
    return pytest.approx(values if len(values) > 1 else values[0], rel=rel)


def with_covariates(seed: int, n: int, slope: float, covariates: int) -> Floats:
    r = np.random.default_rng(seed)
    x = np.round(r.lognormal(1, 1, (n, covariates)), 3)
    return np.column_stack([np.round(slope * x.sum(axis=1) + r.normal(0, 3, n), 3), x])


UNEQUAL = {"a": {"c": 0.5, "t": 0.5}, "b": {"c": 0.9, "t": 0.1}}


def unequal(seed: int = 0, effect: float = 0.0) -> dict[Any, Floats]:
    r = np.random.default_rng(seed)
    draw = {("a", "t"): 0.3 + effect, ("a", "c"): 0.3, ("b", "t"): 0.05 + effect, ("b", "c"): 0.05}
    size = {("a", "t"): 5000, ("a", "c"): 5000, ("b", "t"): 1000, ("b", "c"): 9000}
    return {who: (r.random(size[who]) < rate).astype(float) for who, rate in draw.items()}


def figures(comparison: Comparison) -> Any:
    return [getattr(comparison, name) for name in ("absolute", "relative", "se", "p_value", "statistic")]


THREE = {None: {"c": 0.4, "t": 0.3, "u": 0.3}}


UNEQUAL_PAIRS = [("a", "t"), ("a", "c"), ("b", "t"), ("b", "c")]


METRICS = [rows.mean(window_days=2, role="primary")]


def from_rows(
    exposures: list[Exposure], events: list[Event], as_of: datetime, plan: Any = None, **asked: Any
) -> Report:
    found = rows.measure(exposures, events, METRICS, as_of=as_of, **asked)
    part = spec(window_days=2, horizon_days=2), found.metrics["m"]
    return build(plan or design(), part, users=found.users, forced=found.forced)


def many(users: int, days: int) -> tuple[list[Exposure], list[Event]]:
    r = np.random.default_rng(4)
    exposures = [
        Exposure(f"u{i}", "tc"[i % 2], START + timedelta(seconds=int(r.integers(days * 86_400)))) for i in range(users)
    ]
    events = [
        Event(e.user_id, "buy", e.at + timedelta(hours=int(r.integers(60))), float(r.integers(10_000) / 100))
        for e in exposures
    ]
    return exposures, events


def counted(counts: dict[Any, int]) -> dict[Any, UserCounts]:
    return {who: UserCounts(n, n) for who, n in counts.items()}
