"""Segments as a matrix: where the effect is, how sure it is, and where to roll out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.codes import Verdict
from experiments.documents import Experiment, Segment
from experiments.report import Comparison, Interval, MetricReport, Report
from web import charts, sentences
from web.formats import Formats, precision
from web.languages import gettext
from web.pages.reports.scorecard import money, per_user
from web.pages.reports.verdict import names

DOTS = 3
# How small p has to be for each further dot.
_EVIDENCE = (0.1, 0.05, 0.01)


@dataclass(frozen=True, slots=True)
class Cell:
    """A variant in a segment; ``reason`` says why there is no effect. ``dots`` of ``DOTS``: how strong the evidence."""

    segment: str
    users: str
    effect: str
    limits: tuple[str, str]
    reading: str
    word: str
    dots: int
    evidence: str
    money: str
    reason: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the matrix: ``segment`` where it is one segment with all its variants, else empty."""

    name: str
    kind: str
    segment: str
    cells: list[Cell | None]


@dataclass(frozen=True, slots=True)
class Matrix:
    """``columns`` are variants, or where segments cross value tier and lifecycle, the stages, for one variant."""

    title: str
    columns: list[str]
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Choice:
    """What rolling one variant out to some segments would bring; ``worth`` is empty where no money is planned."""

    variant: str
    variant_name: str
    segments: list[str]
    segment_names: str
    worth: str


def matrices(report: Report, experiment: Experiment, segments: Mapping[str, Segment], formats: Formats) -> list[Matrix]:
    """Return the matrix of the main metric; of tiers by stages, one for each variant."""
    if not report.segments or report.decision.verdict == Verdict.invalid:
        return []
    found = {(c.variant, c.segment): c for c in report.primary().comparisons if c.segment is not None}
    named = {variant: name for variant, name in names(report).items() if variant != report.control}
    metric = report.primary().name

    def cell(variant: str, segment: str) -> Cell | None:
        c = found.get((variant, segment))
        return None if c is None else _cell(report, experiment, c, formats)

    crossed = _crossed(report, segments)
    if crossed:
        tiers = list(dict.fromkeys(tier for tier, _ in crossed))
        stages = list(dict.fromkeys(stage for _, stage in crossed))
        return [
            Matrix(
                gettext("%(metric)s: %(variant)s", metric=metric, variant=name),
                [segments[stage].name for stage in stages],
                [
                    Row(
                        segments[tier].name,
                        "",
                        "",
                        [cell(variant, crossed[tier, stage]) if (tier, stage) in crossed else None for stage in stages],
                    )
                    for tier in tiers
                ],
            )
            for variant, name in named.items()
        ]
    rows = [
        Row(name, _kind(segments.get(key)), key, [cell(variant, key) for variant in named])
        for key, name in report.segments.items()
    ]
    return [Matrix(metric, list(named.values()), sorted(rows, key=lambda row: row.kind))]


def choice(
    report: Report, experiment: Experiment, variant: str, segments: Sequence[str], formats: Formats
) -> Choice | None:
    """Return what a variant brings in these segments; None where there is no such variant or segment.

    The segments' own ranges are added end to end: they hold even if all of them err to the same side.
    """
    chosen = [segment for segment in report.segments if segment in segments]
    if not chosen or variant not in names(report) or variant == report.control:
        return None
    parts = [_worth(report, experiment, variant, segment) for segment in chosen]
    sums = [part for part in parts if part is not None]
    worth = ""
    if sums and len(sums) == len(parts):
        estimate, lower, upper = (sum(getattr(part, end) for part in sums) for end in ("estimate", "lower", "upper"))
        worth = gettext(
            "About %(estimate)s a month, between %(lower)s and %(upper)s.",
            estimate=formats.money(estimate),
            lower=formats.money(lower),
            upper=formats.money(upper),
        )
    texts = formats.names(report.segments[segment] for segment in chosen)
    return Choice(variant, names(report)[variant], chosen, texts, worth)


def _cell(report: Report, experiment: Experiment, c: Comparison, formats: Formats) -> Cell:
    metric = report.primary()
    arms = {arm.variant: arm.n for arm in metric.arms if arm.segment == c.segment}
    users = formats.count(arms.get(c.variant, 0) + arms.get(c.control, 0))
    segment, shown = c.segment or "", c.shrunk or c.absolute
    if shown is None:
        reason = sentences.known(sentences.PROBLEMS, c.problem or "")
        return Cell(segment, users, "", ("", ""), charts.UNCLEAR, "", 0, "", "", reason)
    effect, lower, upper = formats.interval(metric.unit, shown, precision(metric))
    reading = charts.reading(metric, c)
    word = {
        charts.BETTER: gettext("better"),
        charts.WORSE: gettext("worse"),
        charts.UNCLEAR: gettext("not clear"),
    }[reading]
    worth = _worth(report, experiment, c.variant, segment)
    dots = _dots(c)
    evidence = [gettext("no evidence"), gettext("weak evidence"), gettext("evidence"), gettext("strong evidence")][dots]
    a_month = gettext("%(money)s a month", money=formats.money(worth.estimate)) if worth else ""
    return Cell(segment, users, effect, (lower, upper), reading, word, dots, evidence, a_month, "")


def _dots(c: Comparison) -> int:
    """Dots from the p value, or where there is none, from the chance to be on the side of the estimate."""
    p = c.p_value
    if p is None and c.probability_better is not None:
        p = 2 * min(c.probability_better, 1 - c.probability_better)
    return 0 if p is None else sum(p < limit for limit in _EVIDENCE)


def _worth(report: Report, experiment: Experiment, variant: str, segment: str) -> Interval | None:
    """Money a month from a segment: its share of the users, its effect drawn towards the others where it was."""
    metric = money(report, experiment)
    found = None
    if metric is not None:
        found = next((c for c in metric.comparisons if (c.variant, c.segment) == (variant, segment)), None)
    effect = None if found is None else found.shrunk or found.absolute
    users = _users(report.primary())
    if metric is None or effect is None or experiment.value is None or not sum(users.values()):
        return None
    monthly = experiment.value.monthly_users * users.get(segment, 0) / sum(users.values())
    net = per_user(experiment, metric, variant, effect)
    return Interval(net.estimate * monthly, net.lower * monthly, net.upper * monthly)


def _users(metric: MetricReport) -> dict[str, int]:
    users: dict[str, int] = {}
    for arm in metric.arms:
        if arm.segment is not None:
            users[arm.segment] = users.get(arm.segment, 0) + arm.n
    return users


def _kind(segment: Segment | None) -> str:
    return "" if segment is None else sentences.known(sentences.SEGMENT_KINDS, segment.kind)


def _crossed(report: Report, segments: Mapping[str, Segment]) -> dict[tuple[str, str], str]:
    """Return each segment that joins a value tier and a lifecycle stage; empty unless all do, and both vary."""
    tiers = [segment for segment in segments.values() if segment.kind == "tier"]
    stages = [segment for segment in segments.values() if segment.kind == "lifecycle"]
    found: dict[tuple[str, str], str] = {}
    for key in report.segments:
        asked = segments[key].condition if key in segments else {}
        pair = next(
            (
                (tier.key, stage.key)
                for tier in tiers
                for stage in stages
                if asked in ({**tier.condition, **stage.condition}, {"$and": [tier.condition, stage.condition]})
            ),
            None,
        )
        if pair is None:
            return {}
        found[pair] = key
    several = len({tier for tier, _ in found}) > 1 and len({stage for _, stage in found}) > 1
    return found if several else {}
