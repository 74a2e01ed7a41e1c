"""One experiment, compiled: the order of the checks that lead from a user to a variant. No I/O, no clock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from .conditions import Condition
from .hashing import bucket_after

__all__ = ["NO_ATTRIBUTES", "Assignment", "CompiledExperiment", "Reason", "Rule", "Slice", "Stratum"]

# Users whose bucket is remembered, for each experiment: some hundred kilobytes, and more than a request asks for.
_REMEMBERED: Final = 4096

NO_ATTRIBUTES: Final[Mapping[str, object]] = MappingProxyType({})


class Reason(StrEnum):
    """Why a user got this answer; only `assigned`, `forced` and `sticky` come with a variant."""

    assigned = "assigned"
    forced = "forced"
    not_running = "not_running"
    unknown_experiment = "unknown_experiment"
    no_user_id = "no_user_id"
    not_in_audience = "not_in_audience"
    in_holdout = "in_holdout"
    outside_layer = "outside_layer"
    no_stratum = "no_stratum"
    not_covered = "not_covered"
    sticky = "sticky"


@dataclass(frozen=True, slots=True)
class Assignment:
    """The answer for one user and experiment. It is shared by all users who get it.

    `tactic` is a read-only view of the variant's payload. `stratum` is the key of the segment whose allocation was
    used; it is None without strata, and where the answer was found before the strata. `phase` and `revision` are those
    of the experiment, and 0 where it is unknown. `value` is what the variant gives as a feature flag: JSON, shared, and
    so never to be changed.
    """

    experiment: str
    variant: str | None
    tactic: Mapping[str, object] | None
    reason: Reason
    stratum: str | None
    phase: int
    revision: int
    value: object = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition as written and as compiled."""

    condition: Mapping[str, object]
    matches: Condition


@dataclass(frozen=True, slots=True)
class Slice:
    """The users whose bucket under `salt` is in [start, end): the range of a layer, or a holdout."""

    salt: str
    start: int
    end: int
    state: int  # the hash state after the salt

    def holds(self, user_id: str) -> bool:
        return self.start <= bucket_after(self.state, user_id) < self.end


@dataclass(frozen=True, slots=True)
class Stratum:
    """One allocation: the arms' bucket ranges in the order of the variants, for the users whom `rule` matches.

    `answers[bisect_right(bounds, bucket)]` is the assignment of a bucket. Waves are looked up together, in one without
    ranges of its own.
    """

    segment: str | None
    rule: Rule | None
    ranges: tuple[tuple[int, int], ...]
    bounds: tuple[int, ...]
    answers: tuple[Assignment, ...]


@dataclass(frozen=True, slots=True)
class CompiledExperiment:
    """An experiment ready to answer; made by `compile_experiment`."""

    key: str
    revision: int
    phase: int
    running: bool
    salt: str
    control: str
    variants: tuple[str, ...]
    values: Mapping[str, object]  # of each variant as a feature flag
    audience: Rule | None
    holdouts: tuple[Slice, ...]
    layer: Slice | None
    strata: tuple[Stratum, ...]
    forced: Mapping[str, Assignment]
    saved_groups: Mapping[str, Sequence[object]]
    reads: frozenset[str]  # the attributes that rules ask for
    _sticky: Mapping[str, Assignment]
    _refusals: Mapping[Reason, Assignment]
    _state: int
    _plain: Stratum | None  # the only stratum, where no rule decides before the bucket
    sticky: bool = True  # whether a stored variant is kept
    waves: tuple[Stratum, ...] = ()  # of shares that follow the evidence, one behind the other in the buckets
    _buckets: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    def assign(
        self, user_id: str, attributes: Mapping[str, object] = NO_ATTRIBUTES, stored: str | None = None
    ) -> Assignment:
        """Return the assignment of a user with these attributes.

        `stored` is the variant that the user is known to have: it is kept while it is one of the variants, unless this
        is a policy, which goes by its rules alone. Rules see `user_id` as the attribute `id`. Never raises. The order
        of the checks is: running, user id, forced, stored, audience, holdouts, layer, strata, coverage.
        """
        if not self.running:
            return self._refusals[Reason.not_running]
        if not isinstance(user_id, str) or not user_id:
            return self._refusals[Reason.no_user_id]
        if self.forced and user_id in self.forced:
            return self.forced[user_id]
        if isinstance(stored, str) and self.sticky and stored in self._sticky:
            return self._sticky[stored]
        stratum = self._plain
        if stratum is None:
            found = self._stratum(user_id, attributes)
            if isinstance(found, Assignment):
                return found
            stratum = found
        # An app asks several times for the user at hand, and the hash is three quarters of an answer.
        bucket = self._buckets.get(user_id)
        if bucket is None:
            bucket = self.bucket(user_id)
            if len(self._buckets) >= _REMEMBERED:
                self._buckets.clear()
            self._buckets[user_id] = bucket
        return stratum.answers[bisect_right(stratum.bounds, bucket)]

    def answer(self, reason: Reason, variant: str | None) -> Assignment:
        """Return the assignment with this reason and variant, without a stratum."""
        return self._refusals[reason] if variant is None else replace(self._sticky[variant], reason=reason)

    def bucket(self, user_id: str) -> int:
        """Return the user's bucket, 0 to 9,999, under the experiment's salt."""
        return bucket_after(self._state, user_id)

    def wave(self, user_id: str) -> str | None:
        """Return the stratum of the wave that a user belongs to, None before it opens; only where there are waves."""
        place = self.bucket(user_id)
        return next((w.segment for w in self.waves if w.ranges[0][0] <= place < w.ranges[-1][1]), None)

    def _stratum(self, user_id: str, attributes: Mapping[str, object]) -> Stratum | Assignment:
        if not isinstance(attributes, Mapping):
            attributes = NO_ATTRIBUTES
        if "id" in self.reads:
            attributes = {**attributes, "id": user_id}
        if self.audience is not None and not self.audience.matches(attributes):
            return self._refusals[Reason.not_in_audience]
        if any(holdout.holds(user_id) for holdout in self.holdouts):
            return self._refusals[Reason.in_holdout]
        if self.layer is not None and not self.layer.holds(user_id):
            return self._refusals[Reason.outside_layer]
        for stratum in self.strata:
            if stratum.rule is None or stratum.rule.matches(attributes):
                return stratum
        return self._refusals[Reason.no_stratum]
