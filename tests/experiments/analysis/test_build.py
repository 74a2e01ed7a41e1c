from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from experiments.design import Design, MetricSpec, ValueSpec
from experiments.fields import Direction, Role
from experiments.report import Report
from experiments.sums import MICROS, Cell, Layout, Measured, Values
from stats.errors import Problem
from stats.groupsequential import Spending
from stats.posterior import Normal
from stats.survival import Lifetimes
from tests.experiments.analysis.figures import Floats, from_rows, many, only, two
from tests.experiments.rows import START, build, design, measured, spec

ALL_KINDS = ("conversion", "mean", "capped", "adjusted", "ratio", "retention", "time_to_event", "quantile", "funnel")
METHODS = ("fixed", "sequential", "group_sequential", "bayes")


def test_nobody_at_all_gives_a_report_that_says_so() -> None:
    layout = measured(two([1.0], [1.0])).layout
    report = build(design(), (spec(), Measured(layout, {})), users={})
    assert only(report).problem == Problem.NOT_ENOUGH_DATA
    assert (report.srm.p_value, report.srm.problem) == (None, Problem.NOT_ENOUGH_DATA)
    assert [arm.assigned for arm in report.arms] == [0, 0]
    assert report.decision.verdict == "keep_running"


@pytest.mark.parametrize("method", ["fixed", "sequential"])
def test_every_point_of_the_timeline_equals_the_report_of_that_evening(method: Any) -> None:
    exposures, events = many(300, 5)
    plan = design(method=method, planned_users=300)
    whole = from_rows(exposures, events, START + timedelta(days=9), plan)
    points = whole.metrics[0].timeline
    assert [point.day for point in points] == [str(date(2024, 5, day)) for day in range(3, 8)]
    for number, point in enumerate(points, 1):
        evening = datetime.combine(date.fromisoformat(point.day), datetime.min.time(), UTC) + timedelta(days=1)
        then = from_rows(exposures, events, evening - timedelta(microseconds=1), plan)
        assert then.metrics[0].matured == point.n
        assert then.metrics[0].timeline == points[:number]
        if method == "fixed" or number == 1:
            assert only(then).absolute == point.absolute
    if method == "fixed":
        assert points[-1].absolute == only(whole).absolute


# Every kind under every method, on small random data.


def outcome(r: np.random.Generator, kind: str, n: int) -> Floats:
    """Columns of ``n`` users, all alike with a chance of one in ten."""
    if kind in ("conversion", "retention"):
        return np.full(n, 1.0) if r.random() < 0.1 else (r.random(n) < r.choice([0.02, 0.5])).astype(float)
    if kind == "funnel":
        return np.cumprod(r.random((n, 3)) < [0.9, 0.5, r.choice([0.0, 0.5])], axis=1).astype(float)
    values = np.round(r.lognormal(2, 1.5, n) * (r.random(n) < 0.6), 2) - (1.0 if r.random() < 0.2 else 0.0)
    match kind:
        case "capped":
            return np.column_stack([np.minimum(values, 20.0), values])
        case "adjusted":
            before = np.round(values + r.normal(0, 1, n), 2)
            return np.column_stack([values, before, before > 1])
        case "ratio":
            return np.column_stack([values, r.integers(0, 4, n)])
        case "time_to_event":
            return np.minimum(np.round(r.exponential(4, n) + 0.05, 2), 7.0)
    return values


def random_metric(seed: int, kind: str, strata: Any, role: Role, sizes: Any) -> tuple[MetricSpec, Measured]:
    r = np.random.default_rng(seed)
    days = [date(2024, 5, 1 + day) for day in range(4)]
    sizes = {(s, v, day): int(r.choice(sizes)) for s in strata for v in "ctu" for day in days}
    cells = {who: outcome(r, kind, n) for who, n in sizes.items()}
    name = {"capped": "mean", "adjusted": "mean"}.get(kind, kind)
    direction = Direction.up if seed % 2 else Direction.down
    found = spec(kind, name, role=role, margin=0.5, direction=direction, quantile=0.6)
    shaped = {who: values if values.ndim == 2 else values[:, None] for who, values in cells.items()}
    data = measured(shaped, name, covariates=2 if kind == "adjusted" else 0)
    if kind == "capped":
        data = replace(data, layout=Layout(data.layout.columns, 0, uncapped=1), cap=20.0)
    if name == "mean":
        largest = {Cell(*who): round(values[:, 0].max() * MICROS) for who, values in shaped.items() if len(values)}
        data = replace(data, largest=largest)
    merged = {
        (s, v): (np.concatenate([cells[s, v, day] for day in days]), np.repeat(days, [sizes[s, v, d] for d in days]))
        for s in strata
        for v in "ctu"
    }
    if kind == "time_to_event":
        data = replace(data, lifetimes={who: Lifetimes.from_rows(x, x < 7) for who, (x, _) in merged.items()})
    if kind == "quantile":
        since = date(1970, 1, 1)
        values = {w: Values(np.array([(d - since).days for d in at]), x, None) for w, (x, at) in merged.items()}
        data = replace(data, values=values)
    return found, data


def plan_for(method: str, shares: Any, **fields: Any) -> Design:
    more: dict[str, Any] = {"planned_users": 400, "pairs": True, "correction": "none" if method == "bayes" else "holm"}
    if method == "group_sequential":
        more |= {"looks": (0.3, 0.6, 1.0), "spending": Spending("pocock"), "futility": 0.1}
    if method == "bayes":
        more |= {"prior": Normal(0.0, 0.2)}
    value = ValueSpec("conversion", 0.5, 100, "CNY", {"t": 0.1})
    doses = {"c": 0.0, "t": 1.0, "u": 2.0}
    factors = {v: {"copy": v} for v in "ctu"}
    return design(shares, method=method, doses=doses, factors=factors, value=value, **more | fields)


PLAIN = {None: {"c": 0.4, "t": 0.3, "u": 0.3}}
STRATA = {
    "a": {"c": 0.4, "t": 0.3, "u": 0.3},
    "b": {"c": 0.8, "t": 0.1, "u": 0.1},
    "empty": {"c": 0.5, "t": 0.5, "u": 0.0},
}


TINY, SMALL, SOME = (0, 1, 2), (0, 3, 12), (40,)


@pytest.mark.parametrize(
    ("sizes", "shares"),
    [(TINY, PLAIN), (SMALL, STRATA), (SOME, PLAIN), (SOME, STRATA)],
    ids=["tiny", "small_strata", "some", "some_strata"],
)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("first", ALL_KINDS)
def test_every_kind_under_every_method_gives_a_sound_report(first: str, method: str, sizes: Any, shares: Any) -> None:
    kinds = [first, *(kind for kind in ("conversion", "ratio") if kind != first)]
    seed = ALL_KINDS.index(first) * 10 + METHODS.index(method)
    report = smoke(seed, kinds, plan_for(method, shares), sizes)
    assert report.decision.verdict
    if sizes == SOME and first != "conversion":
        found = {c.problem for c in report.metrics[0].comparisons if c.segment is None}
        assert found == {None}


def smoke(seed: int, kinds: Any, plan: Design, sizes: Any) -> Report:
    strata = [s for s in plan.strata if s != "empty"]
    roles = [Role.primary, Role.guardrail, Role.secondary]
    metrics = [random_metric(seed + i, kind, strata, roles[i], sizes) for i, kind in enumerate(kinds)]
    return build(plan, *metrics)
