"""A report in plain words and tables of text, for the terminal and for a page: the numbers of the report, rounded."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from math import floor, log10

from experiments.report import Comparison, Interval, MetricReport, Report


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of text; the first ``labels`` columns are names, the others numbers."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    labels: int = 1


@dataclass(frozen=True, slots=True)
class Numbers:
    """How the numbers of one metric are written: to three digits of the largest standard error, means to one more."""

    unit: str
    decimals: int

    @classmethod
    def of(cls, metric: MetricReport) -> "Numbers":
        """Return how a metric's numbers are written."""
        errors = [c.se for c in metric.comparisons if c.segment is None and c.se]
        errors = errors or [arm.se for arm in metric.arms if arm.se]
        if not errors:
            return cls(metric.unit, 4)
        error = max(errors) * (100 if metric.unit == "share" else 1)
        return cls(metric.unit, min(max(2 - floor(log10(error)), 0), 8))

    def level(self, value: float) -> str:
        """Write a metric's own value."""
        if self.unit == "share":
            return f"{100 * value:.{self.decimals + 1}f}%"
        return f"{value:,.{self.decimals + 1}f}"

    def change(self, value: float) -> str:
        """Write a difference; of shares, in percentage points."""
        return f"{value * (100 if self.unit == 'share' else 1):+,.{self.decimals}f}"

    def interval(self, interval: Interval) -> str:
        """Write a difference with its limits."""
        return f"{self.change(interval.estimate)} [{self.change(interval.lower)}, {self.change(interval.upper)}]"


def words(code: str | StrEnum) -> str:
    """Write a code."""
    return str(code).replace("_", " ")


def names(report: Report) -> Mapping[str, str]:
    """Return the variants' names by key."""
    return {arm.variant: arm.name for arm in report.arms}


def advice(report: Report) -> str:
    """Return the advice in one line."""
    decision = report.decision
    parts = [words(decision.verdict)]
    if decision.variant is not None:
        segments = ", ".join(report.segments.get(key, key) for key in decision.segments) or "everyone"
        parts.append(f"{names(report)[decision.variant]} to {segments}")
    value = decision.value_per_month
    if value is not None:
        low, high = f"{value.lower:,.0f}", f"{value.upper:,.0f}"
        parts.append(f"worth {value.estimate:,.0f} {value.currency} a month, between {low} and {high}")
    return "; ".join([" ".join(parts[:2]), *parts[2:]]) + f" ({', '.join(map(words, decision.reasons))})"


def luckless(report: Report) -> str | None:
    """Return the chosen variant's effect without the luck of having been picked, where there was a choice."""
    corrected = report.decision.corrected
    if corrected is None:
        return None
    return f"without the luck of having been picked: {Numbers.of(report.primary()).interval(corrected)}"


def method(report: Report) -> str:
    """Return how the numbers were made, in one line."""
    plan = report.method
    parts = [words(plan.name), f"{words(plan.interval)} intervals", f"alpha {plan.alpha:g}"]
    parts += [f"correction {plan.correction}"] if plan.correction != "none" else []
    parts += [f"planned for {plan.planned_users:,} users"] if plan.planned_users is not None else []
    parts += [f"spending {words(plan.spending)}"] if plan.spending else []
    parts += [f"prior of the lift {plan.prior[0]:+.1%} ± {plan.prior[1]:.1%}"] if plan.prior else []
    parts += ["shares follow the evidence, read within waves"] if report.adaptive else []
    parts += ["stratified"] if plan.stratified and not report.adaptive else []
    return ", ".join(parts)


def split(report: Report) -> Grid:
    """Return who was assigned."""
    rows = [
        [
            arm.name,
            f"{arm.assigned:,}",
            f"{arm.exposed:,}",
            f"{arm.matured:,}",
            f"{report.srm.expected[arm.variant]:,.1f}",
        ]
        for arm in report.arms
    ]
    return Grid("", ("variant", "assigned", "exposed", "matured", "expected"), rows)


def health(report: Report) -> Iterator[str]:
    """Return what to know about the data."""
    p_value = "not tested" if report.srm.p_value is None else f"p = {report.srm.p_value:.4g}"
    yield f"sample ratio: {p_value}{'' if report.srm.problem is None else f', {words(report.srm.problem)}'}"
    for finding in report.health:
        subject = f" in {finding.subject}" if finding.subject else ""
        users = f": {finding.count:,} users" if finding.count else ""
        yield f"{'problem' if finding.fatal else 'note'}: {words(finding.code)}{subject}{users}"


def looks(report: Report) -> Grid | None:
    """Return the looks of a group-sequential plan."""
    rows = []
    named = names(report)
    for look in report.method.looks:
        statistic = ", ".join(f"{named[variant]} {z:+.3f}" for variant, z in look.statistic.items())
        crossed = ", ".join(named[variant] for variant in look.crossed)
        state = crossed or ("-" if look.reached else "not reached")
        rows.append([f"{look.number}", f"{look.users:,}", look.day or "", f"{look.bound:.3f}", statistic, state])
    return Grid("looks", ("", "users", "day", "bound", "z", "crossed"), rows) if rows else None


def waves(report: Report) -> Grid | None:
    """Return the waves of adaptive shares: when each opened, each variant's share of its users, and who came."""
    if report.adaptive is None:
        return None
    named = names(report)
    rows = []
    for wave in report.adaptive.waves:
        given = [f"{wave.shares[variant]:.1%} {wave.observed.get(variant, 0):,}" for variant in named]
        opened = datetime.fromisoformat(wave.opened_at).isoformat(timespec="minutes")
        p_value = "" if wave.p_value is None else f"{wave.p_value:.4g}"
        rows.append([f"{wave.number}", opened, f"{wave.size:.0%}", *given, p_value])
    columns = ("", "opened", "of all users", *named.values(), "p of the split")
    return Grid("waves, each variant's share of the users and how many came", columns, rows, labels=2)


def heading(metric: MetricReport) -> str:
    """Return what a metric is."""
    parts = [words(metric.kind), metric.role]
    parts += ["lower is better"] if metric.direction == "down" else []
    parts += [f"{metric.window_days} days"] if metric.window_days else []
    parts += [f"{metric.immature:,} users not matured"] if metric.immature else []
    return ", ".join(parts)


def effects(report: Report, metric: MetricReport) -> Grid:
    """Return the effects of one metric over all users and in each segment."""
    numbers, named = Numbers.of(metric), names(report)
    columns = ("", "users", _MEANS.get(metric.unit, words(metric.kind)), *_titles(report, metric))
    columns += ("shrunk",) if any(c.shrunk for c in metric.comparisons) else ()
    rows = []
    for segment in (None, *report.segments):
        rows.append(["everyone" if segment is None else report.segments[segment]])
        comparisons = {c.variant: c for c in metric.comparisons if c.segment == segment}
        for arm in (arm for arm in metric.arms if arm.segment == segment):
            c = comparisons.get(arm.variant)
            row = [f"  {named[arm.variant]}", f"{arm.n:,}", "" if arm.mean is None else numbers.level(arm.mean)]
            row += _cells(report, numbers, c) if c else []
            if c and c.shrunk:
                row = [*_padded(row, columns[:-1]), numbers.change(c.shrunk.estimate)]
            rows.append(row)
    return Grid("", columns, [_padded(row, columns) for row in rows])


_MEANS = {"share": "share", "days": "mean days"}


def more(report: Report, metric: MetricReport) -> Iterator[Grid]:
    """Return the other tables of one metric."""
    numbers, named = Numbers.of(metric), names(report)
    if metric.pairs:
        rows = [[f"{named[c.variant]} against {named[c.control]}", *_cells(report, numbers, c)] for c in metric.pairs]
        columns = ("", *_titles(report, metric))
        yield Grid("pairs", columns, [_padded(row, columns) for row in rows])
    if metric.funnel:
        rows = []
        for step in metric.funnel:
            effect = "" if step.absolute is None else numbers.interval(step.absolute)
            rate = "" if step.rate is None else numbers.level(step.rate)
            counts = [f"{step.entered:,}", f"{step.reached:,}", rate, effect or words(step.problem or "")]
            label = [f"{step.position}. {step.step}", named[step.variant]]
            rows.append([*label, *counts, "" if step.p_value is None else f"{step.p_value:.3g}"])
        columns = ("step", "variant", "entered", "reached", "share", _difference(report, metric), "p")
        yield Grid("steps, of those who came so far", columns, rows, labels=2)
    if metric.factorial:
        rows = []
        for entry in metric.factorial.effects:
            effect = words(entry.problem or "") if entry.absolute is None else numbers.interval(entry.absolute)
            levels = " × ".join(f"{factor}={level}" for factor, level in entry.levels.items())
            levels += " (assuming no interactions of higher order)" if entry.assumed else ""
            rows.append([levels, effect, "" if entry.p_value is None else f"{entry.p_value:.3g}"])
        yield Grid("factors", ("", _difference(report, metric), "p"), rows)


def reach(report: Report) -> Iterator[Grid]:
    """Return the effects on those who were reached."""
    metric = report.primary()
    numbers, named = Numbers.of(metric), names(report)

    def effect(interval: Interval | None, p_value: float | None, problem: str | None) -> list[str]:
        if interval is None:
            return [words(problem or ""), ""]
        return [numbers.interval(interval), "" if p_value is None else f"{p_value:.3g}"]

    if report.compliers:
        rows = [
            [
                named[entry.variant],
                *("" if share is None else f"{share:.2%}" for share in (entry.received, entry.received_control)),
                *effect(entry.effect, entry.p_value, entry.problem),
            ]
            for entry in report.compliers
        ]
        titles = "", "received", "received in control", _difference(report, metric), "p"
        yield Grid("effect on those whom the variant reached", titles, rows)
    if report.triggered:
        rows = [
            [
                named[entry.variant],
                f"{entry.users:,}",
                f"{entry.users_control:,}",
                "" if entry.balance_p is None else f"{entry.balance_p:.3g}",
                *effect(entry.effect, entry.p_value, entry.problem),
            ]
            for entry in report.triggered
        ]
        columns = ("", "triggered", "triggered in control", "equal shares p", _difference(report, metric), "p")
        yield Grid("effect among the triggered", columns, rows)


def notes(report: Report, metric: MetricReport) -> Iterator[str]:
    """Return what else is known of one metric, a line each."""
    numbers, named = Numbers.of(metric), names(report)
    for test in metric.heterogeneity:
        who = f"do the effects of {named[test.variant]} differ between the {test.segments} segments of {test.dimension}"
        if test.p_value is None or test.q is None or test.tau is None:
            yield f"{who}: {words(test.problem or '')}"
        else:
            spread = numbers.change(test.tau).removeprefix("+")
            yield f"{who}: Q = {test.q:.2f}, df {test.df}, p = {test.p_value:.3g}, standard deviation {spread}"
    if metric.factorial and metric.factorial.interactions:
        yield f"all interactions together: p = {metric.factorial.interactions.p_value:.3g}"
    if metric.logrank is not None:
        yield f"log-rank test of the curves: p = {metric.logrank.p_value:.3g}"
    for entry in metric.capping:
        without = "" if entry.uncapped is None else f"; the effect without the cut {numbers.interval(entry.uncapped)}"
        if entry.removed is not None:
            yield f"cut at {entry.cap:,.6g}: {entry.removed:.2%} of the total of {named[entry.variant]}{without}"
    frequency = metric.frequency
    if frequency is not None:
        line = f"each touch more: {numbers.interval(frequency.trend)}, p = {frequency.trend_p:.3g}"
        line += "" if frequency.departure is None else f"; a straight line: p = {frequency.departure.p_value:.3g}"
        best = frequency.best
        line += "" if best is None else f"; best at {best.estimate:.2f} [{best.lower:.2f}, {best.upper:.2f}]"
        yield f"{line}; best of those tested: {' or '.join(f'{dose:g}' for dose in frequency.best_tested)}"
    if len(metric.choices) > 2:
        chances = ", ".join(f"{named[choice.variant]} {choice.probability_best:.1%}" for choice in metric.choices)
        yield f"chance of being the best: {chances}"


def _difference(report: Report, metric: MetricReport) -> str:
    unit = {"share": ", points", "days": ", days"}.get(metric.unit, "")
    return f"difference{unit} [{1 - report.method.alpha:.0%}]"


def _titles(report: Report, metric: MetricReport) -> tuple[str, ...]:
    first = _difference(report, metric), f"lift [{1 - report.method.alpha:.0%}]"
    if report.method.name == "bayes":
        return (*first, "chance better", "expected loss")
    return (*first, "test", "p", "adjusted p")


def _cells(report: Report, numbers: Numbers, c: Comparison) -> list[str]:
    if c.absolute is None or c.p_value is None or c.p_adjusted is None or c.statistic is None:
        return [words(c.problem or "")]
    lift = words(c.relative_problem or "") if c.relative is None else _lift(c.relative)
    first = [numbers.interval(c.absolute), lift]
    mark = " *" if c.significant else "  "
    if report.method.name == "bayes" and c.probability_better is not None and c.expected_loss is not None:
        return [*first, f"{c.probability_better:.2%}{mark}", numbers.change(c.expected_loss).removeprefix("+")]
    test = f"{words(c.statistic.name)} {c.statistic.value:.4f}"
    return [*first, test, f"{c.p_value:.3g}", f"{c.p_adjusted:.3g}{mark}"]


def _lift(interval: Interval) -> str:
    return f"{interval.estimate:+.1%} [{interval.lower:+.1%}, {interval.upper:+.1%}]"


def _padded(row: Sequence[str], columns: Sequence[str]) -> list[str]:
    return [*row, *[""] * (len(columns) - len(row))]
