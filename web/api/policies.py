"""Policies over HTTP, beyond what all documents have: their life, the way back, and what became of the promise."""

from functools import partial
from typing import Literal

from flask import Response
from pydantic import TypeAdapter

from experiments import promises, registry, reports
from experiments.access import Scope
from experiments.documents import Experiment, Kind, Status
from experiments.errors import Conflict, NotFound
from experiments.fields import Document
from experiments.policy import Policy, PolicyStatus
from experiments.reports import Saved
from web.api.documents import require_match, sent
from web.api.operations import Answer, Operations, actor, json_answer
from web.api.reports import ReportEntry, ReportList
from web.replies import JSON
from web.state import state


class PolicyStatusChange(Document):
    """A step through the life cycle of a policy."""

    status: PolicyStatus


class RollBack(Document):
    """What to serve again: what was served before, or the control to all."""

    to: Literal["previous", "control"]


_STATUS_CHANGE: TypeAdapter[PolicyStatusChange] = TypeAdapter(PolicyStatusChange)
_ROLL_BACK: TypeAdapter[RollBack] = TypeAdapter(RollBack)


def _draft(key: str) -> Response:
    """Make the draft of the policy that carries out an experiment's decision."""
    held = state()
    with held.store.write() as session:
        experiment: Experiment = registry.get(session, Kind.experiment, key)
        if experiment.status is not Status.decided or experiment.decision is None:
            raise Conflict("not_decided", f"the experiment {key!r} is {experiment.status}: decide it first")
        named = experiment.decision.report
        saved = reports.latest(session, key) if named is None else reports.find(session, named)
        report = None if saved is None else saved.report
        if report is not None and report.experiment != key:
            raise Conflict(
                "other_report", f"the decision names a report of {report.experiment!r}: nothing rests on that"
            )
        name = None if saved is None else saved.id
        draft = promises.from_decision(experiment, experiment.decision, report, name)
        policy = registry.create(session, Kind.policy, draft.to_json(), actor=actor(), now=held.clock())
    return json_answer(policy.to_json(), 201, {"Location": f"/v1/policies/{key}", "ETag": '"1"'})


def _move(key: str) -> Response:
    change = sent(_STATUS_CHANGE)
    held = state()
    with held.store.write() as session:
        require_match(session, Kind.policy, key)
        policy = registry.move_policy(session, key, change.status, actor=actor(), now=held.clock())
    return json_answer(policy.to_json(), headers={"ETag": f'"{policy.revision}"'})


def _roll_back(key: str) -> Response:
    wanted = sent(_ROLL_BACK)
    held = state()
    with held.store.write() as session:
        require_match(session, Kind.policy, key)
        to_control = wanted.to == "control"
        policy = registry.roll_back(session, key, to_control=to_control, actor=actor(), now=held.clock())
    return json_answer(policy.to_json(), headers={"ETag": f'"{policy.revision}"'})


def _make_report(key: str) -> Response:
    held = state()
    saved = reports.make(held.store, key, now=held.clock(), kind=Kind.policy)
    response = Response(saved.body, 201, mimetype=JSON)
    response.headers["Location"] = f"/v1/reports/{saved.id}"
    return response


def _reports(key: str) -> Response:
    with state().store.read() as session:
        registry.revision_of(session, Kind.policy, key)
        entries = reports.listing(session, key, Kind.policy)
    items = [ReportEntry(e.id, e.created_at.isoformat(), e.revision, e.phase, e.watermark) for e in entries]
    return json_answer(ReportList(items))


def _realised(key: str) -> Response:
    held = state()
    with held.store.read() as session:
        registry.revision_of(session, Kind.policy, key)
        saved: Saved | None = reports.latest(session, key, Kind.policy)
        if saved is None:
            raise NotFound("no_report", f"no report of {key!r} was made yet: POST /v1/policies/{key}/reports makes one")
        report = saved.report
        policy: Policy = registry.get(session, Kind.policy, key, report.revision)
    return json_answer(promises.realised(policy, report, saved.id, held.store.settings.currency))


def declare(operations: Operations) -> None:
    """Add the operations of this module."""
    policy = {JSON: {"$ref": "#/components/schemas/Policy"}}
    report = {JSON: {"$ref": "#/components/schemas/Report"}}
    changed = {200: Answer("The new revision", policy, ("ETag",))}
    change = partial(
        operations.add, "POST", tag="policies", scope=Scope.admin, answers=changed, problems=(409, 412, 422)
    )
    change(
        "/policies/{key}/status",
        _move,
        name="move_policy",
        summary="Start, pause, resume, stop or archive a policy.",
        body={"$ref": "#/components/schemas/PolicyStatusChange"},
        headers=("If-Match",),
    )
    change(
        "/policies/{key}/rollback",
        _roll_back,
        name="roll_back_policy",
        summary="Serve again what was served before, or the control to all.",
        body={"$ref": "#/components/schemas/RollBack"},
        headers=("If-Match",),
    )
    operations.add(
        "POST",
        "/experiments/{key}/policy",
        _draft,
        name="draft_policy",
        summary="Make the draft of the policy that carries out an experiment's decision.",
        tag="policies",
        scope=Scope.admin,
        answers={201: Answer("The draft", policy, ("ETag", "Location"))},
        problems=(409, 422),
    )
    operations.add(
        "POST",
        "/policies/{key}/reports",
        _make_report,
        name="make_policy_report",
        summary="Compare what the rules give with the users held back, now.",
        tag="policies",
        scope=Scope.admin,
        answers={201: Answer("The report", report, ("Location",))},
        problems=(409,),
    )
    operations.add(
        "GET",
        "/policies/{key}/reports",
        _reports,
        name="list_policy_reports",
        summary="The reports made of a policy, newest first.",
        tag="policies",
        scope=Scope.read,
        answers={200: Answer("The list", {JSON: {"$ref": "#/components/schemas/ReportList"}})},
    )
    operations.add(
        "GET",
        "/policies/{key}/realised",
        _realised,
        name="get_realised",
        summary="The promise beside the gain measured, of the newest report.",
        tag="policies",
        scope=Scope.read,
        answers={200: Answer("Both", {JSON: {"$ref": "#/components/schemas/Realised"}})},
        problems=(409,),
    )
