"""The payload of the GrowthBook SDKs: every running experiment as a feature whose rules give our assignments.

A rule whose ranges leave a user out falls through to the next one, so each stratum's rule excludes the users of the
strata before it. The SDKs read conditions more loosely than we do, each in its own way (the JavaScript one converts
types and takes a missing attribute for 0), so conditions are written with the types they test, in operators on which
all SDKs agree. docs/growthbook.md lists what maps to what.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from experiments.sdk.assignment import Evaluator
from experiments.sdk.experiment import CompiledExperiment, Slice
from experiments.sdk.hashing import BUCKETS

__all__ = ["payload"]

LONGEST_LIST: Final = 100

# Texts and numbers only: `{"$type": "string"}` tells apart what JavaScript would convert.
_TYPED: Final = frozenset({"$lt", "$lte", "$gt", "$gte", "$veq", "$vlt", "$vlte", "$vgt", "$vgte", "$regex", "$regexi"})
_NEGATED: Final = {"$notRegex": "$regex", "$notRegexi": "$regexi", "$vne": "$veq"}
_NULLS: Final = {"$eq": False, "$ne": True}  # whether it exists
_COMBINERS: Final = frozenset({"$and", "$or", "$nor"})
_NOBODY: Final[Mapping[str, object]] = {"$in": []}
_EVERYBODY: Final[Mapping[str, object]] = {"$nin": []}

Json = dict[str, Any]


def payload(evaluator: Evaluator, *, updated: datetime | None = None) -> Json:
    """Return what a GrowthBook SDK reads: `features`, `savedGroups` and, where `updated` is given, `dateUpdated`.

    An experiment that is not running is absent, as is an unknown one: apps get the default of their code, and drafts
    stay unknown outside.
    """
    groups: dict[str, list[object]] = {}
    features = {
        key: {"defaultValue": None, "rules": _rules(experiment, _Writer(experiment.saved_groups, groups))}
        for key, experiment in evaluator.experiments.items()
        if experiment.running
    }
    written: Json = {"features": features, "savedGroups": groups}
    if updated is not None:
        written["dateUpdated"] = updated.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return written


def _rules(experiment: CompiledExperiment, writer: "_Writer") -> list[Json]:
    """Return the rules in the order of the checks: forced users, then the strata."""
    variants = experiment.variants
    # The SDKs enrol nobody in an experiment with one variation: a second one without users helps.
    arms = variants if len(variants) > 1 else variants * 2
    common: Json = {
        "key": experiment.key,
        "name": experiment.key,
        "phase": str(experiment.phase),
        "seed": experiment.salt,
        "hashAttribute": "id",
        "hashVersion": 2,
        "variations": [experiment.values[variant] for variant in arms],
        "meta": [{"key": variant} for variant in arms],
    }

    def rule(condition: Json, ranges: Iterable[tuple[int, int]]) -> Json:
        padded = [*ranges, (0, 0)][: len(arms)]
        return common | {"condition": condition, "ranges": _shares(padded)}

    rules = []
    for chosen in variants:
        users = [user for user, answer in experiment.forced.items() if answer.variant == chosen]
        if users:
            whole = [(0, BUCKETS if variant == chosen else 0) for variant in variants]
            rules.append(rule(writer.condition({"id": {"$in": users}}), whole))

    filters = [_outside(holdout) for holdout in experiment.holdouts]
    if experiment.layer is not None:
        filters.append(_filter(experiment.layer, [(experiment.layer.start, experiment.layer.end)]))
    if filters:
        common["filters"] = filters
    eligible: list[Json] = [{"id": {"$type": "string"}}]
    if experiment.audience is not None:
        eligible.append(writer.condition(experiment.audience.condition))
    earlier: list[Json] = []
    for stratum in experiment.waves or experiment.strata:
        parts = [*eligible, {"$nor": list(earlier)}] if earlier else list(eligible)
        if stratum.rule is not None:
            segment = writer.condition(stratum.rule.condition)
            parts.append(segment)
            if sum(end - start for start, end in stratum.ranges) < BUCKETS:
                earlier.append(segment)
        rules.append(rule(_all(parts), stratum.ranges))
    return rules


def _outside(slice_: Slice) -> Json:
    return _filter(slice_, [(0, slice_.start), (slice_.end, BUCKETS)])


def _filter(slice_: Slice, ranges: Iterable[tuple[int, int]]) -> Json:
    kept = _shares((start, end) for start, end in ranges if start < end)
    return {"attribute": "id", "seed": slice_.salt, "hashVersion": 2, "ranges": kept}


def _shares(ranges: Iterable[tuple[int, int]]) -> list[list[float]]:
    # The SDKs compare bucket / 10000 with these: the same division, so the same float at each bound.
    return [[start / BUCKETS, end / BUCKETS] for start, end in ranges]


def _all(conditions: Sequence[Json]) -> Json:
    """Return one condition that holds where all do."""
    keys = [key for condition in conditions for key in condition]
    if len(set(keys)) < len(keys):
        return {"$and": list(conditions)}
    return {key: operand for condition in conditions for key, operand in condition.items()}


class _Writer:
    """Writes conditions that every SDK reads as we do, and notes the saved groups they refer to."""

    def __init__(self, saved_groups: Mapping[str, Sequence[object]], used: dict[str, list[object]]) -> None:
        self._saved_groups = saved_groups
        self._used = used

    def condition(self, written: Mapping[str, Any]) -> Json:
        """Return a condition on an object (a user, or an element of an array)."""
        parts: list[Json] = []
        for key, operand in written.items():
            if key in _COMBINERS:
                parts.append({key: [self.condition(part) for part in operand]})
            elif key == "$not":
                parts.append({key: self.condition(operand)})
            else:
                parts += self._field(key, operand)
        return _all(parts)

    def _field(self, name: str, operand: Any) -> list[Json]:
        if not _has_operators(operand):
            return [{name: _literal(operand)}]
        tests, refused = self._tests(operand)
        return [{name: test} for test in tests] + [{"$not": _all(self._field(name, one))} for one in refused]

    def _value(self, operand: Any) -> Any:
        """Return a test of a value that no path leads to, such as an element of an array."""
        if not _has_operators(operand):
            return _literal(operand)
        tests, refused = self._tests(operand)
        merged = _merged([*tests, *({"$not": self._value(one)} for one in refused)])
        # Two negations of one value cannot be written for the JavaScript SDK: then it is as it was.
        return merged[0] if len(merged) == 1 else dict(operand)

    def _tests(self, operand: Mapping[str, Any]) -> tuple[list[Json], list[Any]]:
        """Return the tests that a value must pass, as few as can be, and those that it must not pass."""
        passed = [self._operator(name, one) for name, one in operand.items() if name not in {"$not", *_NEGATED}]
        refused = [
            one if name == "$not" else {_NEGATED[name]: one}
            for name, one in operand.items()
            if name in {"$not", *_NEGATED}
        ]
        return _merged(passed if operand else [dict(_EVERYBODY)]), refused

    def _operator(self, name: str, operand: Any) -> Json:
        if name in _TYPED:
            return {"$type": "string" if isinstance(operand, str) else "number", name: operand}
        if name in _NULLS and operand is None:
            return {"$exists": _NULLS[name]}
        match name:
            case "$type" if operand == "null":
                return {"$exists": False}
            case "$in" | "$nin" if len(operand) > LONGEST_LIST and all(map(_is_text_or_number, operand)):
                return {"$inGroup" if name == "$in" else "$notInGroup": self._group(operand)}
            case "$inGroup" | "$notInGroup":
                self._used[operand] = list(self._saved_groups.get(operand, ()))
            case "$size" if isinstance(operand, Mapping):
                return {name: self._value(operand)}
            case "$all":
                return {name: [self._value(one) for one in operand]}
            case "$alli":
                return {"$all": [_folded(one) if isinstance(one, str) else self._value(one) for one in operand]}
            case "$elemMatch":
                return {name: self._element(operand)}
        return {name: operand}

    def _element(self, operand: Mapping[str, Any]) -> Json:
        if _has_operators(operand) and not operand.keys() & _COMBINERS:
            test: Json = self._value(operand)
            return test
        condition = self.condition(operand)
        # The JavaScript SDK takes an object of combiners alone for operators; one field that always matches helps.
        return condition | {"": dict(_EVERYBODY)} if _has_operators(condition) else condition

    def _group(self, values: Sequence[object]) -> str:
        digest = sha256(json.dumps(values, separators=(",", ":")).encode())
        name = f"list:{digest.hexdigest()[:16]}"
        self._used[name] = list(values)
        return name


def _has_operators(operand: object) -> bool:
    return isinstance(operand, Mapping) and all(name.startswith("$") for name in operand)


def _literal(value: Any) -> Any:
    """Return a test of equality; arrays and objects are compared as JSON by every SDK."""
    if isinstance(value, Mapping | list | tuple):
        return value
    return {"$exists": False} if value is None else {"$eq": value}


def _folded(text: str) -> Json:
    return {"$type": "string", "$ini": [text]}


def _merged(tests: Sequence[Json]) -> list[Json]:
    """Return tests that together ask the same, as few as can be."""
    if len({test["$type"] for test in tests if "$type" in test}) > 1:
        return [dict(_NOBODY)]
    merged: list[Json] = []
    for test in tests:
        for other in merged:
            if all(other.get(name, operand) == operand for name, operand in test.items()):
                other.update(test)
                break
        else:
            merged.append(dict(test))
    return merged


def _is_text_or_number(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)
