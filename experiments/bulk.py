"""Assignment of whole audiences: the vectorised twin of `experiments.sdk`, with the same answers row by row.

Users are hashed in blocks that fit the processor's cache. Rules are evaluated column by column: with NumPy where a rule
compares a typed column, else once for each distinct value with the SDK's own closure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from experiments.sdk.conditions import attribute_names, compile_condition
from experiments.sdk.experiment import CompiledExperiment, Reason, Rule, Slice
from experiments.sdk.hashing import BUCKETS, PRIME, bucket, bucket_after, code_units, fnv1a32

__all__ = ["REASONS", "BulkAssignment", "assign_bulk", "buckets"]

UserIds: TypeAlias = npt.NDArray[Any] | Sequence[object]
Column: TypeAlias = npt.NDArray[Any]
_Mask: TypeAlias = npt.NDArray[np.bool_]

REASONS: Final = tuple(Reason)
_INDEX: Final = {reason: np.int8(i) for i, reason in enumerate(REASONS)}

_BLOCK: Final = 16_384  # rows; measured: from 8,192 on little changes, and scratch arrays stay small
_LONGEST: Final = 64  # characters; longer ids are hashed one by one, lest one of them widens a whole block
_LAST_SINGLE_UNIT: Final = 0xFFFF  # characters above take two UTF-16 code units
_EXACT: Final = 2**53  # below, whole numbers are exact as float64, and no greater one is rounded to one of them


@dataclass(frozen=True, slots=True)
class BulkAssignment:
    """One entry for each user: indices into the experiment's variants, `REASONS`, and waves or strata (-1: none)."""

    variant: npt.NDArray[np.int8]
    reason: npt.NDArray[np.int8]
    stratum: npt.NDArray[np.int16]


def assign_bulk(
    experiment: CompiledExperiment,
    user_ids: UserIds,
    attributes: Mapping[str, Column] | None = None,
    stored: Sequence[str | None] | Column | None = None,
) -> BulkAssignment:
    """Return the assignment of many users, equal to `experiment.assign` for each of them.

    `user_ids` has n texts. `attributes` maps an attribute to its column of n values, where None and NaN stand for a
    missing value; `stored` has the variant that each user is known to have, or None. Raises `ValueError` where a
    column's length is not n.
    """
    columns = {name: np.asarray(column) for name, column in (attributes or {}).items()}
    known = None if stored is None else np.asarray(stored, dtype=object)
    for name, column in [*columns.items(), *([("stored", known)] if known is not None else [])]:
        if column.shape != (len(user_ids),):
            raise ValueError(f"{name} has shape {column.shape}, not {(len(user_ids),)} as the user ids")
    if "id" in experiment.reads:
        columns["id"] = np.asarray(user_ids, dtype=None if isinstance(user_ids, np.ndarray) else object)
    n = len(user_ids)
    result = BulkAssignment(np.full(n, -1, np.int8), np.empty(n, np.int8), np.full(n, -1, np.int16))
    if not experiment.running:
        result.reason.fill(_INDEX[Reason.not_running])
        return result
    places = buckets(experiment.salt, user_ids)
    _allocate(experiment, columns, places, result)

    # The checks in reverse order: an earlier one overrides what a later one said.
    def refuse(rows: _Mask, reason: Reason) -> None:
        result.variant[rows], result.reason[rows], result.stratum[rows] = -1, _INDEX[reason], -1

    if experiment.layer is not None:
        refuse(~_holds(experiment.layer, user_ids), Reason.outside_layer)
    for holdout in experiment.holdouts:
        refuse(_holds(holdout, user_ids), Reason.in_holdout)
    if experiment.audience is not None:
        refuse(~_matches(experiment.audience, columns, n, experiment), Reason.not_in_audience)
    if known is not None and experiment.sticky:
        index = {variant: i for i, variant in enumerate(experiment.variants)}
        kept = np.fromiter((index.get(key, -1) if isinstance(key, str) else -1 for key in known), np.int8, n)
        rows = kept >= 0
        result.variant[rows], result.reason[rows], result.stratum[rows] = kept[rows], _INDEX[Reason.sticky], -1
    _force(experiment, user_ids, places, result)
    refuse(_without_id(user_ids), Reason.no_user_id)
    return result


def buckets(seed: str, user_ids: UserIds) -> npt.NDArray[np.uint16]:
    """Return the bucket, 0 to 9,999, of each user id (shape n); what is not a text is hashed as the empty text."""
    state = fnv1a32(code_units(seed))
    result = np.empty(len(user_ids), np.uint16)
    for start in range(0, len(user_ids), _BLOCK):
        block = user_ids[start : start + _BLOCK]
        out = result[start : start + _BLOCK]
        if isinstance(block, np.ndarray) and block.dtype.kind == "U":
            out[:] = _buckets_of_texts(state, block)
            continue
        texts = [text if isinstance(text, str) else "" for text in block]
        # NumPy pads texts with NUL, so one that ends in NUL would be cut.
        alone = [i for i, text in enumerate(texts) if len(text) > _LONGEST or text.endswith("\0")]
        plain = texts.copy()
        for i in alone:
            plain[i] = ""
        out[:] = _buckets_of_texts(state, np.array(plain, dtype=np.str_))
        for i in alone:
            out[i] = bucket(seed, texts[i])
    return result


def _buckets_of_texts(state: int, texts: npt.NDArray[np.str_]) -> npt.NDArray[np.uint32]:
    lengths = np.char.str_len(texts)
    shortest, longest = int(lengths.min()), int(lengths.max())
    native = np.ascontiguousarray(texts, dtype=texts.dtype.newbyteorder("="))
    # Turned so that one NumPy call hashes the same character of every id: loops are then as long as the block.
    units = np.ascontiguousarray(native.view(np.uint32).reshape(len(texts), -1)[:, :longest].T)
    hashes = np.full(len(texts), state, np.uint32)
    for i, unit in enumerate(units):
        hashes ^= unit
        np.multiply(hashes, PRIME, out=hashes, where=True if i < shortest else lengths > i)
    result = _buckets_of_hashes(hashes)
    if units.max(initial=0) > _LAST_SINGLE_UNIT:
        for row in np.flatnonzero((units > _LAST_SINGLE_UNIT).any(axis=0)):
            result[row] = bucket_after(state, str(texts[row]))
    return result


def _buckets_of_hashes(hashes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """The second half of the hash: FNV-1a over the decimal digits of the first."""
    leading = hashes // 100_000
    trailing = hashes - leading * 100_000
    result = _AFTER_NUMBER[leading]
    for power in (10_000, 1_000, 100, 10, 1):
        digit = trailing // power
        trailing -= digit * power
        result ^= digit + ord("0")
        result *= PRIME
    result %= BUCKETS
    for row in np.flatnonzero(leading == 0):  # fewer than six digits, so no zeros in between
        result[row] = fnv1a32(b"%d" % int(hashes[row])) % BUCKETS
    return result


def _states_after_numbers(count: int) -> npt.NDArray[np.uint32]:
    """The hash state after the decimal digits of 0 ... count - 1."""
    states = np.empty(count, np.uint32)
    states[:10] = [fnv1a32((ord("0") + digit,)) for digit in range(10)]
    start = 10
    while start < count:
        numbers = np.arange(start, min(10 * start, count), dtype=np.uint32)
        states[numbers] = (states[numbers // 10] ^ (numbers % 10 + ord("0"))) * np.uint32(PRIME)
        start *= 10
    return states


_AFTER_NUMBER: Final = _states_after_numbers(2**32 // 100_000 + 1)


def _holds(part: Slice, user_ids: UserIds) -> _Mask:
    places = buckets(part.salt, user_ids)
    return (places >= part.start) & (places < part.end)


def _without_id(user_ids: UserIds) -> _Mask:
    if isinstance(user_ids, np.ndarray) and user_ids.dtype.kind == "U":
        return np.asarray(user_ids == "")
    return np.fromiter((not isinstance(text, str) or not text for text in user_ids), bool, len(user_ids))


def _allocate(
    experiment: CompiledExperiment,
    columns: Mapping[str, Column],
    places: npt.NDArray[np.uint16],
    result: BulkAssignment,
) -> None:
    """Fill in the answers of users who meet no check but the strata and the coverage."""
    if experiment.waves:
        opened, waves = np.full(BUCKETS, -1, np.int8), np.full(BUCKETS, -1, np.int16)
        for i, wave in enumerate(experiment.waves):
            for arm, (start, end) in enumerate(wave.ranges):
                opened[start:end], waves[start:end] = arm, i
        why = np.where(opened < 0, _INDEX[Reason.not_covered], _INDEX[Reason.assigned])
        result.variant[:], result.reason[:], result.stratum[:] = opened[places], why[places], waves[places]
        return
    result.reason.fill(_INDEX[Reason.no_stratum])
    free: _Mask | None = None  # None: all users
    for i, stratum in enumerate(experiment.strata):
        arms = np.full(BUCKETS, -1, np.int8)
        for arm, (start, end) in enumerate(stratum.ranges):
            arms[start:end] = arm
        reasons = np.where(arms < 0, _INDEX[Reason.not_covered], _INDEX[Reason.assigned])
        if stratum.rule is None:
            result.variant[:], result.reason[:] = arms[places], reasons[places]
            return
        rows = _matches(stratum.rule, columns, len(places), experiment)
        if free is not None:
            rows &= free
        free = ~rows if free is None else free & ~rows
        result.variant[rows], result.reason[rows], result.stratum[rows] = arms[places[rows]], reasons[places[rows]], i


def _force(
    experiment: CompiledExperiment, user_ids: UserIds, places: npt.NDArray[np.uint16], result: BulkAssignment
) -> None:
    if not experiment.forced:
        return
    # Only users in a forced user's bucket can be he: comparing numbers first spares comparing texts.
    for row in np.flatnonzero(np.isin(places, [experiment.bucket(user) for user in experiment.forced])).tolist():
        user = user_ids[row]
        answer = experiment.forced.get(user) if isinstance(user, str) else None
        if answer is not None and answer.variant is not None:
            result.variant[row] = experiment.variants.index(answer.variant)
            result.reason[row], result.stratum[row] = _INDEX[Reason.forced], -1


# Rules over columns.


def _matches(rule: Rule, columns: Mapping[str, Column], n: int, experiment: CompiledExperiment) -> _Mask:
    return _Rules(columns, n, experiment.saved_groups).every(rule.condition)


@dataclass(frozen=True, slots=True)
class _Rules:
    """Evaluates well-formed conditions (the experiment was compiled) over columns of n values."""

    columns: Mapping[str, Column]
    n: int
    saved_groups: Mapping[str, Sequence[object]]

    def every(self, condition: Mapping[str, Any]) -> _Mask:
        result = np.ones(self.n, bool)
        for key, operand in condition.items():
            result &= self._part(key, operand)
        return result

    def _part(self, key: str, operand: Any) -> _Mask:
        if key == "$and":
            return reduce(np.logical_and, map(self.every, operand), np.ones(self.n, bool))
        if key in ("$or", "$nor"):
            matched = reduce(np.logical_or, map(self.every, operand), np.full(self.n, not operand))
            return matched if key == "$or" else ~matched
        if key == "$not":
            return ~self.every(operand)
        column = self.columns.get(key) if "." not in key else None
        compared = None if column is None else _compare(column, operand)
        return self._one_by_one(key, operand) if compared is None else compared

    def _one_by_one(self, key: str, operand: object) -> _Mask:
        """Ask the SDK about each distinct value of the only column that the condition reads."""
        (name,) = attribute_names({key: operand})
        matches = compile_condition({key: operand}, self.saved_groups)
        column = self.columns.get(name)
        if column is None:
            return np.full(self.n, matches({}))
        answers: dict[tuple[type, object], bool] = {}

        def answer(value: object) -> bool:
            value = _present(value)
            if type(value) not in _SCALARS:
                return matches({name: value})
            seen = type(value), value  # the type keeps true apart from 1
            if seen not in answers:
                answers[seen] = matches({name: value})
            return answers[seen]

        return np.fromiter(map(answer, column.tolist()), bool, self.n)


_SCALARS: Final = frozenset({type(None), bool, int, float, str})


def _present(value: object) -> object:
    return None if isinstance(value, float) and value != value else value


_ORDERS: Final[Mapping[str, Callable[[Column, Any], _Mask]]] = {
    "$lt": np.less,
    "$lte": np.less_equal,
    "$gt": np.greater,
    "$gte": np.greater_equal,
}


def _compare(column: Column, operand: object) -> _Mask | None:
    """Evaluate a test of a typed column with NumPy; None where only the SDK's closure knows the answer."""
    if column.dtype.kind not in "biufU" or (column.dtype.kind == "f" and column.dtype.itemsize > 8):
        return None
    if column.dtype.kind == "f":
        column = column.astype(np.float64, copy=False)
    if not isinstance(operand, Mapping):
        return _equal(column, operand)
    parts = [_operate(column, name, value) for name, value in operand.items()]
    return _joined(np.logical_and, parts, np.ones(len(column), bool))


def _operate(column: Column, name: str, operand: Any) -> _Mask | None:
    if name == "$exists":
        return ~_missing(column) if operand else _missing(column)
    if name == "$eq":
        return _equal(column, operand)
    if name == "$in":
        parts = [_equal(column, value) for value in operand]
        return _joined(np.logical_or, parts, np.zeros(len(column), bool))
    if name in _NEGATED:
        matched = _operate(column, _NEGATED[name], operand)
        return None if matched is None else ~matched
    if name == "$not":
        matched = _compare(column, operand)
        return None if matched is None else ~matched
    if name in _ORDERS and column.dtype.kind in "iuf" and _is_exact(operand):
        return _ORDERS[name](column, operand)
    return None


_NEGATED: Final[Mapping[str, str]] = {"$ne": "$eq", "$nin": "$in"}


def _equal(column: Column, literal: object) -> _Mask | None:
    kind = column.dtype.kind
    if literal is None:
        return _missing(column)
    if isinstance(literal, str):
        # NumPy drops trailing NULs, so no value of a column has one.
        comparable = kind == "U" and not literal.endswith("\0")
    elif isinstance(literal, bool):
        comparable = kind == "b"
    else:
        comparable = kind in "iuf" and isinstance(literal, int | float)
        if comparable and not _is_exact(literal):
            return None
    return np.asarray(column == literal) if comparable else np.zeros(len(column), bool)


def _joined(join: Callable[[_Mask, _Mask], _Mask], parts: Sequence[_Mask | None], empty: _Mask) -> _Mask | None:
    known = [part for part in parts if part is not None]
    return reduce(join, known, empty) if len(known) == len(parts) else None


def _missing(column: Column) -> _Mask:
    return np.isnan(column) if column.dtype.kind == "f" else np.zeros(len(column), bool)


def _is_exact(number: object) -> bool:
    return isinstance(number, int | float) and abs(number) < _EXACT
