"""What the pages of policies show: rules in words, the promise beside what came of it, the users under each rule."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from experiments import promises, registry, reports
from experiments.documents import Kind
from experiments.policy import ARM, OTHERWISE, Policy
from experiments.promises import Delivery, Realised
from experiments.report import Interval, MetricReport, MoneyInterval, Report
from web import sentences, targeting
from web.charts import Chart
from web.charts import uplift as charts
from web.formats import Formats
from web.languages import gettext, ngettext
from web.pages.reports.verdict import readable
from web.pages.uplift import conditions

_TONES: Mapping[str, str] = {
    Delivery.kept: "ship",
    Delivery.above: "ship",
    Delivery.below: "stop",
    Delivery.open: "keep_running",
    Delivery.no_holdback: "inconclusive",
    Delivery.not_measured: "keep_running",
    Delivery.invalid: "invalid",
}
# Attributes that lists of scored users are written to, see ``experiments.uplift.lists.attribute``.
_LIST = re.compile(r"upturn_.+_\d+")
_SHORT = 2
_LISTED = 4


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule in words, and what is known of the users under it."""

    words: str
    variant: str
    treats: bool
    treated: str
    held_back: str
    lift: str


@dataclass(frozen=True, slots=True)
class Line:
    """A policy in the list."""

    key: str
    name: str
    status: str
    status_label: str
    serves: list[str]
    holdback: str
    promised: str
    realised: str
    delivery: str
    tone: str
    delivery_label: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A policy: ``sentence`` says what became of the promise; texts are empty where nothing can be said."""

    rules: list[Rule]
    holdback: str
    source: str
    audience: str
    tone: str
    label: str
    sentence: str
    explained: str
    metric: str
    promised: str
    realised: str
    money_promised: str
    money_realised: str
    treated: str
    held_back: str
    chart: Chart | None


@dataclass(frozen=True, slots=True)
class Named:
    """What documents are called, by key: segments with their conditions, metrics."""

    segments: Mapping[str, tuple[str, Mapping[str, Any]]]
    metrics: Mapping[str, str]


def named(session: Session) -> Named:
    """Return the names of segments and metrics."""
    return Named(
        {each.key: (each.name, each.condition) for each in registry.all_of(session, Kind.segment)},
        {each.key: each.name for each in registry.all_of(session, Kind.metric)},
    )


def measured(session: Session, policy: Policy, currency: str) -> Realised | None:
    """Return the promise beside what the newest report measured; None without a report that can be read."""
    saved = reports.latest(session, policy.key, Kind.policy)
    report = readable(saved)
    if saved is None or report is None:
        return None
    of: Policy = registry.get(session, Kind.policy, policy.key, report.revision)
    return promises.realised(of, report, saved.id, currency)


def line(policy: Policy, found: Realised | None, names: Named, formats: Formats) -> Line:
    """Return a policy as the list shows it."""
    rules = list(_rules(policy, None, names, formats))
    serves = [gettext("%(who)s gets “%(variant)s”", who=rule.words, variant=rule.variant) for rule in rules]
    if len(serves) > _LISTED:
        rest = len(serves) - _SHORT - 1
        more = ngettext("%(num)s more rule", "%(num)s more rules", rest)
        serves = [*serves[:_SHORT], more, serves[-1]]
    promise = None if policy.promise is None or policy.promise.relative is None else policy.promise.relative
    delivery = found.delivery if found is not None else ""
    return Line(
        key=policy.key,
        name=policy.name,
        status=policy.status,
        status_label=sentences.known(targeting.POLICY_STATUSES, policy.status),
        serves=serves,
        holdback=formats.percent(policy.holdback.share),
        promised="" if promise is None else _lift(Interval(**promise.model_dump()), formats),
        realised=_lift(found.realised, formats)
        if found is not None and found.realised is not None and found.delivery is not Delivery.invalid
        else "",
        delivery=delivery,
        tone=_TONES.get(delivery, "keep_running"),
        delivery_label=sentences.known(targeting.DELIVERIES, delivery) if delivery else "",
    )


def shown(policy: Policy, found: Realised | None, report: Report | None, names: Named, formats: Formats) -> Shown:
    """Return what the page of a policy shows."""
    promise = policy.promise
    promised = None if promise is None or promise.relative is None else Interval(**promise.relative.model_dump())
    trusted = found is not None and found.delivery is not Delivery.invalid
    realised = found.realised if found is not None and trusted else None
    metric = found.metric if found is not None else promise.metric if promise is not None else ""
    money = None if promise is None else promise.value_per_month
    return Shown(
        rules=list(_rules(policy, report if trusted else None, names, formats)),
        holdback=formats.percent(policy.holdback.share),
        source=sentences.known(targeting.SOURCES, policy.source.kind) if policy.source is not None else "",
        audience=conditions.words(policy.audience, formats) if policy.audience else "",
        tone=_TONES[found.delivery] if found is not None else "keep_running",
        label=sentences.known(targeting.DELIVERIES, found.delivery)
        if found is not None
        else gettext("Not measured yet"),
        sentence=_sentence(promised, realised, formats),
        explained=_explained(found),
        metric=names.metrics.get(metric, metric),
        promised="" if promised is None else _lift(promised, formats),
        realised="" if realised is None else _lift(realised, formats),
        money_promised="" if money is None else _money(MoneyInterval(**money.model_dump()), formats),
        money_realised=_money(found.realised_value, formats)
        if found is not None and trusted and found.realised_value is not None
        else "",
        treated=formats.count(found.treated) if found is not None else "",
        held_back=formats.count(found.held_back) if found is not None else "",
        chart=_chart(policy, promised, found, report, names, formats) if trusted and realised is not None else None,
    )


def _sentence(promised: Interval | None, realised: Interval | None, formats: Formats) -> str:
    if promised is not None and realised is not None:
        return gettext(
            "Promised %(promised)s, realised %(realised)s",
            promised=formats.relative(promised)[0],
            realised=_lift(realised, formats),
        )
    if realised is not None:
        return gettext("Realised %(realised)s", realised=_lift(realised, formats))
    if promised is not None:
        return gettext("Promised %(promised)s, nothing measured yet", promised=formats.relative(promised)[0])
    return gettext("Nothing was promised, and nothing is measured yet")


def _explained(found: Realised | None) -> str:
    if found is None:
        return ""
    said = sentences.known(targeting.DELIVERY_SENTENCES, found.delivery)
    if found.delivery is Delivery.not_measured and found.problem is not None:
        return sentences.known(sentences.PROBLEMS, found.problem)
    return said


def _rules(policy: Policy, report: Report | None, names: Named, formats: Formats) -> Iterator[Rule]:
    variants = {variant.key: variant.name or variant.key for variant in policy.variants}
    metric = None if report is None else _metric(policy, report)
    said = {rule.name: _who(rule.segment, rule.condition, names, formats) for rule in policy.rules}
    said[OTHERWISE] = gettext("Everyone else") if policy.rules else gettext("Everyone")
    for name, chosen in policy.chosen().items():
        found = {} if metric is None else _counts(metric, f"{policy.key}:{name}")
        lift = None if metric is None else _of_rule(metric, f"{policy.key}:{name}")
        yield Rule(
            words=said[name],
            variant=variants[chosen],
            treats=chosen != policy.control,
            treated=formats.count(found[ARM]) if ARM in found else "",
            held_back=formats.count(found[policy.control]) if policy.control in found else "",
            lift="" if lift is None else _lift(lift, formats),
        )


def _who(segment: str | None, condition: Mapping[str, Any] | None, names: Named, formats: Formats) -> str:
    if segment is None:
        asked = list(condition or {})
        if len(asked) == 1 and _LIST.fullmatch(asked[0]):
            return gettext("On the list of users for it")
        return conditions.words(condition, formats)
    known = names.segments.get(segment)
    return segment if known is None else known[0]


def _metric(policy: Policy, report: Report) -> MetricReport:
    wanted = report.primary().metric if policy.promise is None else policy.promise.metric
    return next((metric for metric in report.metrics if metric.metric == wanted), report.primary())


def _counts(metric: MetricReport, segment: str) -> Mapping[str, int]:
    return {arm.variant: arm.n for arm in metric.arms if arm.segment == segment}


def _of_rule(metric: MetricReport, segment: str) -> Interval | None:
    return next((c.relative for c in metric.comparisons if c.segment == segment and c.variant == ARM), None)


def _chart(
    policy: Policy,
    promised: Interval | None,
    found: Realised | None,
    report: Report | None,
    names: Named,
    formats: Formats,
) -> Chart | None:
    if found is None or found.realised is None or report is None:
        return None
    up, metric = found.direction == "up", _metric(policy, report)
    lines = [] if promised is None else [(gettext("Promised"), promised, charts.reading(promised, up=up))]
    lines.append((gettext("Realised"), found.realised, charts.reading(found.realised, up=up)))
    for number, rule in enumerate(policy.rules, 1):
        lift = _of_rule(metric, f"{policy.key}:{rule.name}")
        if lift is not None:
            lines.append((gettext("Rule %(number)s", number=number), lift, charts.reading(lift, up=up)))
    name = names.metrics.get(metric.metric, metric.metric)
    return charts.promised(lines, gettext("Change of %(metric)s, percent", metric=name))


def _lift(interval: Interval, formats: Formats) -> str:
    estimate, lower, upper = formats.relative(interval)
    return gettext("%(estimate)s (%(lower)s to %(upper)s)", estimate=estimate, lower=lower, upper=upper)


def _money(interval: MoneyInterval, formats: Formats) -> str:
    estimate, lower, upper = (
        formats.money(amount, interval.currency) for amount in (interval.estimate, interval.lower, interval.upper)
    )
    return gettext("%(estimate)s (%(lower)s to %(upper)s)", estimate=estimate, lower=lower, upper=upper)
