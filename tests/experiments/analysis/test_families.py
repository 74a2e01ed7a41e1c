from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st

from experiments.analysis import families
from experiments.analysis.comparisons import Compared
from experiments.fields import Role
from experiments.report import Comparison, Interval, MetricReport, Report
from tests.experiments.analysis.figures import THREE, UNEQUAL_PAIRS, figures, money, near, only, two
from tests.experiments.rows import build, design, measured, spec


def several(metrics: int, plan: Any = None, role: Role = Role.secondary) -> Report:
    parts = []
    for m in range(metrics):
        data = {(None, v): money(10 * m + i, 200, 0.4 * i) for i, v in enumerate("ctu")}
        parts.append((spec(f"m{m}", role=role if m else Role.primary, margin=1.0), measured(data)))
    return build(plan or design(THREE), *parts)


def p_values(metric: MetricReport) -> tuple[list[float], list[float]]:
    return [c.p_value or 0 for c in metric.comparisons], [c.p_adjusted or 0 for c in metric.comparisons]


def test_holm_equals_its_definition_over_the_variants_of_the_primary_metric() -> None:
    raw, adjusted = p_values(several(1).metrics[0])
    low, high = sorted(raw)
    assert sorted(adjusted) == near(min(1.0, 2 * low), max(min(1.0, 2 * low), high))
    assert raw != adjusted


@pytest.mark.parametrize("role", [Role.secondary, Role.guardrail])
def test_another_metric_leaves_the_answer_to_the_main_question(role: Role) -> None:
    assert several(4, role=role).metrics[0] == several(1).metrics[0]


def test_secondary_metrics_make_one_family_and_guardrails_none() -> None:
    report = several(3)
    raw, adjusted = zip(*(p_values(metric) for metric in report.metrics[1:]), strict=True)
    assert min(min(part) for part in adjusted) == near(4 * min(min(part) for part in raw))
    for metric in several(3, role=Role.guardrail).metrics[1:]:
        raw_, adjusted_ = p_values(metric)
        assert raw_ == adjusted_


def test_segments_leave_the_answer_to_the_main_question() -> None:
    data = {(s, v): money(i, 200, 0.5 * (v == "t")) for i, (s, v) in enumerate(UNEQUAL_PAIRS)}
    shares = {s: {"c": 0.5, "t": 0.5} for s in "ab"}
    cut = build(design(shares), (spec(), measured(data)))
    whole = {(None, v): np.concatenate([data[s, v] for s in "ab"]) for v in "tc"}
    assert only(cut) == only(build(design(), (spec(), measured(whole))))
    raw = [only(cut, s).p_value or 0 for s in "ab"]
    assert min(only(cut, s).p_adjusted or 0 for s in "ab") == near(min(1, 2 * min(raw)))


@pytest.mark.parametrize("correction", ["bh", "none"])
def test_other_corrections_equal_their_definition(correction: Any) -> None:
    raw, adjusted = p_values(several(1, design(THREE, correction=correction)).metrics[0])
    expected = scipy.stats.false_discovery_control(raw, method="bh") if correction == "bh" else raw
    assert adjusted == near(*expected)


def test_significant_means_adjusted_p_below_alpha() -> None:
    for alpha in (0.2, 0.01, 1e-4):
        report = several(3, design(THREE, alpha=alpha))
        for metric in report.metrics:
            assert all(c.significant == ((c.p_adjusted or 0) < alpha) for c in metric.comparisons)


# Intervals that agree with the claims.


def member(z: float, variant: str = "t", segment: str | None = None) -> Compared:
    """A normal estimate of variance 1."""

    def at(alpha: float) -> Interval:
        half = scipy.stats.norm.isf(alpha / 2)
        return Interval(z, z - half, z + half)

    comparison = Comparison(
        variant=variant,
        control="c",
        segment=segment,
        absolute=at(0.05),
        relative=None,
        se=1.0,
        p_value=2 * scipy.stats.norm.sf(abs(z)),
        p_adjusted=None,
        significant=None,
        probability_better=0.5,
        expected_loss=0.5,
        problem=None,
    )
    return Compared(comparison, at)


def excludes_zero(interval: Interval) -> bool:
    return interval.lower > 0 or interval.upper < 0


@given(st.lists(st.floats(-6, 6), min_size=1, max_size=8), st.sampled_from(["holm", "bh", "none"]))
@example([1.959963984540054, 2.3], "bh")  # p is 0.05 to the last bit: no claim
@settings(deadline=None, derandomize=True, max_examples=300)
def test_an_adjusted_interval_never_contradicts_the_claim(zs: list[float], correction: Any) -> None:
    (found,) = families.adjust([(Role.primary, [member(z) for z in zs])], correction, 0.05)
    claims = sum(c.significant or False for c in found)
    for z, comparison in zip(zs, found, strict=True):
        level = {"holm": 0.05 / len(zs), "bh": 0.05 * claims / len(zs), "none": 0.05}[correction]
        if comparison.adjusted is not None:
            assert excludes_zero(comparison.adjusted) == comparison.significant
            assert comparison.adjusted.upper - z == near(scipy.stats.norm.isf(level / 2), rel=1e-6)
        elif correction == "holm":
            assert comparison.significant, "only Holm's claims beyond Bonferroni's go without an interval"
            assert (comparison.p_value or 0) >= 0.05 / len(zs)
        else:
            assert correction == "bh"
            assert not comparison.significant


@pytest.mark.parametrize("kind", ["mean", "conversion"])
@pytest.mark.parametrize("correction", ["holm", "bh"])
@pytest.mark.parametrize("method", ["fixed", "sequential"])
def test_nor_does_it_over_rows(kind: Any, correction: Any, method: Any) -> None:
    claimed = 0
    for seed in range(8):
        r = np.random.default_rng(seed)
        shift = {"c": 0.0, "t": 0.2 * r.random(), "u": 0.2 * r.random()}
        rows = {(None, v): (r.random(300) < 0.3 + s).astype(float) for v, s in shift.items()}
        plan = design(THREE, method=method, planned_users=900, correction=correction, pairs=True)
        metric = build(plan, (spec(kind=kind), measured(rows, kind))).metrics[0]
        for comparison in [*metric.comparisons, *metric.pairs]:
            claimed += comparison.significant or False
            if comparison.adjusted is not None:
                assert excludes_zero(comparison.adjusted) == comparison.significant
    assert claimed > 5


def test_every_pair_is_compared_and_counts_in_the_family() -> None:
    rows = {(None, v): money(i, 200, 0.9 * i) for i, v in enumerate("ctu")}
    metric = build(design(THREE, pairs=True), (spec(), measured(rows))).metrics[0]
    assert [(c.variant, c.control) for c in [*metric.comparisons, *metric.pairs]] == [
        ("t", "c"),
        ("u", "c"),
        ("u", "t"),
    ]
    (pair,) = metric.pairs
    alone = only(build(design(), (spec(), measured(two(rows[None, "u"], rows[None, "t"])))))
    assert figures(pair) == figures(alone)
    raw = sorted(c.p_value or 0 for c in [*metric.comparisons, *metric.pairs])
    assert min(c.p_adjusted or 0 for c in [*metric.comparisons, *metric.pairs]) == near(3 * raw[0])
    assert build(design(THREE), (spec(), measured(rows))).metrics[0].pairs == []


def test_a_problem_is_no_member_of_the_family() -> None:
    rows = {(None, "c"): money(1, 200), (None, "t"): money(2, 200, 0.8), (None, "u"): [1.0]}
    found = only(build(design(THREE), (spec(), measured(rows))))
    assert found.p_adjusted == found.p_value
    assert found.adjusted == found.absolute
