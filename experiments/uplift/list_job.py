"""The process of one list: ``python -m experiments.uplift.list_job ID``, on the store that the environment names.

Users go through it in chunks. Of all of them at once it holds the predicted effects alone, as the limits are of all.
"""

import hashlib
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy.orm import Session

from experiments import ingest, registry
from experiments.documents import Kind
from experiments.errors import FieldProblem, InvalidDocument
from experiments.uplift import lists, model, sources, studies, task
from experiments.uplift.lists import ListMade, ListRequest, Worth
from experiments.uplift.model import Model
from experiments.uplift.report import interval
from experiments.uplift.sources import Seen, Source
from experiments.uplift.task import Task
from experiments.uplift.tidy import tidy
from stats import budget, policy_value
from stats.budget import Allocation

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_BATCH = 5_000
# How far the work is when all are scored, and when it is decided who gets what.
_SCORED, _DECIDED = 0.5, 0.6


class ListWork(Task):
    """One list under way."""

    def row(self, session: Session) -> Any:
        """Return the list's row."""
        return lists.row_of(session, self.id)

    def read(self, row: Any) -> None:
        """Keep what is to be made."""
        settings = msgspec.json.decode(row.settings)
        self.study, self.experiment, self.slot = row.study, row.experiment, row.slot
        file, self.unit = settings.pop("file"), settings.pop("unit")
        self.file = None if file is None else Path(file)
        self.request = ListRequest.model_validate_json(msgspec.json.encode(settings))

    def work(self) -> dict[str, object]:
        """Score, decide, keep, and write the attributes."""
        held = self.store.settings
        found = model.load(model.path(held, self.study))
        target = lists.users_path(held, self.id)
        target.parent.mkdir(parents=True, exist_ok=True)
        seen = Seen()
        scored, part = target.with_suffix(".scored"), target.with_suffix(".part")
        try:
            effects, allowed = self._scored(found, seen, scored)
            self.reached(_SCORED)
            decided = self._decided(found, effects, allowed)
            self.reached(_DECIDED)
            written, refused = self._kept(found, decided, scored, part, len(effects))
            part.replace(target)
        finally:
            scored.unlink(missing_ok=True)
            part.unlink(missing_ok=True)
        made = self._made(found, decided, seen, written, refused)
        tidy(self.store, now=self.now)
        return {"body": msgspec.json.encode(made).decode()}

    def _source(self) -> Source:
        if self.file is not None:
            return sources.InFile(self.file, self.unit)
        if self.request.who == "participants":
            path = sources.require_scores(studies.scores_path(self.store.settings, self.study))
            return sources.Participants(self.store, path)
        with self.store.read() as session:
            condition = self.request.audience
            if self.request.segment is not None:
                condition = registry.get(session, Kind.segment, self.request.segment).condition
            study = studies.find(session, self.study, now=self.now)
        return sources.OnRecord(self.store, condition, study.revision, self.now)

    def _scored(self, found: Model, seen: Seen, path: Path) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """All effects, and who may get what; users and effects are kept in ``path`` by chunks."""
        variants = found.card.variants
        schema = pa.schema([("user", pa.string()), *((f"effect:{name}", pa.float64()) for name in variants[1:])])
        effects, allowed = [np.zeros((0, len(variants) - 1))], [np.ones((0, len(variants)), dtype=np.bool_)]
        with pq.ParquetWriter(path, schema) as writer:
            for chunk in self._source().chunks(found, seen):
                writer.write_table(pa.table([pa.array(chunk.users, pa.string()), *chunk.effects.T], schema=schema))
                effects.append(chunk.effects)
                allowed.append(sources.allowed(chunk, variants, self.request.allowed))
                # How many are to come is not known.
                self.reached(_SCORED * (1 - 1 / (1 + seen.users / sources.CHUNK / 4)))
        seen.check(found.card)
        if not seen.users:
            who = self.request.segment or self.request.who
            remedy = "nobody is there to be scored: send attributes of users, or name others"
            raise InvalidDocument([FieldProblem("who", who, "nobody", remedy)], "request")
        return np.concatenate(effects), np.concatenate(allowed)

    def _decided(self, found: Model, effects: Floats, allowed: npt.NDArray[np.bool_]) -> Allocation:
        gains, costs = _money(found, effects)
        named = self.request.stock
        stock = [np.inf, *(named.get(variant, np.inf) for variant in found.card.variants[1:])]
        wanted = self.request.budget, self.request.contacts
        return budget.allocate(gains, costs, *wanted, allowed=allowed, net=True, stock=stock if named else None)

    def _kept(self, found: Model, decided: Allocation, scored: Path, part: Path, users: int) -> tuple[int, int]:
        """Write the list's table and, where asked for, the attributes; return how many were new, how many refused."""
        variants = np.array(found.card.variants)
        costs = np.array(found.card.costs) - found.card.costs[0]
        written = refused = start = 0
        writer: pq.ParquetWriter | None = None
        try:
            with pq.ParquetFile(scored) as file:
                for batch in file.iter_batches(sources.CHUNK):
                    given = decided.policy[start : start + batch.num_rows]
                    effects = np.column_stack(
                        [np.zeros(batch.num_rows), *(column.to_numpy() for column in batch.columns[1:])]
                    )
                    net = effects[np.arange(batch.num_rows), given] - costs[given]
                    table = pa.Table.from_batches([batch])
                    table = table.append_column("variant", pa.array(variants[given])).append_column("expected", [net])
                    writer = writer or pq.ParquetWriter(part, table.schema, compression="zstd")
                    writer.write_table(table)
                    if self.request.write:
                        new, bad = self._written(batch["user"].to_pylist(), variants[given].tolist())
                        written, refused = written + new, refused + bad
                    start += batch.num_rows
                    self.reached(_DECIDED + (1 - _DECIDED) * start / users)
        finally:
            if writer is not None:
                writer.close()
        return written, refused

    def _written(self, users: list[str], variants: list[str]) -> tuple[int, int]:
        """Store the attributes, through the checks of ingest; what was stored before is not stored again."""
        new = bad = 0
        for start in range(0, len(users), _BATCH):
            items = list(enumerate(self._items(users[start : start + _BATCH], variants[start : start + _BATCH])))
            with self.store.write() as session:
                receipt = ingest.store(session, self.store.catalog(session), items, now=self.now)
            new, bad = new + receipt.accepted, bad + len(receipt.rejected)
        return new, bad

    def _items(self, users: list[str], variants: list[str]) -> Iterator[ingest.AnyItem]:
        name = lists.attribute(self.experiment, self.slot)
        for user, variant in zip(users, variants, strict=True):
            traits = msgspec.json.encode({name: f"{variant}@{self.version}"})
            message = f"list-{self.id}-{hashlib.sha256(user.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"
            yield ingest.Identify(message_id=message, user_id=user, traits=msgspec.Raw(traits))

    @property
    def version(self) -> str:
        return self.id[:8]

    def _made(self, found: Model, decided: Allocation, seen: Seen, written: int, refused: int) -> ListMade:
        card, now = found.card, self.now
        with self.store.read() as session:
            unit = studies.find(session, self.study, now=now).notes.unit
        counts = np.bincount(decided.policy, minlength=len(card.variants))
        return ListMade(
            experiment=self.experiment,
            metric=card.metric,
            learner=card.learner,
            watermark=card.watermark,
            scored_at=now.isoformat(),
            refresh_by=(now + timedelta(days=self.request.refresh_days)).isoformat(),
            attribute=lists.attribute(self.experiment, self.slot),
            version=self.version,
            users=seen.users,
            variants={variant: int(count) for variant, count in zip(card.variants, counts, strict=True)},
            cost=decided.cost,
            expected=decided.objective,
            gap=decided.gap,
            price=decided.price,
            contact_price=decided.contact_price,
            stock_prices={
                variant: float(price)
                for variant, price in zip(card.variants, decided.stock_prices, strict=True)
                if variant in self.request.stock
            },
            worth=None if self.request.allowed else _worth(found, decided, unit),
            missing={
                each.name: (seen.missing[each.name] / seen.users, each.missing)
                for each in card.features
                if seen.missing.get(each.name)
            },
            unused=seen.unused,
            written=written,
            refused=refused,
        )


def _money(found: Model, effects: Floats) -> tuple[Floats, Floats]:
    """Gains (n, K) and costs (K,) over the control's: what a variant saves is a gain, as no cost may be below zero."""
    over = np.array(found.card.costs) - found.card.costs[0]
    return np.column_stack([np.zeros(len(effects)), effects - np.minimum(over[1:], 0.0)]), np.maximum(over, 0.0)


def _worth(found: Model, decided: Allocation, unit: float) -> Worth:
    """What the list's prices are worth among the users studied: who is worth more than them, gets a variant."""
    studied = found.studied
    gains, costs = _money(found, studied.effects)
    touched = (np.arange(len(costs)) > 0).astype(float)
    prices = decided.price * costs + decided.contact_price * touched + decided.stock_prices
    given = (gains - costs - prices).argmax(axis=1)
    real = np.array(found.card.costs)
    over = policy_value.gain(studied.scores, given, np.zeros_like(given), real, found.card.alpha)
    here = (given > 0) & studied.untreated
    weight = studied.weight[here]
    return Worth(
        over_control=interval(over),
        treated=float((given > 0).mean()),
        spent=float((real - real[0])[given].mean()),
        baseline=float((weight * studied.outcome[here]).sum() / weight.sum() / unit) if here.any() else None,
    )


if __name__ == "__main__":
    task.main(ListWork, sys.argv[1])
