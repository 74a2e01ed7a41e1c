"""Making reports of a store's experiments, and finding those made.

A report is named by a digest of all that goes into it: the documents, the watermark of the lake, and the program's
version. The same inputs give the same name and the same bytes, and are saved once.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from experiments import aggregate, analysis, facts, lake, registry, report, rollout
from experiments.design import Adapting, Design, MetricSpec, ValueSpec
from experiments.documents import Experiment, Kind, Status
from experiments.errors import Conflict, NotFound
from experiments.fields import Role
from experiments.lake import Watermark
from experiments.people import Scope
from experiments.policy import Policy
from experiments.report import Report
from experiments.settings import Settings
from experiments.store import Store
from experiments.sums import Aggregates
from experiments.tables import SavedReport
from experiments.waves import label
from stats.groupsequential import Spending
from stats.posterior import Normal


@dataclass(frozen=True, slots=True)
class Saved:
    """A report as saved: its name, when it was made, its bytes."""

    id: str
    created_at: datetime
    body: bytes

    @property
    def report(self) -> Report:
        """The report; raise Conflict, ``report_unreadable``, when another version of the program made it."""
        try:
            return report.decode(self.body)
        except msgspec.ValidationError:
            detail = f"the report {self.id!r} was made by another version of the program: make it again"
            raise Conflict("report_unreadable", detail) from None


@dataclass(frozen=True, slots=True)
class Entry:
    """A saved report in a list."""

    id: str
    created_at: datetime
    revision: int
    phase: int
    watermark: int


@dataclass(frozen=True, slots=True)
class Use:
    """A metric as an experiment uses it."""

    metric: Any
    role: Role
    margin: float | None
    revision: int


def make(store: Store, key: str, *, now: datetime, watermark: int | None = None, kind: Kind = Kind.experiment) -> Saved:
    """Analyse an experiment, or what a policy does to those whom its rules treat, and save the report.

    Args:
        store: the store.
        key: the experiment or policy.
        now: the present; newer rows are moved to the lake first.
        watermark: analyse at this earlier watermark instead, moving nothing.
        kind: which of the two.

    Raises:
        NotFound: no such experiment, policy or watermark.
        Conflict: ``not_started``; ``nobody_treated`` by any rule of the policy.
    """
    if watermark is None:
        lake.sync(store.engine, store.lake, now=now)
    with store.read() as session:
        document: Experiment | Policy = registry.get(session, kind, key)
        experiment = rollout.analysed(document) if isinstance(document, Policy) else document
        if experiment.status is Status.draft:
            raise Conflict("not_started", f"the {kind} {key!r} is a draft: start it first")
        uses = uses_of(session, experiment)
        names = {segment.key: segment.name for segment in registry.all_of(session, Kind.segment)}
        mark = lake.watermark(session, watermark)
        if mark is None:
            raise NotFound("not_found", f"there is no watermark {watermark}")
        design = design_of(experiment, uses, names, store.settings)
        arms: dict[str, dict[str, str]] = {}
        if isinstance(document, Policy):
            design, arms = _of_policy(design, document), rollout.arms(document)
        name = _digest(design, experiment, uses, mark, store.settings, arms)
        known = session.get(SavedReport, name)
        if known is not None:
            return _saved(known)
        exposures, events, aliases = (lake.files(session, store.lake, kind) for kind in ("exposure", "event", "alias"))
    scope = Scope(
        experiment=key,
        phase=experiment.phase,
        batch=mark.batch,
        as_of=mark.at,
        timezone=store.settings.timezone,
        forced=experiment.forced,
        received=experiment.reach.received if experiment.reach else None,
        trigger=experiment.reach.trigger if experiment.reach else None,
        arms=arms,
    )
    sums = sum_up(exposures, events, [use.metric for use in uses], scope, aliases)
    data = analysis.Data(
        users=sums.users,
        forced=sums.forced,
        metrics=[(spec_of(use), sums.metrics[use.metric.key]) for use in uses],
        days=sums.days,
        slices=sums.slices,
        bounds=sums.bounds,
        placebo=sums.placebo,
        placebo_bounds=sums.placebo_bounds,
        received=sums.received,
        triggered=sums.triggered,
        merged=sums.merged,
    )
    made = analysis.build(design, data, as_of=mark.at, watermark=mark.batch)
    body = report.encode(made).decode()
    row = SavedReport(
        id=name,
        experiment=_saved_under(kind, key),
        phase=experiment.phase,
        revision=experiment.revision,
        watermark=mark.batch,
        created_at=now,
        body=body,
    )
    try:
        with store.write() as session:
            session.add(row)
    except IntegrityError:
        pass  # made by another process at the same time, with the same bytes
    return Saved(name, now, body.encode())


def latest(session: Session, key: str, kind: Kind = Kind.experiment) -> Saved | None:
    """Return an experiment's newest report, or a policy's, by phase and watermark."""
    row = session.scalar(
        select(SavedReport)
        .where(SavedReport.experiment == _saved_under(kind, key))
        .order_by(SavedReport.phase.desc(), SavedReport.watermark.desc(), SavedReport.revision.desc())
        .limit(1)
    )
    return None if row is None else _saved(row)


def find(session: Session, report_id: str) -> Saved:
    """Return the report of this name; raise NotFound."""
    row = session.get(SavedReport, report_id)
    if row is None:
        raise NotFound("not_found", f"there is no report {report_id!r}")
    return _saved(row)


def listing(session: Session, key: str, kind: Kind = Kind.experiment) -> list[Entry]:
    """Return what was reported on an experiment or policy, newest first, without the reports themselves."""
    columns = (SavedReport.id, SavedReport.created_at, SavedReport.revision, SavedReport.phase, SavedReport.watermark)
    rows = session.execute(
        select(*columns)
        .where(SavedReport.experiment == _saved_under(kind, key))
        .order_by(SavedReport.phase.desc(), SavedReport.watermark.desc(), SavedReport.revision.desc())
    )
    return [Entry(*row) for row in rows]


def _saved_under(kind: Kind, key: str) -> str:
    # A policy may have the key of an experiment, and no key has a colon.
    return key if kind is Kind.experiment else f"{kind}:{key}"


def uses_of(session: Session, experiment: Experiment) -> list[Use]:
    """Return an experiment's metrics, the primary one first."""
    return [Use(*use) for use in registry.metric_uses(session, experiment)]


def _of_policy(design: Design, policy: Policy) -> Design:
    shares = rollout.shares(policy)
    if not shares:
        raise Conflict("nobody_treated", f"every rule of the policy {policy.key!r} gives the control")
    rules = {rollout.stratum(policy, rule): rule for rule in policy.chosen()}
    return replace(
        design,
        shares=shares,
        segments={stratum: rules[str(stratum)] for stratum in design.segments},
        stratified=_differ(shares),
    )


def _differ(shares: Mapping[str | None, Mapping[str, float]]) -> bool:
    return len({tuple(sorted(part.items())) for part in shares.values()}) > 1


def design_of(experiment: Experiment, uses: Sequence[Use], segment_names: dict[str, str], settings: Settings) -> Design:
    """Return what an experiment's documents plan, in the analysis' terms."""
    shares, value, plan = experiment.shares(), experiment.value, experiment.plan
    return Design(
        experiment=experiment.key,
        name=experiment.name,
        revision=experiment.revision,
        phase=experiment.phase,
        control=experiment.control,
        variants={variant.key: variant.name or variant.key for variant in experiment.variants},
        segments={s.segment: segment_names.get(s.segment, s.segment) for s in experiment.strata},
        shares=shares,
        members={s.segment: (s.segment,) for s in experiment.strata},
        dimensions={"segment": tuple(s.segment for s in experiment.strata)} if experiment.strata else {},
        stratified=_differ(shares) or experiment.adaptive is not None,
        method=plan.method,
        alpha=plan.alpha,
        planned_users=plan.planned_users,
        correction=plan.correction,
        pairs=plan.comparisons == "all_pairs",
        looks=tuple(plan.looks or ()),
        spending=None if plan.spending is None else Spending(plan.spending.name, plan.spending.parameter),
        futility=plan.futility,
        prior=None if plan.prior is None else Normal(plan.prior.mean, plan.prior.sd),
        factors={variant.key: variant.factors for variant in experiment.variants if variant.factors},
        doses=_doses(experiment),
        ended=experiment.status in (Status.stopped, Status.decided, Status.archived),
        ghosts=experiment.reach is not None and experiment.reach.trigger is not None,
        value=None
        if value is None
        else ValueSpec(
            metric=value.metric,
            margin=value.margin,
            monthly_users=value.monthly_users,
            currency=settings.currency,
            costs={variant.key: float(variant.costs.per_user) for variant in experiment.variants},
        ),
        adapting=_adapting(experiment, uses),
    )


def _adapting(experiment: Experiment, uses: Sequence[Use]) -> Adapting | None:
    if experiment.adaptive is None:
        return None
    return Adapting(
        metric=experiment.adaptive.metric or uses[0].metric.key,
        floor=experiment.adaptive.floor,
        waves={
            label(experiment.key, number): (wave.opened_at.isoformat(), wave.size)
            for number, wave in enumerate(experiment.waves, 1)
        },
    )


def _doses(experiment: Experiment) -> dict[str, float]:
    """Touches a week of each variant; a control that sets none, where all others do, is not touched at all."""
    known = {variant.key: variant.dose() for variant in experiment.variants}
    doses = {variant: dose for variant, dose in known.items() if dose is not None}
    if doses and [variant for variant in known if variant not in doses] == [experiment.control]:
        doses[experiment.control] = 0.0
    return {variant: doses[variant] for variant in known if variant in doses}


def sum_up(
    exposures: Sequence[Path],
    events: Sequence[Path],
    metrics: Sequence[Any],
    scope: Scope,
    aliases: Sequence[Path] = (),
) -> Aggregates:
    """Sum up one phase of an experiment from the lake's files, in process; see ``aggregate.from_facts``."""
    with facts.opened({"exposure": exposures, "event": events, "alias": aliases}) as found:
        return aggregate.from_facts(found.execute, found.exposures, found.events, metrics, scope, found.aliases)


def spec_of(use: Use) -> MetricSpec:
    """Return what an analysis asks of a metric."""
    metric = use.metric
    return MetricSpec(
        key=metric.key,
        name=metric.name,
        kind=metric.kind,
        role=use.role,
        direction=metric.direction,
        margin=use.margin,
        unit=metric.unit,
        horizon_days=metric.horizon_days,
        window_days=metric.window_days,
        revision=use.revision,
        quantile=getattr(metric, "quantile", None),
    )


def program_version() -> str:
    """Return the version of the installed program."""
    try:
        return version("upturn")
    except PackageNotFoundError:
        return "unknown"


def _digest(
    design: Design,
    experiment: Experiment,
    uses: Sequence[Use],
    mark: Watermark,
    settings: Settings,
    arms: Mapping[str, Mapping[str, str]],
) -> str:
    # JSON has no null keys: without strata the one row of shares goes by "", which no segment is called.
    shares: dict[str | None, Any] = {stratum or "": part for stratum, part in design.shares.items()}
    inputs = [
        program_version(),
        replace(design, shares=shares),
        sorted(experiment.forced),
        [use.metric.to_json() for use in uses],
        [(use.role, use.margin, use.revision) for use in uses],
        (mark.batch, mark.at),
        settings.timezone,
        *([arms] if arms else []),
    ]
    return hashlib.sha256(msgspec.json.encode(inputs)).hexdigest()[:32]


def _saved(row: SavedReport) -> Saved:
    return Saved(row.id, row.created_at, row.body.encode())
