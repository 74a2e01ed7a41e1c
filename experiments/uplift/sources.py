"""Whom a list is made of: the users studied, the users on record, or those of a file; in chunks, with their effects."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

import duckdb
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import select

from experiments import facts, lake, registry, rows
from experiments.documents import Experiment, Kind
from experiments.errors import FieldProblem, InvalidDocument, NotFound
from experiments.sdk.conditions import compile_condition
from experiments.store import Store
from experiments.tables import Identity, UserAttributes
from experiments.uplift.model import Card, Known, Model, check_columns, values
from experiments.uplift.participants import ATTRIBUTE

Floats = npt.NDArray[np.float64]
CHUNK: Final = 50_000
_OBJECT = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some users: their ids, the effect of each variant (n, K-1), and what is known of them."""

    users: list[str]
    effects: Floats
    attributes: Sequence[Mapping[str, Any]]


@dataclass(slots=True)
class Seen:
    """What was found out on the way.

    Attributes:
        unused: columns that the model does not know.
        missing: of each feature, of how many users it was not known.
        users: their number.
    """

    unused: list[str] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=dict)
    users: int = 0

    def count(self, features: Mapping[str, Floats]) -> None:
        """Count what is not known."""
        for name, column in features.items():
            self.missing[name] = self.missing.get(name, 0) + int(np.isnan(column).sum())
            users = column.size
        self.users += users

    def check(self, card: Card) -> None:
        """Refuse a feature that was known in the study, and of nobody here: then it goes by another name."""
        lost = [each.name for each in card.features if each.missing < 1 and self.missing.get(each.name) == self.users]
        if self.users and lost:
            remedy = f"it is known of nobody here, and the model of the study {card.study!r} asks for it"
            raise InvalidDocument([FieldProblem(name, None, "missing_feature", remedy) for name in lost], "request")


class Source(Protocol):
    """Whom a list is made of."""

    def chunks(self, model: Model, seen: Seen) -> Iterator[Chunk]: ...


@dataclass(frozen=True, slots=True)
class Participants:
    """The users studied, with the effects of models that have not seen them."""

    store: Store
    scores: Path

    def chunks(self, model: Model, seen: Seen) -> Iterator[Chunk]:
        """Yield the users of the study's table of scores."""
        columns = [f"effect:{variant}" for variant in model.card.variants[1:]]
        with pq.ParquetFile(self.scores) as file:
            for batch in file.iter_batches(CHUNK, columns=["user", *columns]):
                users = [str(user) for user in batch["user"].to_pylist()]
                known = self.store.lookup.users(users)
                attributes = [known[user].attributes if user in known else {} for user in users]
                seen.users += len(users)
                yield Chunk(users, np.column_stack([batch[name].to_numpy() for name in columns]), attributes)


@dataclass(frozen=True, slots=True)
class OnRecord:
    """The users on record, those of an audience where there is one.

    Args:
        store: the store.
        condition: who is wanted.
        revision: of the experiment studied.
        now: the moment for which it is asked what a user did before.
    """

    store: Store
    condition: Mapping[str, Any] | None
    revision: int
    now: datetime

    def chunks(self, model: Model, seen: Seen) -> Iterator[Chunk]:
        """Yield the users by their ids; of somebody with several, the last one."""
        matches = None if self.condition is None else compile_condition(self.condition)
        last = ""
        with ExitStack() as opened:
            past = self._past(model.card, opened)
            while found := self._after(last):
                last = found[-1][0]
                known = [(user, _OBJECT.decode(text)) for user, text in found]
                known = [(user, attributes) for user, attributes in known if matches is None or matches(attributes)]
                if not known:
                    continue
                users, attributes = [user for user, _ in known], [each for _, each in known]
                before = past(users)
                features = {
                    each.name: before[each.name]
                    if each.name in before
                    else values(each, [_known(given, each) for given in attributes])
                    for each in model.card.features
                }
                seen.count(features)
                yield Chunk(users, model.effects(features), attributes)

    def _after(self, last: str) -> list[tuple[str, str]]:
        others = select(Identity.other_id).where(Identity.other_id == UserAttributes.user_id).exists()
        query = select(UserAttributes.user_id, UserAttributes.attributes).where(UserAttributes.user_id > last, ~others)
        with self.store.read() as session:
            return [(user, text) for user, text in session.execute(query.order_by(UserAttributes.user_id).limit(CHUNK))]

    def _past(self, card: Card, opened: ExitStack) -> Any:
        """What tells the ``before.`` features of users, where the model has any."""
        if all(each.name.startswith(ATTRIBUTE) for each in card.features):
            return lambda _: {}
        mark = lake.sync(self.store.engine, self.store.lake, now=self.now)
        with self.store.read() as session:
            experiment: Experiment = registry.get(session, Kind.experiment, card.experiment, self.revision)
            metrics = [metric for metric, _, _, _ in registry.metric_uses(session, experiment)]
            files = {kind: lake.files(session, self.store.lake, kind) for kind in lake.SCHEMAS}
        metric = rows.chosen_metric(metrics, card.metric)
        found = opened.enter_context(facts.opened(files))
        return lambda users: rows.behaviour(found, users, metrics, metric, at=self.now, batch=mark.batch)


def _known(attributes: Mapping[str, Any], feature: Known) -> Any:
    """An attribute by its path, or whether a list has an element: as the rows of the study were read."""
    path = feature.name.removeprefix(ATTRIBUTE)
    found = _at(attributes, path)
    if found is None and feature.kind == "flag" and "=" in path:
        listed, _, element = path.partition("=")
        members = _at(attributes, listed)
        return element in map(str, members) if isinstance(members, list) else None
    return None if isinstance(found, dict | list) else found


def _at(attributes: Mapping[str, Any], path: str) -> Any:
    if path in attributes:
        return attributes[path]
    found: Any = attributes
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


@dataclass(frozen=True, slots=True)
class InFile:
    """The users of a CSV or Parquet file, a row each; ``unit`` is the column of their ids."""

    file: Path
    unit: str

    def chunks(self, model: Model, seen: Seen) -> Iterator[Chunk]:
        """Yield the users in the order of the file."""
        if not self.file.is_file():
            problem = FieldProblem("file", str(self.file), "not_found", "name a CSV or Parquet file")
            raise InvalidDocument([problem], "command")
        try:
            with duckdb.connect() as engine:
                yield from self._read(engine, model, seen)
        except duckdb.Error as error:
            remedy = f"give a CSV (UTF-8) or Parquet file: {str(error).splitlines()[0]}"
            problem = FieldProblem("file", self.file.name, "unreadable", remedy)
            raise InvalidDocument([problem], "file") from None

    def _read(self, engine: duckdb.DuckDBPyConnection, model: Model, seen: Seen) -> Iterator[Chunk]:
        name = str(self.file)
        if self.file.suffix == ".parquet":
            found = engine.read_parquet(name)
        else:
            # 007 is no number where it is an id.
            texts = {each for each in engine.read_csv(name, all_varchar=True).columns if each == self.unit}
            found = engine.read_csv(name, sample_size=-1, dtype=dict.fromkeys(texts, "VARCHAR"))
        if self.unit not in found.columns:
            remedy = f"name the column of the user's id: {', '.join(found.columns[:20])}"
            raise InvalidDocument([FieldProblem("unit", self.unit, "missing_column", remedy)], "file")
        columns, unused = check_columns(model.card, [column for column in found.columns if column != self.unit])
        seen.unused += unused
        unit = self.unit.replace('"', '""')
        # An empty id is no other user.
        total, different = found.aggregate(f'count(*), count(DISTINCT "{unit}")').fetchall()[0]
        if different < total:
            problem = FieldProblem(self.unit, f"{total - different} rows", "not_unique", "give each user once")
            raise InvalidDocument([problem], "file")
        for batch in pa.RecordBatchReader.from_stream(found):
            for start in range(0, batch.num_rows, CHUNK):
                part = batch.slice(start, CHUNK)
                features = {
                    each.name: values(each, part[columns[each.name]].to_pylist()) for each in model.card.features
                }
                seen.count(features)
                ids = [str(user) for user in part[self.unit].to_pylist()]
                yield Chunk(ids, model.effects(features), part.to_pylist())


def allowed(
    chunk: Chunk, variants: Sequence[str], conditions: Mapping[str, Mapping[str, Any]]
) -> npt.NDArray[np.bool_]:
    """Return which variants (n, K) each user may get: those whose condition fits him, or that have none."""
    may = np.ones((len(chunk.users), len(variants)), dtype=np.bool_)
    for variant, condition in conditions.items():
        matches = compile_condition(condition)
        may[:, variants.index(variant)] = [matches(attributes) for attributes in chunk.attributes]
    return may


def require_scores(path: Path) -> Path:
    """Return the path of a study's scores; raise NotFound where they are gone."""
    if not path.is_file():
        raise NotFound("not_found", "the study's scores are no longer in the store's folder: ask for it again")
    return path
