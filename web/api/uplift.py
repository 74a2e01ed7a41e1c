"""Studies of uplift over HTTP: asked for here, worked on in a process of their own, read as they come."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
from flask import Response, request
from pydantic import TypeAdapter

from experiments import export, registry
from experiments.access import Scope
from experiments.documents import Experiment, Kind
from experiments.errors import Conflict, NotFound
from experiments.uplift import lists, report, serving, studies
from experiments.uplift.lists import ListEntry, ListRequest
from experiments.uplift.studies import StudyEntry, StudyRequest, StudyStatus
from web.api.documents import sent
from web.api.operations import Answer, Operations, actor, json_answer
from web.api.reports import CSV, PARQUET
from web.replies import JSON
from web.state import state

_REQUEST: TypeAdapter[StudyRequest] = TypeAdapter(StudyRequest)
_LIST_REQUEST: TypeAdapter[ListRequest] = TypeAdapter(ListRequest)
_ROWS = 20_000
_BYTES = 1 << 20


class StudyList(msgspec.Struct, frozen=True):
    """The studies of an experiment, newest first."""

    items: list[StudyEntry]


class UserLists(msgspec.Struct, frozen=True):
    """The lists of an experiment, newest first."""

    items: list[ListEntry]


def _has_body() -> bool:
    # What comes in pieces has no length.
    return bool(request.content_length) or "Transfer-Encoding" in request.headers


def _ask(key: str) -> Response:
    wanted = sent(_REQUEST) if _has_body() else StudyRequest()
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


def _scores_of(study: str) -> Path:
    return _there(studies.scores_path(state().store.settings, _done(study).id), f"scores of the study {study!r}")


def _there(path: Path, what: str) -> Path:
    if not path.is_file():
        raise NotFound("not_found", f"the {what} are no longer in the store's folder")
    return path


def _scores_parquet(study: str) -> Response:
    return streamed(_scores_of(study), study, "parquet")


def _scores_csv(study: str) -> Response:
    return streamed(_scores_of(study), study, "csv")


def streamed(path: Path, name: str, extension: str) -> Response:
    """A table as a file, piece by piece: it may be of any size."""
    pieces = _lines(path, bom=request.args.get("bom") == "1") if extension == "csv" else _bytes(path)
    response = Response(pieces, mimetype=CSV if extension == "csv" else PARQUET)
    response.headers.set("Content-Disposition", "attachment", filename=f"{name}.{extension}")
    return response


def _lines(path: Path, *, bom: bool) -> Iterator[bytes]:
    with pq.ParquetFile(path) as file:
        columns = file.schema_arrow.names
        yield export.csv_bytes(columns, (), bom=bom)
        heading = len(export.csv_bytes(columns, ()))
        for batch in file.iter_batches(_ROWS):
            yield export.csv_bytes(columns, batch.to_pylist())[heading:]


def _bytes(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_BYTES):
            yield piece


def _ask_list(study: str) -> Response:
    wanted = sent(_LIST_REQUEST) if _has_body() else ListRequest()
    held = state()
    entry, new = lists.ask(held.store, study, wanted, now=held.clock())
    if new:
        lists.start(held.store.settings, entry.id)
    return json_answer(entry, 202, {"Location": f"/v1/lists/{entry.id}"})


def _lists(key: str) -> Response:
    held = state()
    with held.store.read() as session:
        registry.revision_of(session, Kind.experiment, key)
        return json_answer(UserLists(list(lists.listing(session, key, now=held.clock()))))


def _one_list(list_id: str) -> Response:
    held = state()
    with held.store.read() as session:
        return json_answer(lists.find(session, list_id, now=held.clock()))


def _users_of(list_id: str) -> Path:
    held = state()
    with held.store.read() as session:
        lists.done(session, list_id, now=held.clock())
    return _there(lists.users_path(held.store.settings, list_id), f"users of the list {list_id!r}")


def _users_parquet(list_id: str) -> Response:
    return streamed(_users_of(list_id), list_id, "parquet")


def _users_csv(list_id: str) -> Response:
    return streamed(_users_of(list_id), list_id, "csv")


def _roll_out(list_id: str) -> Response:
    held = state()
    now, currency = held.clock(), held.store.settings.currency
    with held.store.write() as session:
        policy, new = serving.roll_out(session, list_id, actor=actor(), now=now, currency=currency)
    headers = {"Location": f"/v1/policies/{policy.key}", "ETag": f'"{policy.revision}"'}
    return json_answer(policy.to_json(), 201 if new else 200, headers)


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
    _declare_files(
        operations, "/studies/{study}/scores", "scores", "What a study says of each user", _scores_parquet, _scores_csv
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
    _declare_lists(operations)


def _declare_files(
    operations: Operations, path: str, what: str, summary: str, parquet: Callable[..., Any], csv: Callable[..., Any]
) -> None:
    for extension, media, handler in (("parquet", PARQUET, parquet), ("csv", CSV, csv)):
        operations.add(
            "GET",
            f"{path}.{extension}",
            handler,
            name=f"get_{what}_{extension}",
            summary=f"{summary}, as {extension}.",
            tag="uplift",
            scope=Scope.read,
            answers={200: Answer(f"The {what}", {media: {"type": "string"} if media == CSV else {}})},
            problems=(409,),
            query={"bom": {"type": "string", "enum": ["0", "1"]}} if media == CSV else None,
        )


def _declare_lists(operations: Operations) -> None:
    entry = {JSON: {"$ref": "#/components/schemas/ListEntry"}}
    operations.add(
        "POST",
        "/studies/{study}/list",
        _ask_list,
        name="make_list",
        summary="Score users by a study's model and decide who gets what within limits, in the background.",
        tag="uplift",
        scope=Scope.admin,
        body={"$ref": "#/components/schemas/ListRequest"},
        body_required=False,
        answers={202: Answer("The list, to be asked for again", entry, ("Location",))},
        problems=(409, 422),
    )
    operations.add(
        "GET",
        "/experiments/{key}/lists",
        _lists,
        name="list_lists",
        summary="The lists of scored users of an experiment, newest first.",
        tag="uplift",
        scope=Scope.read,
        answers={200: Answer("The lists", {JSON: {"$ref": "#/components/schemas/UserLists"}})},
    )
    operations.add(
        "GET",
        "/lists/{list_id}",
        _one_list,
        name="get_list",
        summary="How far a list is, and what it comes to.",
        tag="uplift",
        scope=Scope.read,
        answers={200: Answer("The list", entry)},
    )
    _declare_files(
        operations,
        "/lists/{list_id}/users",
        "users",
        "The users of a list, with their effects and what each gets",
        _users_parquet,
        _users_csv,
    )
    policy = {JSON: {"$ref": "#/components/schemas/Policy"}}
    operations.add(
        "POST",
        "/lists/{list_id}/policy",
        _roll_out,
        name="roll_out_list",
        summary="Make the draft of the policy that serves a list, or give the policy there is the list's rules.",
        tag="uplift",
        scope=Scope.admin,
        answers={
            200: Answer("The new revision of the policy", policy, ("ETag", "Location")),
            201: Answer("The draft", policy, ("ETag", "Location")),
        },
        problems=(409, 422),
    )
