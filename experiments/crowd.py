"""The users on record, as an experiment would see them: how many it would take, and how many of them are free.

Counted on the attributes as last received, on all users or, where there are many, on a part of them taken evenly.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from sqlalchemy import func, literal_column, select
from sqlalchemy.orm import Session

from experiments.bulk import REASONS, assign_bulk
from experiments.documents import Experiment
from experiments.sdk.assignment import compile_experiment
from experiments.sdk.experiment import CompiledExperiment, Reason
from experiments.tables import UserAttributes

# Shares known to a third of a percentage point are enough to plan by.
SAMPLE: Final = 20_000
_SHORT: Final = 64
_ENROLLED: Final = [REASONS.index(reason) for reason in (Reason.assigned, Reason.forced)]
_ELIGIBLE: Final = [*_ENROLLED, REASONS.index(Reason.not_covered)]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Turnout:
    """Users on record: all, those who ``match`` the audience, those who would get a variant, those of them ``free``.

    ``free`` users are in no other experiment under way. None: there are no users on record, so nothing is known.
    ``exact`` is off where a part of the users was counted and the rest inferred.
    """

    on_record: int
    match: int | None
    enrolled: int | None
    free: int | None
    exact: bool
    as_of: str


@dataclass(frozen=True)
class Crowd:
    """Users on record with their attributes; ``total`` counts those left out of the sample too."""

    ids: Sequence[str]
    attributes: Sequence[Mapping[str, Any]]
    total: int
    as_of: datetime

    @classmethod
    def of(cls, session: Session, *, now: datetime, sample: int = SAMPLE) -> "Crowd":
        """Read the users, or so many of them, evenly over the record."""
        total = session.scalar(select(func.count()).select_from(UserAttributes)) or 0
        query = select(UserAttributes.user_id, UserAttributes.attributes)
        stride = -(-total // sample)
        if stride > 1:
            sqlite = session.get_bind().dialect.name == "sqlite"
            place = literal_column("users.rowid") if sqlite else func.hashtext(UserAttributes.user_id)
            query = query.where(place % stride == 0)
        rows = session.execute(query).all()
        return cls([row[0] for row in rows], [_decode(row[1]) for row in rows], total, now)

    def enrolled(self, experiment: CompiledExperiment) -> Mask:
        """Who would get a variant."""
        found = self._enrolled.get(id(experiment))
        if found is None:
            # The experiment is kept along, so that its id stays its own.
            found = self._enrolled[id(experiment)] = experiment, self._among(experiment, _ENROLLED)
        return found[1]

    @cached_property
    def _enrolled(self) -> dict[int, tuple[CompiledExperiment, Mask]]:
        return {}

    def size(self, experiment: CompiledExperiment, others: Iterable[CompiledExperiment] = ()) -> Turnout:
        """Count an experiment's users; ``others`` are those under way, whose users are not free."""
        if not self.ids:
            return Turnout(self.total, None, None, None, exact=True, as_of=self.as_of.isoformat())
        takes = self.enrolled(experiment)
        free = takes.copy()
        for other in others:
            free &= ~self.enrolled(other)
        return Turnout(
            self.total,
            self.scaled(self._among(_bare(experiment), _ELIGIBLE)),
            self.scaled(takes),
            self.scaled(free),
            exact=len(self.ids) == self.total,
            as_of=self.as_of.isoformat(),
        )

    def scaled(self, users: Mask) -> int:
        """How many of all users on record a part of the sample stands for."""
        return round(int(users.sum()) * self.total / len(self.ids)) if self.ids else 0

    def _among(self, experiment: CompiledExperiment, reasons: Sequence[int]) -> Mask:
        columns = {name: self._column(name) for name in experiment.reads if name != "id"}
        return np.isin(assign_bulk(experiment, self._texts, columns).reason, reasons)

    @cached_property
    def _texts(self) -> npt.NDArray[Any] | Sequence[str]:
        """The ids as an array, which is hashed faster; NumPy would cut an id that ends in NUL."""
        plain = all(len(user) <= _SHORT and not user.endswith("\0") for user in self.ids)
        return np.array(self.ids, dtype=np.str_) if self.ids and plain else self.ids

    @cached_property
    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        return {}

    def _column(self, name: str) -> npt.NDArray[Any]:
        if name not in self._columns:
            column = np.empty(len(self.ids), object)
            column[:] = [known.get(name) for known in self.attributes]
            self._columns[name] = column
        return self._columns[name]


_decode = msgspec.json.Decoder(dict[str, Any]).decode


def _bare(experiment: CompiledExperiment) -> CompiledExperiment:
    """The same audience and strata, whatever layer and holdouts leave of them."""
    return replace(experiment, layer=None, holdouts=())


def compiled(experiment: Experiment, snapshot: Mapping[str, Any], *, testers: bool = False) -> CompiledExperiment:
    """Compile an experiment as if it ran, as a rule without its testers."""
    document = experiment.to_json() | {"status": "running", "salt": experiment.salt or f"{experiment.key}:1"}
    return compile_experiment(document if testers else document | {"forced": {}}, snapshot)
