"""What to advise: the rules that turn effects, guardrails, health and money into one verdict with its reasons.

1. Data that cannot be trusted decide nothing: ``invalid``.
2. A fixed-horizon plan is not read before its planned size or its end, a group-sequential one not before its first
   look: ``keep_running``. Where no variant could still win it says ``stop``.
3. A variant ships when its primary metric is significantly better (adjusted), every guardrail is shown to be no worse
   than its margin, and it earns more than it costs; of several, the one worth most, its value free of the luck of
   having been picked. Segments in which it is significantly worse are left out.
4. No variant better, all of them worse, or the better ones held back by harm or cost: ``stop``.
5. Otherwise ``keep_running`` until the planned size or the end, then ``inconclusive``.
"""

from collections.abc import Callable, Iterator, Sequence

from experiments.codes import HealthCode, ReasonCode, Verdict
from experiments.design import Design
from experiments.report import Comparison, DecisionAdvice, Finding, Interval, Look, MetricReport, MoneyInterval

_FATAL = dict.fromkeys((HealthCode.crossovers, HealthCode.identity_crossovers), ReasonCode.too_many_crossovers)

EffectOn = Callable[[str, str, Sequence[str]], Interval | None]
Corrected = Callable[[str], Interval | None]


def advise(
    design: Design,
    metrics: Sequence[MetricReport],
    health: Sequence[Finding],
    looks: Sequence[Look],
    effect_on: EffectOn,
    corrected: Corrected,
) -> DecisionAdvice:
    """Return the advice.

    Args:
        design: what was planned.
        metrics: the reports of all metrics, the primary one first.
        health: what was found about the data.
        looks: of a group-sequential plan.
        effect_on: (metric, variant, segments) → its absolute effect among the users of these segments.
        corrected: variant → its effect on the primary metric if it is the best of several, without that luck.
    """
    primary = metrics[0]
    fatal = [_FATAL.get(f.code, ReasonCode.sample_ratio_mismatch) for f in health if f.fatal]
    if fatal:
        return _advice(Verdict.invalid, sorted(set(fatal)))
    if primary.matured == 0:
        return _advice(Verdict.keep_running, [ReasonCode.no_matured_users])
    over = design.ended and not primary.immature
    reached = over or design.planned_users is None or primary.matured >= design.planned_users
    if looks:
        reached = all(look.reached for look in looks)
    if design.method == "fixed" and not reached:
        return _advice(Verdict.keep_running, [ReasonCode.planned_size_not_reached])
    if looks and not looks[0].reached:
        return _advice(Verdict.keep_running, [ReasonCode.before_first_look])
    overall = [c for c in primary.comparisons if c.segment is None]
    better = [c.variant for c in overall if c.significant and _good(primary, c)]
    held_back = {variant: reason for variant in better for reason in _guardrails(metrics, variant)}
    free = [variant for variant in better if variant not in held_back]
    if free:
        return _best(design, metrics, free, effect_on, corrected)
    if held_back:
        if ReasonCode.guardrail_not_proven in held_back.values():
            verdict = Verdict.inconclusive if reached else Verdict.keep_running
            return _advice(verdict, [ReasonCode.primary_better, ReasonCode.guardrail_not_proven])
        return _advice(Verdict.stop, [ReasonCode.guardrail_harmed])
    if all(c.significant and not _good(primary, c) for c in overall):
        return _advice(Verdict.stop, [ReasonCode.primary_worse])
    if any(look.hopeless(up=primary.direction == "up") for look in looks):
        return _advice(Verdict.stop, [ReasonCode.futile])
    reasons = [ReasonCode.primary_not_significant]
    if reached:
        return _advice(Verdict.inconclusive, reasons)
    return _advice(Verdict.keep_running, [*reasons, ReasonCode.planned_size_not_reached])


def _best(
    design: Design,
    metrics: Sequence[MetricReport],
    variants: Sequence[str],
    effect_on: EffectOn,
    corrected: Corrected,
) -> DecisionAdvice:
    primary = metrics[0]
    options = []
    for variant in variants:
        segments, reasons = _segments(design, primary, variant)
        if reasons and not segments:
            continue  # harmed wherever one looks
        value = _value(design, metrics, variant, segments, effect_on, None)
        if value is None:
            effect = effect_on(primary.metric, variant, segments)
            worth = 0.0 if effect is None else effect.estimate * (1 if primary.direction == "up" else -1)
        else:
            worth = value.estimate
        options.append((worth, variant, segments, reasons))
    if not options:
        return _advice(Verdict.stop, [ReasonCode.segment_harmed])
    # Chosen by what was seen, all alike; only then is the luck of the chosen one taken off.
    _, variant, segments, reasons = max(options, key=lambda option: option[0])
    luckless = None if segments else corrected(variant)
    value = _value(design, metrics, variant, segments, effect_on, luckless)
    if value is not None and value.estimate <= 0:
        return DecisionAdvice(Verdict.stop, None, [], [ReasonCode.value_negative], value)
    if value is not None and value.lower < 0:
        reasons.append(ReasonCode.value_uncertain)
    reasons = [ReasonCode.primary_better, *reasons]
    return DecisionAdvice(Verdict.ship, variant, segments, reasons, value, luckless)


def _segments(design: Design, primary: MetricReport, variant: str) -> tuple[list[str], list[ReasonCode]]:
    """Whom to ship to: an empty list for everyone, else the segments that are not harmed."""
    harmed = {
        c.segment
        for c in primary.comparisons
        if c.variant == variant and c.segment is not None and c.significant and not _good(primary, c)
    }
    if not harmed:
        return [], []
    return [segment for segment in design.segments if segment not in harmed], [ReasonCode.segment_harmed]


def _value(
    design: Design,
    metrics: Sequence[MetricReport],
    variant: str,
    segments: Sequence[str],
    effect_on: EffectOn,
    luckless: Interval | None,
) -> MoneyInterval | None:
    """Money a month: (gain × margin − extra cost per user) × users a month, all taken to be like those seen.

    The gain is the effect, or what is saved where less of the metric is better; the users, where some segments are
    left out, those of the others.
    """
    spec = design.value
    if spec is None:
        return None
    effect = effect_on(spec.metric, variant, segments)
    if spec.metric == metrics[0].metric and luckless is not None:
        effect = luckless
    if effect is None:
        return None
    (direction,) = (metric.direction for metric in metrics if metric.metric == spec.metric)
    sign = 1.0 if direction == "up" else -1.0
    cost = spec.costs.get(variant, 0.0) - spec.costs.get(design.control, 0.0)
    users = spec.monthly_users * _share(metrics[0], segments)

    def money(per_user: float) -> float:
        return (sign * per_user * spec.margin - cost) * users

    lower, upper = sorted((money(effect.lower), money(effect.upper)))
    return MoneyInterval(money(effect.estimate), lower, upper, spec.currency)


def _share(primary: MetricReport, segments: Sequence[str]) -> float:
    """The share of all users who are in these segments (all of them where none is named)."""
    if not segments:
        return 1.0
    inside = sum(arm.n for arm in primary.arms if arm.segment in segments)
    return inside / sum(arm.n for arm in primary.arms if arm.segment is not None)


def _guardrails(metrics: Sequence[MetricReport], variant: str) -> Iterator[ReasonCode]:
    """What holds a variant back; harm after doubt, so that harm is what remains of both."""
    tests = [
        c.noninferiority
        for metric in metrics
        if metric.role == "guardrail"
        for c in metric.comparisons
        if c.variant == variant and c.segment is None
    ]
    if any(test is None or not test.passed for test in tests):
        yield ReasonCode.guardrail_not_proven
    if any(test is not None and test.harmed for test in tests):
        yield ReasonCode.guardrail_harmed


def _good(metric: MetricReport, comparison: Comparison) -> bool:
    return comparison.absolute is not None and (comparison.absolute.estimate > 0) == (metric.direction == "up")


def _advice(verdict: Verdict, reasons: Sequence[ReasonCode]) -> DecisionAdvice:
    return DecisionAdvice(verdict, None, [], list(reasons), None)
