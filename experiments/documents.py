"""The documents people write: experiments, policies, metrics, segments, layers, holdouts.

Metrics are described in ``metrics``, policies in ``policy``. A document is JSON, decoded strictly into frozen models:
unknown fields, NaN, infinity and silent conversions are refused, and all problems of one document are listed together,
each with field, value and remedy. Rules that need other documents (does this metric exist?) live in ``registry``; what
may change while an experiment runs, in ``lifecycle``, and while a policy does, in ``rollout``.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from experiments.errors import FieldProblem, InvalidDocument
from experiments.fields import Condition, Document, EventName, Instant, Key, Name, Role, Share, distinct, flag_type
from experiments.metrics import Metric, MetricKind
from experiments.plans import Plan
from experiments.policy import Policy
from experiments.sdk.assignment import allocation
from experiments.sdk.errors import DocumentError
from experiments.variants import MetricUse, Value, Variant
from experiments.waves import Adaptive, Wave, label


class LayerRange(Document):
    """The part of a layer that an experiment uses: buckets from ``start`` up to, not including, ``end``."""

    key: Key
    start: Share = 0.0
    end: Share = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start >= self.end:
            raise PydanticCustomError("empty_range", "give a start below the end")
        return self


class Stratum(Document):
    """A segment with an allocation of its own; what it leaves out, it takes from the experiment."""

    segment: Key
    weights: dict[Key, Share] | None = None
    coverage: Share | None = None


class Reach(Document):
    """Who was reached: the event of having ``received`` the treatment, and what would have sent it.

    ``trigger`` must be recorded in every variant, for the control at the moment when it would have been treated (a
    ghost). Counting openers only, without ghosts, would compare people who differ.
    """

    received: EventName
    trigger: EventName | None = None


class Schedule(Document):
    """When the server starts a draft, and stops what runs, by itself."""

    start_at: Instant | None = None
    stop_at: Instant | None = None

    def _inconsistencies(self) -> Iterator[tuple[str, str]]:
        if self.start_at is not None and self.stop_at is not None and self.stop_at <= self.start_at:
            yield "stop_at", "give an instant after start_at"


class Status(StrEnum):
    """Life cycle of an experiment."""

    draft = "draft"
    running = "running"
    paused = "paused"
    stopped = "stopped"
    decided = "decided"
    archived = "archived"


class Decision(Document):
    """What a person chose, on which report, and why."""

    variant: Key
    segments: list[Key] | None = None
    reason: Name
    report: str | None = None


class Experiment(Document):
    """A randomised comparison of variants.

    ``status``, ``phase``, ``salt``, ``revision``, ``waves`` and ``decision`` are kept by the server: a document sent in
    may leave them out, or repeat what the server last answered.
    """

    key: Key
    name: Name
    hypothesis: str = ""
    owner: Annotated[str, Field(max_length=200)] = ""
    tags: list[Name] = Field(default_factory=list)
    schedule: Schedule | None = None
    variants: list[Variant] = Field(min_length=2, max_length=100)
    control: Key
    weights: dict[Key, Share] | None = None
    coverage: Share = 1.0
    adaptive: Adaptive | None = None
    audience: Condition | None = None
    layer: LayerRange | None = None
    holdouts: list[Key] = Field(default_factory=list)
    strata: list[Stratum] = Field(default_factory=list)
    forced: dict[str, Key] = Field(default_factory=dict)
    metrics: list[MetricUse] = Field(min_length=1)
    plan: Plan
    value: Value | None = None
    reach: Reach | None = None
    status: Status = Status.draft
    phase: int = Field(default=1, ge=1)
    salt: str | None = Field(default=None, min_length=1, max_length=200)
    revision: int = Field(default=1, ge=1)
    waves: list[Wave] = Field(default_factory=list)
    decision: Decision | None = None

    def _inconsistencies(self) -> Iterator[tuple[str, str]]:
        """Every contradiction between fields: where, and the remedy."""
        keys = [variant.key for variant in self.variants]
        one_of = f"name one of the variants: {', '.join(keys)}"
        if not distinct(keys):
            yield "variants", "give each variant a key of its own"
        if self.control not in keys:
            yield "control", one_of
        for where, weights, coverage in self._allocations():
            try:
                allocation(self._ordered(weights, keys), coverage)
            except (DocumentError, ValueError) as error:
                yield where, str(error)
        if not distinct([stratum.segment for stratum in self.strata]):
            yield "strata", "name each segment once"
        if not distinct(self.holdouts):
            yield "holdouts", "name each holdout once"
        if not distinct(self.tags):
            yield "tags", "name each tag once"
        for user, variant in self.forced.items():
            if variant not in keys:
                yield f"forced.{user}", one_of
        uses = [use.key for use in self.metrics]
        if not distinct(uses):
            yield "metrics", "name each metric once"
        if sum(use.role is Role.primary for use in self.metrics) > 1:
            yield "metrics", "give one metric the role primary, not several"
        if self.value is not None and self.value.metric not in uses:
            yield "value.metric", "name one of this experiment's metrics"
        if self.decision is not None and self.decision.variant not in keys:
            yield "decision.variant", one_of
        yield from self._adaptive_problems(uses)
        yield from self._factor_problems()
        yield from self._flag_problems()

    def _adaptive_problems(self, metrics: Sequence[str]) -> Iterator[tuple[str, str]]:
        found, arms = self.adaptive, len(self.variants)
        if found is None:
            if self.waves:
                yield "waves", "leave them out: only adaptive shares come in waves"
            return
        for field, default in (("weights", None), ("coverage", 1.0), ("strata", [])):
            if getattr(self, field) != default:
                yield field, "leave it out: with adaptive shares, waves of users open one after the other"
        if found.metric is not None and found.metric not in metrics:
            yield "adaptive.metric", "name one of this experiment's metrics"
        if not found.fits(arms, found.buckets):
            yield "adaptive.floor", f"give less: {arms} variants with that floor are more than a wave"
        if self.plan.method not in ("sequential", "fixed"):
            yield "plan.method", "choose sequential or fixed: with adaptive shares, only these keep their error rate"

    def _flag_problems(self) -> Iterator[tuple[str, str]]:
        kinds = {flag_type(variant.value) for variant in self.variants}
        if len(kinds) > 1:
            found = ", ".join(sorted(kinds))
            yield "variants", f"give every variant a value of one type, or none a value: found {found}"

    def _factor_problems(self) -> Iterator[tuple[str, str]]:
        factors = [variant.factors for variant in self.variants]
        if not any(factors):
            return
        if len({frozenset(levels) for levels in factors}) > 1:
            yield "variants", "give every variant a level of the same factors"
        elif not distinct([json.dumps(levels, sort_keys=True) for levels in factors]):
            yield "variants", "give each variant another combination of levels"

    def _allocations(self) -> Iterator[tuple[str, dict[str, float] | None, float]]:
        yield "weights", self.weights, self.coverage
        for stratum in self.strata:
            weights = self.weights if stratum.weights is None else stratum.weights
            coverage = self.coverage if stratum.coverage is None else stratum.coverage
            yield f"strata.{stratum.segment}.weights", weights, coverage

    @staticmethod
    def _ordered(weights: Mapping[str, float] | None, keys: Sequence[str]) -> list[float] | int:
        if weights is None:
            return len(keys)
        if set(weights) != set(keys):
            raise ValueError(f"give a weight for each of {', '.join(keys)} and nothing else")
        return [weights[key] for key in keys]

    def shares(self) -> dict[str | None, dict[str, float]]:
        """Return, for each stratum or wave (None where there are none), each variant's share of those assigned."""
        if self.waves:
            return {label(self.key, number): wave.shares() for number, wave in enumerate(self.waves, 1)}
        keys = [variant.key for variant in self.variants]
        result: dict[str | None, dict[str, float]] = {}
        sources = list(self._allocations())
        names: list[str | None] = [stratum.segment for stratum in self.strata]
        for name, (_, weights, coverage) in zip(names or [None], sources[1:] or sources, strict=True):
            widths = [end - start for start, end in allocation(self._ordered(weights, keys), coverage)]
            total = sum(widths)
            result[name] = {key: width / total if total else 0.0 for key, width in zip(keys, widths, strict=True)}
        return result


class Segment(Document):
    """A named rule over attributes: a value tier, a group, or a lifecycle stage."""

    key: Key
    name: Name
    kind: Literal["tier", "group", "lifecycle"] = "group"
    condition: Condition


class Layer(Document):
    """Experiments in one layer share no user."""

    key: Key
    name: Name
    salt: str | None = Field(default=None, min_length=1, max_length=200)


class Holdout(Document):
    """Users kept out of every experiment that names this holdout."""

    key: Key
    name: Name
    share: Share
    salt: str | None = Field(default=None, min_length=1, max_length=200)


class Kind(StrEnum):
    """The kinds of documents."""

    experiment = "experiment"
    metric = "metric"
    segment = "segment"
    layer = "layer"
    holdout = "holdout"
    policy = "policy"

    @property
    def plural(self) -> str:
        """What addresses call them."""
        return "policies" if self is Kind.policy else f"{self}s"


_ADAPTERS: dict[Kind, TypeAdapter[Any]] = {
    Kind.experiment: TypeAdapter(Experiment),
    Kind.metric: TypeAdapter(Metric),
    Kind.segment: TypeAdapter(Segment),
    Kind.layer: TypeAdapter(Layer),
    Kind.holdout: TypeAdapter(Holdout),
    Kind.policy: TypeAdapter(Policy),
}


def parse(kind: Kind, body: bytes | str | Mapping[str, Any]) -> Any:
    """Decode one document strictly.

    Args:
        kind: which document it is.
        body: JSON text, or JSON values already decoded.

    Returns:
        The frozen model of that kind.

    Raises:
        InvalidDocument: with every problem found, each naming field, value and remedy.
    """
    try:
        # NaN must reach the validation, which names its field; other encoders turn it into null.
        text = body if isinstance(body, bytes | str) else json.dumps(body)
        return _ADAPTERS[kind].validate_json(text)
    except ValidationError as error:
        found = [problem for e in error.errors(include_url=False) for problem in _field_problems(e)]
        raise InvalidDocument(found, kind) from None


# pydantic puts the kind of a metric in front of the path; no document has a field of such a name at its top.
_METRIC_KINDS = get_args(MetricKind)
_ALL_KINDS = ", ".join(_METRIC_KINDS)
_REMEDIES = {
    "extra_forbidden": "remove it: there is no such field here",
    "missing": "give this field: it is required",
    "json_invalid": "send valid JSON (no NaN, no infinity, no trailing commas)",
    "union_tag_not_found": f"give the kind of metric: {_ALL_KINDS}",
    "union_tag_invalid": f"give a kind of metric that exists: {_ALL_KINDS}",
    "string_pattern_mismatch": "use letters, digits, dot, dash or underscore, 64 at most, a letter or digit first",
}


def field_problem(error: ErrorDetails) -> FieldProblem:
    """Turn one of pydantic's findings into field, value and remedy."""
    remedy = _REMEDIES.get(error["type"], error["msg"])
    value = None if error["type"] in {"missing", "json_invalid"} else error.get("input")
    location = _location(error)
    if error["type"] in {"union_tag_not_found", "union_tag_invalid"}:
        location.append("kind")
        value = error.get("ctx", {}).get("tag")
    return FieldProblem(".".join(location) or "$", value, error["type"], remedy)


def _location(error: ErrorDetails) -> list[str]:
    location = [str(part) for part in error["loc"]]
    return location[1:] if location[:1] and location[0] in _METRIC_KINDS else location


def _field_problems(error: ErrorDetails) -> Iterator[FieldProblem]:
    """A finding about one field is one problem; one about how fields agree is a problem for each contradiction."""
    if error["type"] != "inconsistent":
        yield field_problem(error)
    for where, remedy in error.get("ctx", {}).get("problems", ()):
        value: object = error["input"]
        # Once: the rest is one key, such as a user's id, which may hold dots.
        for key in where.split(".", 1):
            value = value.get(key) if isinstance(value, Mapping) else None
        yield FieldProblem(".".join([*_location(error), where]), value, error["type"], remedy)


def json_schema(kind: Kind) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a kind of document."""
    return _ADAPTERS[kind].json_schema()
