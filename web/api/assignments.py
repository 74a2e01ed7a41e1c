"""Which variant a user gets. Assignment is not exposure: nothing is recorded here."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from flask import Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from experiments import registry
from experiments.access import Scope
from experiments.sdk.assignment import Evaluator, Reason
from experiments.store import Store
from experiments.tables import StoredAssignment, UserAttributes
from web.api import payload
from web.api.operations import JSON, Answer, Operations, conditional, json_answer
from web.state import state

MAX_USERS = 10_000

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
_Names = Annotated[list[str], msgspec.Meta(max_length=1_000)]


class User(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user, and what the caller knows of him; it is merged over what was received earlier."""

    user: _Id
    attributes: dict[str, Any] = {}


class OneUser(User, frozen=True, forbid_unknown_fields=True):
    """The variants of one user, in all running experiments or in those named."""

    experiments: _Names | None = None


class ManyUsers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The variants of many users at once."""

    users: Annotated[list[User], msgspec.Meta(max_length=MAX_USERS)]
    experiments: _Names | None = None


class Assigned(msgspec.Struct, frozen=True):
    """The answer for one experiment; without a variant, ``reason`` says why."""

    variant: str | None
    tactic: dict[str, Any] | None
    reason: Reason
    stratum: str | None
    phase: int
    revision: int


class UserAssignments(msgspec.Struct, frozen=True):
    """The answers for one user, by experiment."""

    user: str
    assignments: dict[str, Assigned]


class ManyAssignments(msgspec.Struct, frozen=True):
    """The answers for many users, in the order asked for."""

    users: list[UserAssignments]


class _Shape(msgspec.Struct, frozen=True):
    users: msgspec.Raw = msgspec.Raw()


_SHAPE = msgspec.json.Decoder(_Shape)
_ONE = msgspec.json.Decoder(OneUser)
_MANY = msgspec.json.Decoder(ManyUsers)
_OBJECT = msgspec.json.Decoder(dict[str, Any])


def answer(store: Store, body: bytes) -> UserAssignments | ManyAssignments:
    """Return the assignments that a request's JSON text asks for.

    Raises:
        RequestRefused: the body is not JSON.
        InvalidDocument: it is JSON of another shape.
    """
    try:
        if bytes(_SHAPE.decode(body).users):
            many = _MANY.decode(body)
            return ManyAssignments(_assign(store, many.users, many.experiments))
        one = _ONE.decode(body)
        return _assign(store, [one], one.experiments)[0]
    except msgspec.ValidationError as error:
        raise payload.misshaped(error, "request") from None
    except msgspec.DecodeError as error:
        raise payload.malformed(error) from None


def _assign(store: Store, users: Sequence[User], experiments: Sequence[str] | None) -> list[UserAssignments]:
    with store.read() as session:
        evaluator = store.catalog(session).evaluator
        names = {user.user for user in users}
        stored = _stored(session, names)
        known = _known_attributes(session, names)
    keys = experiments
    if keys is None:
        keys = [key for key, experiment in evaluator.experiments.items() if experiment.running]
    answers = []
    for user in users:
        attributes = known.get(user.user, {}) | user.attributes
        answers.append(UserAssignments(user.user, {k: _one(evaluator, k, user.user, attributes, stored) for k in keys}))
    return answers


def _one(
    evaluator: Evaluator,
    key: str,
    user: str,
    attributes: Mapping[str, object],
    stored: Mapping[tuple[str, str, int], tuple[str, str | None]],
) -> Assigned:
    experiment = evaluator.experiments.get(key)
    if experiment is None:
        return Assigned(None, None, Reason.unknown_experiment, None, 0, 0)
    variant, stratum = stored.get((user, key, experiment.phase), (None, None))
    found = experiment.assign(user, attributes, variant)
    tactic = None if found.tactic is None else dict(found.tactic)
    stratum = stratum if found.reason is Reason.sticky else found.stratum
    return Assigned(found.variant, tactic, found.reason, stratum, found.phase, found.revision)


def _stored(session: Session, users: Iterable[str]) -> dict[tuple[str, str, int], tuple[str, str | None]]:
    columns = (
        StoredAssignment.user_id,
        StoredAssignment.experiment,
        StoredAssignment.phase,
        StoredAssignment.variant,
        StoredAssignment.stratum,
    )
    rows = session.execute(select(*columns).where(StoredAssignment.user_id.in_(users)))
    return {(user, key, phase): (variant, stratum) for user, key, phase, variant, stratum in rows}


def _known_attributes(session: Session, users: Iterable[str]) -> dict[str, dict[str, Any]]:
    columns = (UserAttributes.user_id, UserAttributes.attributes)
    rows = session.execute(select(*columns).where(UserAttributes.user_id.in_(users)))
    return {user: _OBJECT.decode(text) for user, text in rows}


def _assignments() -> Response:
    return json_answer(answer(state().store, payload.body()))


def _snapshot() -> Response:
    with state().store.read() as session:
        version = registry.version(session)
        response = conditional(Response(mimetype=JSON), str(version))
        if response.status_code != 304:
            response.set_data(msgspec.json.encode(registry.snapshot(session)))
    return response


def declare(operations: Operations) -> None:
    """Add the operations of this module."""
    operations.add(
        "POST",
        "/assignments",
        _assignments,
        name="assign",
        summary="Variants of one user, or of up to 10,000. Records nothing.",
        tag="assignment",
        scope=Scope.assign,
        body={"oneOf": [{"$ref": "#/components/schemas/OneUser"}, {"$ref": "#/components/schemas/ManyUsers"}]},
        answers={
            200: Answer(
                "The variants",
                {
                    JSON: {
                        "oneOf": [
                            {"$ref": "#/components/schemas/UserAssignments"},
                            {"$ref": "#/components/schemas/ManyAssignments"},
                        ]
                    }
                },
            )
        },
        problems=(422,),
    )
    operations.add(
        "GET",
        "/snapshot",
        _snapshot,
        name="get_snapshot",
        summary="Everything an SDK needs to assign users by itself.",
        tag="assignment",
        scope=Scope.assign,
        answers={
            200: Answer("The snapshot", {JSON: {"$ref": "#/components/schemas/Snapshot"}}, ("ETag",)),
            304: Answer("The caller has the newest one"),
        },
        headers=("If-None-Match",),
    )
