"""Studies of uplift over HTTP: asked for here, worked on in a process of their own, read as they come."""

import io

import msgspec
import pyarrow.parquet as pq
from flask import Response, request
from pydantic import TypeAdapter

from experiments import export, registry
from experiments.access import Scope
from experiments.documents import Experiment, Kind
from experiments.errors import Conflict, NotFound
from experiments.uplift import report, serving, studies
from experiments.uplift.studies import StudyEntry, StudyRequest, StudyStatus
from web.api.documents import sent
from web.api.operations import Answer, Operations, actor, json_answer
from web.api.reports import CSV, PARQUET
from web.replies import JSON
from web.state import state

_REQUEST: TypeAdapter[StudyRequest] = TypeAdapter(StudyRequest)


class StudyList(msgspec.Struct, frozen=True):
    """The studies of an experiment, newest first."""

    items: list[StudyEntry]


def _ask(key: str) -> Response:
    # What comes in pieces has no length.
    wanted = sent(_REQUEST) if request.content_length or "Transfer-Encoding" in request.headers else StudyRequest()
    held = state()
    study, new = studies.ask(held.store, key, wanted, now=held.clock())
    if new:
        studies.start(held.store.settings, study.id)
    status = 200 if study.status is StudyStatus.done else 202
    return json_answer(study, status, {"Location": f"/v1/studies/{study.id}"})


def _list(key: str) -> Response:
    held = state()
    with held.store.read() as session:
        registry.revision_of(session, Kind.experiment, key)
        return json_answer(StudyList(list(studies.listing(session, key, now=held.clock()))))


def _find(study_id: str) -> studies.Study:
    held = state()
    with held.store.read() as session:
        return studies.find(session, study_id, now=held.clock())


def _one(study: str) -> Response:
    return json_answer(_find(study))


def _done(study_id: str) -> studies.Study:
    found = _find(study_id)
    if found.status is not StudyStatus.done:
        raise Conflict("study_not_done", f"the study {study_id!r} is {found.status}: wait, or ask for it again")
    return found


def _scores(study: str) -> bytes:
    path = studies.scores_path(state().store.settings, _done(study).id)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound("not_found", f"the scores of the study {study!r} are no longer in the store's folder") from None


def _scores_parquet(study: str) -> Response:
    return _file(_scores(study), study, "parquet", PARQUET)


def _scores_csv(study: str) -> Response:
    table = pq.read_table(io.BytesIO(_scores(study)))
    body = export.csv_bytes(table.column_names, table.to_pylist(), bom=request.args.get("bom") == "1")
    return _file(body, study, "csv", CSV)


def _file(body: bytes, study: str, extension: str, media: str) -> Response:
    response = Response(body, mimetype=media)
    response.headers.set("Content-Disposition", "attachment", filename=f"{study}.{extension}")
    return response


def _draft(study: str) -> Response:
    held = state()
    found = _done(study)
    assert found.report is not None
    try:
        said = report.decode(bytes(found.report))
    except msgspec.ValidationError:
        detail = f"the study {study!r} was made by another version of the program: ask for it again"
        raise Conflict("report_unreadable", detail) from None
    with held.store.write() as session:
        experiment: Experiment = registry.get(session, Kind.experiment, found.experiment, found.revision)
        body = serving.policy(experiment, study, said, found.notes, held.store.settings.currency)
        policy = registry.create(session, Kind.policy, body, actor=actor(), now=held.clock())
    return json_answer(policy.to_json(), 201, {"Location": f"/v1/policies/{policy.key}", "ETag": '"1"'})


def declare(operations: Operations) -> None:
    """Add the operations of this module."""
    study = {JSON: {"$ref": "#/components/schemas/Study"}}
    operations.add(
        "POST",
        "/experiments/{key}/uplift",
        _ask,
        name="study_uplift",
        summary="Study who gains from which variant, in the background. The same data and wishes are studied once.",
        tag="uplift",
        scope=Scope.admin,
        body={"$ref": "#/components/schemas/StudyRequest"},
        body_required=False,
        answers={
            200: Answer("The study, done before", study, ("Location",)),
            202: Answer("The study, to be asked for again", study, ("Location",)),
        },
        problems=(409, 422),
    )
    operations.add(
        "GET",
        "/experiments/{key}/uplift",
        _list,
        name="list_studies",
        summary="The studies of an experiment, newest first, without their reports.",
        tag="uplift",
        scope=Scope.read,
        answers={200: Answer("The list", {JSON: {"$ref": "#/components/schemas/StudyList"}})},
    )
    operations.add(
        "GET",
        "/studies/{study}",
        _one,
        name="get_study",
        summary="How far a study is, and its report.",
        tag="uplift",
        scope=Scope.read,
        answers={200: Answer("The study", study)},
    )
    for extension, media, handler in (("parquet", PARQUET, _scores_parquet), ("csv", CSV, _scores_csv)):
        operations.add(
            "GET",
            f"/studies/{{study}}/scores.{extension}",
            handler,
            name=f"get_scores_{extension}",
            summary=f"What a study says of each user, as {extension}.",
            tag="uplift",
            scope=Scope.read,
            answers={200: Answer("The scores", {media: {"type": "string"} if media == CSV else {}})},
            problems=(409,),
            query={"bom": {"type": "string", "enum": ["0", "1"]}} if media == CSV else None,
        )
    operations.add(
        "POST",
        "/studies/{study}/policy",
        _draft,
        name="draft_policy_of_study",
        summary="Make the draft of the policy that gives each user what the study's rules say.",
        tag="uplift",
        scope=Scope.admin,
        answers={201: Answer("The draft", {JSON: {"$ref": "#/components/schemas/Policy"}}, ("ETag", "Location"))},
        problems=(409, 422),
    )
