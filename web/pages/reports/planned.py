"""The plan in words, what was planned beside what was reached, and the document itself."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.documents import Experiment, Segment
from experiments.fields import Role
from experiments.report import Report
from web import sentences
from web.formats import Formats
from web.languages import gettext, ngettext
from web.pages.reports import waves
from web.pages.reports.parts import Grid, grid

# A metric as an experiment uses it: the document, its role, its margin, its revision.
Use = tuple[Any, Role, float | None, int]


@dataclass(frozen=True, slots=True)
class Planned:
    """``sentences``: the plan; ``reached``: planned beside reached, where there is a report; ``digest``: SHA-256."""

    sentences: list[str]
    reached: Grid | None
    split: Grid
    document: str
    digest: str


def planned(
    experiment: Experiment,
    report: Report | None,
    uses: Sequence[Use],
    segments: Mapping[str, Segment],
    formats: Formats,
) -> Planned:
    """Return what the tab shows of an experiment's plan."""
    text = json.dumps(experiment.to_json(), ensure_ascii=False, indent=2, sort_keys=True)
    return Planned(
        list(_sentences(experiment, uses, formats)),
        None if report is None else _reached(report, formats),
        _split(experiment, segments, formats),
        text,
        digest(experiment),
    )


def digest(experiment: Experiment) -> str:
    """Return the SHA-256 of a document: of its JSON with sorted keys and no spaces, in UTF-8."""
    text = json.dumps(experiment.to_json(), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _sentences(experiment: Experiment, uses: Sequence[Use], formats: Formats) -> Iterator[str]:
    named = {metric.key: metric.name for metric, *_ in uses}
    plan, names = experiment.plan, {v.key: v.name or v.key for v in experiment.variants}
    treatments = [name for key, name in names.items() if key != experiment.control]
    yield gettext(
        "Compare %(variants)s with %(control)s by %(metric)s.",
        variants=formats.names(treatments),
        control=names[experiment.control],
        metric=uses[0][0].name,
    )
    others = [metric.name for metric, role, *_ in uses[1:] if role is not Role.guardrail]
    if others:
        yield gettext("Also watched: %(metrics)s.", metrics=formats.names(others))
    for metric, role, margin, _ in uses:
        if role is Role.guardrail and margin is not None:
            limit = formats.change(metric.unit, margin if metric.direction == "down" else -margin, margin)
            yield gettext("Guardrail: %(metric)s may change by %(limit)s at most.", metric=metric.name, limit=limit)
    yield gettext(
        "Planned size: %(users)s users over all variants.",
        users=formats.count(plan.planned_users),
    )
    yield gettext(
        "How it is read: %(method)s. Chance of a false alarm: %(alpha)s.",
        method=sentences.known(sentences.METHODS, plan.method),
        alpha=formats.percent(plan.alpha),
    )
    if plan.looks:
        looks = formats.names(formats.percent(look) for look in plan.looks)
        yield gettext("It is looked at when %(looks)s of the planned users have been compared.", looks=looks)
    if experiment.adaptive is not None:
        followed = experiment.adaptive.metric or uses[0][0].key
        yield waves.planned(experiment.adaptive, named.get(followed, followed), formats)
    if experiment.coverage < 1:
        share = formats.percent(experiment.coverage)
        yield gettext("%(share)s of the users who qualify take part.", share=share)
    if experiment.layer is not None:
        yield gettext(
            "It shares no user with the other experiments of the layer “%(layer)s”.", layer=experiment.layer.key
        )
    if experiment.holdouts:
        yield gettext("Users of these holdouts stay out: %(holdouts)s.", holdouts=formats.names(experiment.holdouts))
    if experiment.forced:
        count = len(experiment.forced)
        yield ngettext(
            "%(num)s test user has a variant given by hand.", "%(num)s test users have a variant given by hand.", count
        )
    if experiment.value is not None:
        yield gettext(
            "Worth: the change of %(metric)s per user × margin %(margin)s − extra cost, × %(users)s users a month.",
            metric=named.get(experiment.value.metric, experiment.value.metric),
            margin=formats.percent(experiment.value.margin),
            users=formats.count(experiment.value.monthly_users),
        )


def _reached(report: Report, formats: Formats) -> Grid:
    primary, size = report.primary(), report.method.planned_users
    exposed = sum(arm.exposed for arm in report.arms)
    rows = [
        [gettext("Users exposed"), "–", formats.count(exposed)],
        [gettext("Users compared"), formats.count(size) if size else "–", formats.count(primary.matured)],
        [gettext("Users whose window is still open"), "–", formats.count(primary.immature)],
    ]
    if report.method.looks:
        taken = sum(look.reached for look in report.method.looks)
        rows.append([gettext("Looks"), formats.count(len(report.method.looks)), formats.count(taken)])
    return grid([gettext("What")], [gettext("Planned"), gettext("So far")], rows)


def _split(experiment: Experiment, segments: Mapping[str, Segment], formats: Formats) -> Grid:
    names = {v.key: v.name or v.key for v in experiment.variants}
    strata = {key: segment.name for key, segment in segments.items()} | waves.waves_of(experiment)
    rows: list[list[Any]] = [
        [
            gettext("Everyone") if stratum is None else strata.get(stratum, stratum),
            *(formats.share(shares[key]) for key in names),
        ]
        for stratum, shares in experiment.shares().items()
    ]
    return grid([gettext("Wave") if experiment.waves else gettext("Segment")], list(names.values()), rows)
