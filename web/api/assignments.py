"""Which variant a user gets. Assignment is not exposure: nothing is recorded here."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import repeat
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from experiments.access import Scope
from experiments.bulk import REASONS, assign_bulk
from experiments.lookup import NOBODY, KnownUser
from experiments.sdk.assignment import Evaluator
from experiments.sdk.experiment import Assignment, CompiledExperiment, Reason
from web import payload
from web.api.operations import Answer, Operations
from web.problems import RequestRefused
from web.replies import JSON, Reply, conditional, json_reply
from web.thin import Call

MAX_USERS = 10_000
# Below, one by one is faster.
_VECTORISED_FROM = 60

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


_UNKNOWN = Assigned(None, None, Reason.unknown_experiment, None, 0, 0)


class _Shape(msgspec.Struct, frozen=True):
    users: msgspec.Raw = msgspec.Raw()


_SHAPE = msgspec.json.Decoder(_Shape)
_ONE = msgspec.json.Decoder(OneUser)
_MANY = msgspec.json.Decoder(ManyUsers)


def _assignments(call: Call) -> Reply:
    body = call.body()
    try:
        if bytes(_SHAPE.decode(body).users):
            return Reply(200, _many(call, _MANY.decode(body)))
        return json_reply(_one(call, _ONE.decode(body)))
    except msgspec.ValidationError as error:
        raise payload.misshaped(error, "request") from None
    except msgspec.DecodeError as error:
        raise payload.malformed(error) from None


def _asked(evaluator: Evaluator, keys: Sequence[str] | None) -> dict[str, CompiledExperiment | None]:
    """Return the experiments asked for, None where there is none of this key; without keys those that run."""
    if keys is None:
        return {key: experiment for key, experiment in evaluator.experiments.items() if experiment.running}
    return {key: evaluator.experiments.get(key) for key in keys}


def _one(call: Call, asked: OneUser) -> UserAssignments:
    known = call.store.lookup.users((asked.user,)).get(asked.user, NOBODY)
    return _answers(asked, known, _asked(call.catalog.evaluator, asked.experiments))


def _answers(user: User, known: KnownUser, experiments: Mapping[str, CompiledExperiment | None]) -> UserAssignments:
    attributes = known.attributes | user.attributes
    found = {
        key: _UNKNOWN if experiment is None else _told(*known.assign(experiment, user.user, attributes))
        for key, experiment in experiments.items()
    }
    return UserAssignments(user.user, found)


def _told(found: Assignment, stratum: str | None) -> Assigned:
    tactic = None if found.tactic is None else dict(found.tactic)
    return Assigned(found.variant, tactic, found.reason, stratum, found.phase, found.revision)


def _many(call: Call, asked: ManyUsers) -> bytes:
    """Return the answers in JSON, found experiment by experiment for all users at once."""
    ids = [user.user for user in asked.users]
    known = call.store.lookup.users(ids)
    experiments = _asked(call.catalog.evaluator, asked.experiments)
    if len(ids) < _VECTORISED_FROM:
        few = [_answers(user, known.get(user.user, NOBODY), experiments) for user in asked.users]
        return msgspec.json.encode(ManyAssignments(few))
    records = [known.get(user, NOBODY) for user in ids]
    attributes = [record.attributes | user.attributes for record, user in zip(records, asked.users, strict=True)]
    answers = [b'{"user":%b,"assignments":{' % msgspec.json.encode(user) for user in ids]
    columns: dict[str, npt.NDArray[Any]] = {}
    for i, (key, experiment) in enumerate(experiments.items()):
        start = b"%b%b:" % (b"," if i else b"", msgspec.json.encode(key))
        if experiment is None:
            texts: Iterable[bytes] = repeat(msgspec.json.encode(_UNKNOWN))
        else:
            for name in experiment.reads - columns.keys():
                values = (given.get(name) for given in attributes)
                columns[name] = np.fromiter(values, dtype=object, count=len(ids))
            texts = _texts(experiment, ids, columns, records)
        answers = [answer + start + text for answer, text in zip(answers, texts, strict=False)]
    return b'{"users":[%b]}' % b",".join(answer + b"}}" for answer in answers)


def _texts(
    experiment: CompiledExperiment,
    ids: Sequence[str],
    columns: Mapping[str, npt.NDArray[Any]],
    records: Sequence[KnownUser],
) -> Iterator[bytes]:
    """The answer of each user in JSON; all with the same one share its text."""
    stored = [record.stored.get((experiment.key, experiment.phase), (None, None)) for record in records]
    found = assign_bulk(experiment, ids, columns, [variant for variant, _ in stored])

    @cache
    def text(variant: int, reason: int, stratum: int, sticky_stratum: str | None) -> bytes:
        why = REASONS[reason]
        answer = experiment.answer(why, experiment.variants[variant] if variant >= 0 else None)
        segment = (experiment.waves or experiment.strata)[stratum].segment if stratum >= 0 else None
        return msgspec.json.encode(_told(answer, sticky_stratum if why is Reason.sticky else segment))

    parts = (found.variant.tolist(), found.reason.tolist(), found.stratum.tolist(), (stratum for _, stratum in stored))
    return map(text, *parts)


def _snapshot(call: Call) -> Reply:
    if call.key is not None and call.key.origins:
        # Whole documents, with hypotheses and the ids of testers.
        raise RequestRefused(403, "key_is_public", "a key for web pages cannot read the snapshot: use OFREP in pages")
    catalog = call.catalog
    headers = {"Link": f'<{call.link("/v1/stream")}>; rel="monitor"'} if call.state.streams.offered else {}
    return conditional(
        Reply(200, catalog.snapshot, JSON, headers), str(catalog.version), call.header("HTTP_IF_NONE_MATCH")
    )


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
        thin=True,
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
        thin=True,
    )
