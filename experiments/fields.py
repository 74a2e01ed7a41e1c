"""What documents are made of: the strict base of all of them, and the fields that several kinds share."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

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


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("bad_instant", "give an instant between the years 1 and 9999 UTC") from None


class _AnyGroup(Mapping[str, Sequence[object]]):
    """Every group exists and is empty."""

    def __getitem__(self, key: str) -> Sequence[object]:
        return ()

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


Share = Annotated[float, Field(ge=0, le=1), AfterValidator(_check_share)]
Instant = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Condition = Annotated[dict[str, Any], AfterValidator(_check_condition)]
Payload = Annotated[dict[str, Any], AfterValidator(_check_finite)]
FlagValue = bool | int | Annotated[float, Field(allow_inf_nan=False)] | str | Payload


class Document(BaseModel):
    """Base of all documents: strict, frozen, closed."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = list(self._inconsistencies())
        if problems:
            raise PydanticCustomError("inconsistent", "the fields contradict each other", {"problems": problems})
        return self

    def _inconsistencies(self) -> Iterable[tuple[str, str]]:
        """Every contradiction between fields: where, and the remedy."""
        return ()

    def to_json(self) -> dict[str, Any]:
        """Return the document as plain JSON values, every field present."""
        return self.model_dump(mode="json", by_alias=True)


class Role(StrEnum):
    """What a metric decides in an experiment."""

    primary = "primary"
    secondary = "secondary"
    guardrail = "guardrail"


class Direction(StrEnum):
    """Which way is good."""

    up = "up"
    down = "down"


def flag_type(value: object) -> str:
    """Return the type of a feature flag's value as apps see it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "object"


def distinct(names: Sequence[str]) -> bool:
    """Whether no name comes twice."""
    return len(set(names)) == len(names)
