"""Lists of users scored by a study's model: asked for, made in a process of their own, rolled out as a policy.

What the list gives a user is written as an attribute of his, through the same door as all attributes. Its value names
the variant and the list (``gift@1f3a9c2e``), so nobody is ever served a mixture of two lists. Lists of an experiment
take turns with three attributes: while one is written, the policy goes on with another, and the one before that is kept
for the way back.
"""

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import Field
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from experiments import database, registry, rollout
from experiments.documents import Kind, parse
from experiments.errors import Conflict, FieldProblem, InvalidDocument, NotFound
from experiments.fields import Condition, Document, Key
from experiments.policy import Policy, PolicyStatus
from experiments.report import Interval, Struct
from experiments.settings import Settings
from experiments.store import Store
from experiments.tables import Revision, SavedList
from experiments.uplift import model, report, studies
from experiments.uplift.studies import SILENCE, Failure, Study, StudyStatus

SLOTS: Final = 3
MODULE: Final = "experiments.uplift.list_job"


class ListRequest(Document):
    """Whom to score, and how much there is to give.

    ``who``: the ``participants`` of the study; the ``users`` on record, those of a ``segment`` or ``audience`` if one
    is named; or those of a ``file``, from the command line. ``budget`` is money, ``contacts`` users not in the control,
    ``stock`` the users that a variant is there for. ``allowed``: who may get a variant, such as {"push":
    {"pushes_30d": {"$lt": 4}}}. ``write`` keeps what each user gets as an attribute of his, which a policy needs.
    """

    who: Literal["participants", "users", "file"] = "participants"
    segment: Key | None = None
    audience: Condition | None = None
    budget: Annotated[float, Field(gt=0)] | None = None
    contacts: Annotated[int, Field(ge=0)] | None = None
    stock: dict[Key, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    allowed: dict[Key, Condition] = Field(default_factory=dict)
    write: bool = True
    refresh_days: int = Field(default=30, ge=1, le=366)


class Worth(Struct, frozen=True):
    """What a policy is worth on users whom its models have not seen, per user of all, net of costs.

    ``treated``: the share not in the control. ``spent``: the mean cost beyond the control's. ``baseline``: the mean of
    the metric, without treatment, of those treated.
    """

    over_control: Interval
    treated: float
    spent: float
    baseline: float | None


class ListMade(Struct, frozen=True, kw_only=True):
    """A list.

    ``variants``: how many users get each. ``cost``: beyond the control's. ``expected``: what is predicted to be gained
    over the control, net of costs, by all; ``gap``: what the best choice within the limits could gain beyond that, at
    most. ``price``, ``contact_price``, ``stock_prices``: what one more unit of each limit would bring. ``worth``: of
    choosing like that among the users studied, whose outcome is known; None where ``allowed`` bars some. ``missing``:
    of which share of the users a feature is unknown here, and was in the study. ``written``: attributes newly stored.
    """

    experiment: str
    metric: str
    learner: str
    watermark: int
    scored_at: str
    refresh_by: str
    attribute: str
    version: str
    users: int
    variants: dict[str, int]
    cost: float
    expected: float
    gap: float
    price: float
    contact_price: float
    stock_prices: dict[str, float]
    worth: Worth | None
    missing: dict[str, tuple[float, float]]
    unused: list[str]
    written: int
    refused: int

    def value_of(self, variant: str) -> str:
        """Return what the attribute holds of who gets a variant."""
        return f"{variant}@{self.version}"


class ListEntry(Struct, frozen=True, kw_only=True):
    """A list as it stands. ``progress`` goes from 0 to 1; ``made`` is there when it is done."""

    id: str
    study: str
    experiment: str
    status: StudyStatus
    progress: float
    created_at: str
    finished_at: str | None
    settings: dict[str, Any]
    error: Failure | None
    made: ListMade | None


def ask(
    store: Store, study_id: str, request: ListRequest, *, now: datetime, file: Path | None = None, unit: str = ""
) -> tuple[ListEntry, bool]:
    """Put a list on record, and tell whether it has to be started.

    Args:
        store: the store.
        study_id: of the study whose model scores.
        request: whom to score, and the limits.
        now: the present.
        file: of the users, where the request says so.
        unit: its column of ids.

    Raises:
        NotFound: no such study or segment.
        Conflict: ``study_not_done``; ``not_usable``, a study that found no list better than a random one; ``no_model``,
            ``model_outdated``; ``list_running``, another one.
        InvalidDocument: limits that do not fit the study.
    """
    with store.read() as session:
        study = _usable(session, study_id, now)
        if request.segment is not None:
            registry.get(session, Kind.segment, request.segment)
    card = model.card(model.path(store.settings, study_id))
    _check(request, card, file)
    settings = request.to_json() | {"file": None if file is None else str(file.absolute()), "unit": unit}
    body = msgspec.json.encode(settings).decode()
    name = hashlib.sha256(msgspec.json.encode([study_id, settings, now])).hexdigest()[:32]
    with store.write() as session:
        if database.is_postgres(store.engine):
            session.execute(text("SELECT pg_advisory_xact_lock(hashtext('upturn.lists'))"))
        for other in session.scalars(select(SavedList).where(SavedList.status.in_(("queued", "running")))):
            if now - other.beat_at > SILENCE:
                continue
            if (other.study, other.settings) == (study_id, body):
                return _entry(other, now), False
            raise Conflict("list_running", f"the list {other.id!r} is under way: ask when it is done")
        row = SavedList(
            id=name,
            study=study_id,
            experiment=study.experiment,
            slot=_slot(session, study.experiment),
            status=StudyStatus.queued,
            progress=0.0,
            created_at=now,
            beat_at=now,
            finished_at=None,
            settings=body,
            body=None,
            error=None,
        )
        return _entry(session.merge(row), now), True


def _usable(session: Session, study_id: str, now: datetime) -> Study:
    study = studies.find(session, study_id, now=now)
    if study.status is not StudyStatus.done or study.report is None:
        raise Conflict("study_not_done", f"the study {study_id!r} is {study.status}: wait, or ask for it again")
    try:
        found = report.decode(bytes(study.report))
    except msgspec.ValidationError:
        detail = f"the study {study_id!r} was made by another version of the program: ask for it again"
        raise Conflict("report_unreadable", detail) from None
    if not found.usable or found.verdict == "invalid":
        raise Conflict("not_usable", f"the study {study_id!r} gives no reason to treat users differently")
    return study


def _check(request: ListRequest, card: model.Card, file: Path | None) -> None:
    found = []
    treatments = card.variants[1:]
    for option, named in (("stock", request.stock), ("allowed", request.allowed)):
        for variant in named:
            if variant not in treatments:
                remedy = f"name one of {', '.join(treatments)}"
                found.append(FieldProblem(f"{option}.{variant}", variant, "unknown_variant", remedy))
    if request.budget is not None and not any(cost > card.costs[0] for cost in card.costs):
        remedy = "give contacts instead: no variant costs more than the control"
        found.append(FieldProblem("budget", request.budget, "inconsistent", remedy))
    if request.who != "users" and (request.segment or request.audience is not None):
        option = "segment" if request.segment else "audience"
        found.append(FieldProblem(option, request.segment, "inconsistent", 'give it with "who": "users"'))
    if request.segment and request.audience is not None:
        found.append(FieldProblem("audience", request.segment, "inconsistent", "give a segment or an audience"))
    if (request.who == "file") != (file is not None):
        found.append(
            FieldProblem("who", request.who, "inconsistent", "files are read by the command: upturn list make")
        )
    if found:
        raise InvalidDocument(found, "request")


def attribute(experiment: str, slot: int) -> str:
    """Return the name of an attribute of an experiment's lists. A dot would lead into an object, and keys have no ~."""
    return f"upturn_{experiment.replace('.', '~')}_{slot}"


def _slot(session: Session, experiment: str) -> int:
    """The first attribute that neither the policy nor its way back asks for, nor the newest list if that can be."""
    served = _served(session, experiment)
    rows = session.scalars(
        select(SavedList).where(SavedList.experiment == experiment).order_by(SavedList.created_at.desc())
    )
    newest = next((row.slot for row in rows if row.status == StudyStatus.done), 0)
    free = [slot for slot in range(1, SLOTS + 1) if attribute(experiment, slot) not in served]
    # Served are two at most, so one is free.
    return next((slot for slot in free if slot != newest), free[0])


def _served(session: Session, key: str) -> set[str]:
    """The attributes that the newest revision of a policy asks for, and the one that a roll-back would serve."""
    bodies = session.scalars(
        select(Revision.body)
        .where(Revision.kind == Kind.policy, Revision.key == key)
        .order_by(Revision.revision.desc())
    )
    newest: Policy | None = None
    for body in bodies:
        policy: Policy = parse(Kind.policy, body)
        if newest is None:
            newest = policy
        elif policy.status is not PolicyStatus.draft and not rollout.alike(policy, newest):
            return _asked(newest, key) | _asked(policy, key)
    return set() if newest is None else _asked(newest, key)


def _asked(policy: Policy, key: str) -> set[str]:
    pattern = re.compile(rf"{re.escape(attribute(key, 0)[:-1])}\d+")
    return {name for rule in policy.rules for name in rule.condition or {} if pattern.fullmatch(name)}


def start(settings: Settings, list_id: str) -> None:
    """Start the process of a list, which outlives this one."""
    studies.start(settings, list_id, MODULE)


def find(session: Session, list_id: str, *, now: datetime) -> ListEntry:
    """Return a list; raise NotFound."""
    row = session.get(SavedList, list_id)
    if row is None:
        raise NotFound("not_found", f"there is no list {list_id!r}")
    return _entry(row, now)


def listing(session: Session, experiment: str, *, now: datetime) -> Sequence[ListEntry]:
    """Return the lists of an experiment, newest first."""
    found = select(SavedList).where(SavedList.experiment == experiment)
    return [_entry(row, now) for row in session.scalars(found.order_by(SavedList.created_at.desc(), SavedList.id))]


def row_of(session: Session, list_id: str) -> SavedList:
    """Return a list's row, to be changed; raise NotFound."""
    row = session.get(SavedList, list_id, with_for_update=True)
    if row is None:
        raise NotFound("not_found", f"there is no list {list_id!r}")
    return row


def users_path(settings: Settings, list_id: str) -> Path:
    """Return where the table of a list's users is."""
    return settings.folder / "lists" / f"{list_id}.parquet"


def done(session: Session, list_id: str, *, now: datetime) -> ListMade:
    """Return what a list holds; raise NotFound, or Conflict ``list_not_done``."""
    found = find(session, list_id, now=now)
    if found.made is None:
        raise Conflict("list_not_done", f"the list {list_id!r} is {found.status}: wait, or ask for it again")
    return found.made


def _entry(row: SavedList, now: datetime) -> ListEntry:
    status = StudyStatus(row.status)
    error = None if row.error is None else msgspec.json.decode(row.error, type=Failure)
    if status in (StudyStatus.queued, StudyStatus.running) and now - row.beat_at > SILENCE:
        status = StudyStatus.failed
        error = Failure("process_died", "its process has been silent for two minutes: ask for the list again")
    return ListEntry(
        id=row.id,
        study=row.study,
        experiment=row.experiment,
        status=status,
        progress=row.progress,
        created_at=row.created_at.isoformat(),
        finished_at=None if row.finished_at is None else row.finished_at.isoformat(),
        settings=msgspec.json.decode(row.settings),
        error=error,
        made=None if row.body is None else msgspec.json.decode(row.body, type=ListMade),
    )
