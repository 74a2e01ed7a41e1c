"""The documents people write: experiments, metrics, segments, layers, holdouts.

A document is JSON, decoded strictly into frozen models: unknown fields, NaN, infinity and silent conversions are
refused, and all problems of one document are listed together, each with field, value and remedy. Rules that need
other documents (does this metric exist?) live in ``registry``; what may change while an experiment runs, in
``lifecycle``.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from experiments.errors import FieldProblem, InvalidDocument
from experiments.sdk.assignment import allocation
from experiments.sdk.conditions import compile_condition
from experiments.sdk.errors import DocumentError

BUCKETS = 10_000

Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Name = Annotated[str, Field(min_length=1, max_length=200)]
EventName = Annotated[str, Field(min_length=1, max_length=200)]


def _check_share(value: float) -> float:
    scaled = value * BUCKETS
    if abs(scaled - round(scaled)) > 1e-6:
        raise PydanticCustomError(
            "share_too_fine",
            "give a multiple of 0.0001, for example {near}",
            {"near": round(scaled) / BUCKETS},
        )
    return value


def _check_condition(value: dict[str, Any]) -> dict[str, Any]:
    try:
        # Saved groups are resolved when the snapshot is compiled; here only the form matters.
        compile_condition(value, saved_groups=_AnyGroup())
    except DocumentError as error:
        raise PydanticCustomError("bad_condition", "{remedy}", {"remedy": str(error)}) from None
    return value


def _check_finite(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise PydanticCustomError("not_finite", "give finite numbers: NaN and infinity are not JSON") from None
    return value


class _AnyGroup(Mapping[str, Sequence[object]]):
    """Every group exists and is empty."""

    def __getitem__(self, key: str) -> Sequence[object]:
        return ()

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


Share = Annotated[float, Field(ge=0, le=1), AfterValidator(_check_share)]
Condition = Annotated[dict[str, Any], AfterValidator(_check_condition)]
Payload = Annotated[dict[str, Any], AfterValidator(_check_finite)]


class Document(BaseModel):
    """Base of all documents: strict, frozen, closed."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """Return the document as plain JSON values, every field present."""
        return self.model_dump(mode="json", by_alias=True)


class Frequency(Document):
    """How often a user is touched: ``touches`` times per ``per``, through ``channel``."""

    touches: int = Field(ge=0, le=1000)
    per: Literal["day", "week", "month", "quarter"]
    channel: str | None = None


class Tactic(Document):
    """What a variant does to a user. ``extra`` goes to the app unread."""

    copy_: str | None = Field(default=None, alias="copy")
    offer: Payload | None = None
    frequency: Frequency | None = None
    extra: Payload | None = None


class Costs(Document):
    """Unit costs of a variant in the store's currency; ``per_user`` is paid once for every user in it."""

    per_user: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)] = Decimal(0)


class Variant(Document):
    """One arm of an experiment."""

    key: Key
    name: Name | None = None
    tactic: Tactic | None = None
    costs: Costs = Costs()


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


class Role(StrEnum):
    """What a metric decides in an experiment."""

    primary = "primary"
    secondary = "secondary"
    guardrail = "guardrail"


class MetricUse(Document):
    """A metric in an experiment; ``role`` and ``margin`` override the metric's own."""

    key: Key
    role: Role | None = None
    margin: Annotated[float, Field(gt=0)] | None = None


class Plan(Document):
    """How the answer will be read, fixed before the start.

    ``planned_users`` counts users over all variants; the confidence sequence is tuned to it and a fixed-horizon plan
    is not read before it is reached.
    """

    planned_users: int = Field(ge=2)
    method: Literal["sequential", "fixed"] = "sequential"
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    correction: Literal["holm", "bh", "none"] = "holm"


class Value(Document):
    """What a change is worth: the effect on ``metric`` times ``margin``, less the costs, times ``monthly_users``."""

    metric: Key
    margin: Share = 1.0
    monthly_users: int = Field(ge=1)


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

    ``status``, ``phase``, ``salt``, ``revision`` and ``decision`` are kept by the server: a document sent in may leave
    them out, or repeat what the server last answered.
    """

    key: Key
    name: Name
    hypothesis: str = ""
    variants: list[Variant] = Field(min_length=2, max_length=100)
    control: Key
    weights: dict[Key, Share] | None = None
    coverage: Share = 1.0
    audience: Condition | None = None
    layer: LayerRange | None = None
    holdouts: list[Key] = []
    strata: list[Stratum] = []
    forced: dict[str, Key] = {}
    metrics: list[MetricUse] = Field(min_length=1)
    plan: Plan
    value: Value | None = None
    status: Status = Status.draft
    phase: int = Field(default=1, ge=1)
    salt: str | None = Field(default=None, min_length=1, max_length=200)
    revision: int = Field(default=1, ge=1)
    decision: Decision | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = list(self._inconsistencies())
        if problems:
            raise PydanticCustomError("inconsistent", "the fields contradict each other", {"problems": problems})
        return self

    def _inconsistencies(self) -> Iterator[tuple[str, str]]:
        """Every contradiction between fields: where, and the remedy."""
        keys = [variant.key for variant in self.variants]
        one_of = f"name one of the variants: {', '.join(keys)}"
        if not _distinct(keys):
            yield "variants", "give each variant a key of its own"
        if self.control not in keys:
            yield "control", one_of
        for where, weights, coverage in self._allocations():
            try:
                allocation(self._ordered(weights, keys), coverage)
            except (DocumentError, ValueError) as error:
                yield where, str(error)
        if not _distinct([stratum.segment for stratum in self.strata]):
            yield "strata", "name each segment once"
        if not _distinct(self.holdouts):
            yield "holdouts", "name each holdout once"
        for user, variant in self.forced.items():
            if variant not in keys:
                yield f"forced.{user}", one_of
        uses = [use.key for use in self.metrics]
        if not _distinct(uses):
            yield "metrics", "name each metric once"
        if sum(use.role is Role.primary for use in self.metrics) > 1:
            yield "metrics", "give one metric the role primary, not several"
        if self.value is not None and self.value.metric not in uses:
            yield "value.metric", "name one of this experiment's metrics"
        if self.decision is not None and self.decision.variant not in keys:
            yield "decision.variant", one_of

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
        """Return, for each stratum (None where there are none), each variant's share of those assigned."""
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


class Direction(StrEnum):
    """Which way is good."""

    up = "up"
    down = "down"


class Term(Document):
    """A part of a user's number: ``weight`` times the sum of the events' values, or times their count."""

    event: EventName
    aggregate: Literal["sum", "count"] = "sum"
    weight: float = 1.0


class _Metric(Document):
    key: Key
    name: Name
    window_days: int = Field(ge=1, le=3650)
    delay_days: int = Field(default=0, ge=0, le=3650)
    lookback_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    direction: Direction = Direction.up
    role: Role = Role.secondary
    margin: Annotated[float, Field(gt=0)] | None = None
    unit: Literal["share", "money", "number"] = "number"

    @model_validator(mode="after")
    def _guardrail_has_margin(self) -> Self:
        if self.role is Role.guardrail and self.margin is None:
            remedy = "give a guardrail the loss that would still be acceptable, in its own unit"
            raise PydanticCustomError("inconsistent", "the margin is missing", {"problems": [("margin", remedy)]})
        return self


class ConversionMetric(_Metric):
    """The share of users with at least one ``event`` in the window."""

    kind: Literal["conversion"]
    event: EventName
    unit: Literal["share"] = "share"


class MeanMetric(_Metric):
    """The mean over users of the weighted terms, each user's number cut at ``cap``."""

    kind: Literal["mean"]
    terms: list[Term] = Field(min_length=1, max_length=20)
    cap: Annotated[float, Field(gt=0)] | None = None
    unit: Literal["money", "number"] = "number"


class RatioMetric(_Metric):
    """The sum of the numerator over all users divided by the sum of the denominator."""

    kind: Literal["ratio"]
    numerator: list[Term] = Field(min_length=1, max_length=20)
    denominator: list[Term] = Field(min_length=1, max_length=20)


Metric = Annotated[ConversionMetric | MeanMetric | RatioMetric, Field(discriminator="kind")]


def _distinct(names: Sequence[str]) -> bool:
    return len(set(names)) == len(names)


class Kind(StrEnum):
    """The kinds of documents."""

    experiment = "experiment"
    metric = "metric"
    segment = "segment"
    layer = "layer"
    holdout = "holdout"


_ADAPTERS: dict[Kind, TypeAdapter[Any]] = {
    Kind.experiment: TypeAdapter(Experiment),
    Kind.metric: TypeAdapter(Metric),
    Kind.segment: TypeAdapter(Segment),
    Kind.layer: TypeAdapter(Layer),
    Kind.holdout: TypeAdapter(Holdout),
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


_REMEDIES = {
    "extra_forbidden": "remove it: there is no such field here",
    "missing": "give this field: it is required",
    "json_invalid": "send valid JSON (no NaN, no infinity, no trailing commas)",
    "union_tag_not_found": "give the kind of metric: conversion, mean or ratio",
    "union_tag_invalid": "give a kind of metric that exists: conversion, mean or ratio",
    "string_pattern_mismatch": "use letters, digits, dot, dash or underscore, 64 at most, a letter or digit first",
}


# pydantic puts the kind of a metric in front of the path; no field has such a name.
_METRIC_KINDS = ("conversion", "mean", "ratio")


def field_problem(error: ErrorDetails) -> FieldProblem:
    """Turn one of pydantic's findings into field, value and remedy."""
    remedy = _REMEDIES.get(error["type"], error["msg"])
    value = None if error["type"] in {"missing", "json_invalid"} else error.get("input")
    location = [str(part) for part in error["loc"] if part not in _METRIC_KINDS]
    if error["type"] in {"union_tag_not_found", "union_tag_invalid"}:
        location.append("kind")
        value = error.get("ctx", {}).get("tag")
    return FieldProblem(".".join(location) or "$", value, error["type"], remedy)


def _field_problems(error: ErrorDetails) -> Iterator[FieldProblem]:
    """A finding about one field is one problem; one about how fields agree is a problem for each contradiction."""
    if error["type"] != "inconsistent":
        yield field_problem(error)
    for where, remedy in error.get("ctx", {}).get("problems", ()):
        yield FieldProblem(where, None, error["type"], remedy)


def json_schema(kind: Kind) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a kind of document."""
    return _ADAPTERS[kind].json_schema()
