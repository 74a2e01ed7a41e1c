"""The document of a policy: which variant each user gets, by ordered rules, and the share held back as a yardstick."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from experiments.fields import BUCKETS, Condition, Document, Instant, Key, Name, Share, distinct, flag_type
from experiments.plans import Plan
from experiments.variants import MetricUse, Value, Variant

OTHERWISE: Final = "otherwise"
ARM: Final = "policy"
"""What the users who get what the rules say are called in reports."""


class PolicyStatus(StrEnum):
    """Life cycle of a policy."""

    draft = "draft"
    running = "running"
    paused = "paused"
    stopped = "stopped"
    archived = "archived"


class PolicyRule(Document):
    """Who matches the ``condition``, or is in the ``segment``, gets the ``variant``; the first rule that fits counts.

    A condition may ask for a score, which a batch job writes as an attribute: {"recall_score": {"$gte": 0.6}}.
    """

    name: Key
    condition: Condition | None = None
    segment: Key | None = None
    variant: Key

    def _inconsistencies(self) -> Iterator[tuple[str, str]]:
        if (self.condition is None) == (self.segment is None):
            yield "condition", "give a condition or a segment, one of them"


class Holdback(Document):
    """The ``share`` of users whom the rules do not reach, at random: against them the gain is measured.

    They get the control, or are divided by ``weights`` over the variants, to go on learning. Without a share nothing
    can be measured.
    """

    share: Share = 0.05
    weights: dict[Key, Share] | None = None

    def _inconsistencies(self) -> Iterator[tuple[str, str]]:
        if self.weights is not None and abs(sum(self.weights.values()) - 1) > 1e-6:
            yield "weights", "give weights whose sum is 1"


class Effect(Document):
    """An effect with the limits of its interval; 0.1 is +10 %."""

    estimate: float
    lower: float
    upper: float


class Money(Effect):
    """Money a month."""

    currency: Annotated[str, Field(min_length=1)]


class Promise(Document):
    """What was stated when the policy was decided on: the lift of ``metric`` among the users whom the rules treat."""

    metric: Key
    relative: Effect | None = None
    value_per_month: Money | None = None
    report: str | None = None


class Source(Document):
    """What the rules come from.

    Of a list of scored users: its name, when it was made and of how many users, and until when it should be made anew.
    The rules go on after that; nothing stops by itself.
    """

    kind: Literal["segments", "tree", "scores", "model"]
    experiment: Key | None = None
    report: str | None = None
    list_id: str | None = None
    scored_at: Instant | None = None
    refresh_by: Instant | None = None
    users: int | None = Field(default=None, ge=0)


class Policy(Document):
    """Which variant each user gets, served under the flag ``key``.

    ``key`` is as a rule that of the experiment it comes from, so that apps go on asking for the same flag. ``value``
    counts the users a month whom the rules treat. ``status``, ``phase``, ``salt`` and ``revision`` are kept by the
    server, as for an experiment.
    """

    key: Key
    name: Name
    variants: list[Variant] = Field(min_length=2, max_length=100)
    control: Key
    rules: list[PolicyRule] = Field(default_factory=list, max_length=200)
    otherwise: Key
    holdback: Holdback = Holdback()
    audience: Condition | None = None
    holdouts: list[Key] = Field(default_factory=list)
    metrics: list[MetricUse] = Field(min_length=1)
    plan: Plan
    value: Value | None = None
    promise: Promise | None = None
    source: Source | None = None
    status: PolicyStatus = PolicyStatus.draft
    phase: int = Field(default=1, ge=1)
    salt: str | None = Field(default=None, min_length=1, max_length=200)
    revision: int = Field(default=1, ge=1)

    def _inconsistencies(self) -> Iterator[tuple[str, str]]:
        """Every contradiction between fields: where, and the remedy."""
        keys = [variant.key for variant in self.variants]
        one_of = f"name one of the variants: {', '.join(keys)}"
        if not distinct(keys):
            yield "variants", "give each variant a key of its own"
        if self.control not in keys:
            yield "control", one_of
        if self.control == ARM:
            yield "control", f"call it otherwise: in reports {ARM!r} is what the rules give"
        if self.otherwise not in keys:
            yield "otherwise", one_of
        for i, rule in enumerate(self.rules):
            if rule.variant not in keys:
                yield f"rules.{i}.variant", one_of
        names = [rule.name for rule in self.rules]
        if not distinct(names) or OTHERWISE in names:
            yield "rules", f"give each rule a name of its own, other than {OTHERWISE!r}"
        if set(self.holdback.weights or ()) - set(keys):
            yield "holdback.weights", f"name variants only: {', '.join(keys)}"
        if not distinct(self.holdouts):
            yield "holdouts", "name each holdout once"
        uses = [use.key for use in self.metrics]
        if not distinct(uses):
            yield "metrics", "name each metric once"
        for where, part in (("value.metric", self.value), ("promise.metric", self.promise)):
            if part is not None and part.metric not in uses:
                yield where, "name one of this policy's metrics"
        kinds = {flag_type(variant.value) for variant in self.variants}
        if len(kinds) > 1:
            yield (
                "variants",
                f"give every variant a value of one type, or none a value: found {', '.join(sorted(kinds))}",
            )

    def chosen(self) -> dict[str, str]:
        """Return the variant of each rule, in order, the last being what all others get."""
        return {rule.name: rule.variant for rule in self.rules} | {OTHERWISE: self.otherwise}

    def buckets(self, chosen: str) -> dict[str, int]:
        """Return how many of the buckets each variant gets under a rule that chose this one, the control first.

        The control's are the same under every rule that treats: whoever is held back, is so whatever rule he is under.
        """
        others = [variant.key for variant in self.variants if variant.key != self.control]
        weights = self.holdback.weights or {}
        held = round(self.holdback.share * BUCKETS)
        parts = {variant: int(held * weights.get(variant, 0.0) + 1e-6) for variant in others}
        counts = {self.control: held - sum(parts.values()), **parts}
        counts[chosen] += BUCKETS - held
        return counts
