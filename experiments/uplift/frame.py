"""The users of an experiment as arrays: what was known of each, which variant he got, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from experiments.errors import FieldProblem, InvalidDocument
from experiments.uplift.question import Question, problems

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MIN_ARM = 200
MIN_CELL = 20
# Of a text column: the values kept, by frequency; the others are taken together.
MAX_LEVELS = 30
NO_SEGMENT = "(none)"


@dataclass(frozen=True, slots=True)
class Feature:
    """A column known before the treatment.

    ``values`` (n,): numbers, 0/1 of a flag (true or false), NaN where empty; of a category, the place in ``labels``
    (NaN: empty, or a rare value).
    """

    name: str
    kind: Literal["number", "flag", "category"]
    values: Floats
    labels: tuple[str, ...] = ()

    def columns(self) -> list[Floats]:
        """Return the columns (n,) that learners get: the numbers, or 0/1 for each label."""
        if self.kind != "category":
            return [self.values]
        return [(self.values == code).astype(float) for code in range(len(self.labels))]


@dataclass(frozen=True, slots=True)
class Frame:
    """n users, K variants; variant 0 is the control.

    Attributes:
        ids: of the users, or row numbers from 1.
        features: what was known of them.
        arm: (n,) the variant, 0..K-1.
        names: of the variants.
        propensity: (n, K) the known chances, rows sum to 1.
        outcome: (n,) the outcome times its value.
        costs: (K,) per user, in the unit of ``outcome``.
        binary: the outcome is 0/1 and has no value of its own.
        segment: (n,) place in ``segments``.
        segments: their names; empty where none are told apart.
    """

    ids: list[Any]
    features: tuple[Feature, ...]
    arm: Ints
    names: tuple[str, ...]
    propensity: Floats
    outcome: Floats
    costs: Floats
    binary: bool
    segment: Ints
    segments: tuple[str, ...]

    def matrix(self) -> tuple[Floats, Ints]:
        """Return what learners get, (n, p) with NaN where empty, and the feature of each column (p,)."""
        columns = [feature.columns() for feature in self.features]
        owner = np.repeat(np.arange(len(columns)), [len(found) for found in columns])
        return np.column_stack([column for found in columns for column in found]), owner


def read(path: Path) -> pa.Table:
    """Read a ``.parquet`` file, else CSV (also compressed), with a header."""
    if not path.is_file():
        raise _refused("file", str(path), "not_found", "name a CSV or Parquet file", what="command")
    try:
        with duckdb.connect() as engine:
            name = str(path)
            found = engine.read_parquet(name) if path.suffix == ".parquet" else engine.read_csv(name, sample_size=-1)
            return found.to_arrow_table()
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        remedy = f"give a CSV (UTF-8) or Parquet file: {reason}"
        raise _refused("file", path.name, "unreadable", remedy) from None


def from_table(table: pa.Table, question: Question) -> Frame:
    """Make arrays of a table with one row a user.

    Raises:
        InvalidDocument: a column is missing or holds what it should not, a group is too small, or an option does not
            fit the data or another one. All that is wrong is listed.
    """
    found = list(problems(question))
    remedy = f"name one of the file's columns: {', '.join(table.column_names[:50])}"
    found += [
        FieldProblem(option, column, "unknown_column", remedy)
        for option, column in question.columns()
        if column not in table.column_names
    ]
    if found:
        raise InvalidDocument(found, "command")
    arm, names = _arms(table, question)
    found = []
    outcome, binary = _outcome(table, question, found)
    features = tuple(_feature(table.column(name), name, found) for name in question.features)
    if found:
        raise InvalidDocument(found, "file")
    ids = list(range(1, table.num_rows + 1)) if question.unit is None else _ids(table, question.unit)
    segment, segments = _segments(table, question.segment)
    return Frame(
        ids=ids,
        features=tuple(feature for feature in features if feature is not None),
        arm=arm,
        names=names,
        propensity=_propensity(table, question, arm, names),
        outcome=outcome,
        costs=_per_variant(question.costs, names, "cost"),
        binary=binary,
        segment=segment,
        segments=segments,
    )


def _arms(table: pa.Table, question: Question) -> tuple[Ints, tuple[str, ...]]:
    column = table.column(question.variant)
    if column.null_count:
        raise _refused(question.variant, f"{column.null_count} rows", "empty", "fill the cells, or drop the rows")
    given = pc.cast(column, pa.string()).combine_chunks().dictionary_encode()
    labels: list[str] = given.dictionary.to_pylist()
    names = sorted(labels, key=lambda name: (name != question.control, name))
    if question.control not in labels or len(labels) < 2:
        remedy = f"name one of the values of {question.variant!r}: {', '.join(sorted(labels)[:20])}"
        raise _refused("control", question.control, "unknown_variant", remedy, what="command")
    place = np.array([names.index(label) for label in labels])
    arm = place[given.indices.to_numpy(zero_copy_only=False)]
    counts = np.bincount(arm, minlength=len(names))
    if counts.min() < MIN_ARM:
        small = int(counts.argmin())
        remedy = f"give {MIN_ARM} users or more of each variant: {names[small]} has {counts[small]}"
        raise _refused(question.variant, names[small], "too_few", remedy)
    return arm, tuple(names)


def _segments(table: pa.Table, column: str | None) -> tuple[Ints, tuple[str, ...]]:
    """The segment of each user, and their names; empty cells are one of their own."""
    if column is None:
        return np.zeros(table.num_rows, dtype=int), ()
    given = pc.fill_null(pc.cast(table.column(column), pa.string()), NO_SEGMENT).combine_chunks().dictionary_encode()
    labels: list[str] = given.dictionary.to_pylist()
    if not 2 <= len(labels) <= MAX_LEVELS:
        remedy = f"name a column of 2 to {MAX_LEVELS} segments, or group its values"
        raise _refused(column, f"{len(labels)} values", "too_many" if len(labels) > 1 else "constant", remedy)
    names = sorted(labels, key=lambda label: (label == NO_SEGMENT, label))
    place = np.array([names.index(label) for label in labels])
    return place[given.indices.to_numpy(zero_copy_only=False)], tuple(names)


def _outcome(table: pa.Table, question: Question, found: list[FieldProblem]) -> tuple[Floats, bool]:
    outcome = _numbers(table.column(question.outcome), question.outcome, found)
    if outcome is None:
        return np.zeros(0), False
    if np.isnan(outcome).any():
        rows = f"{int(np.isnan(outcome).sum())} rows"
        found.append(FieldProblem(question.outcome, rows, "empty", "fill the cells (0 if nothing happened)"))
    elif (outcome == outcome[0]).all():
        found.append(FieldProblem(question.outcome, float(outcome[0]), "constant", "give an outcome that varies"))
    binary = bool(np.isin(outcome, (0, 1)).all())
    if question.value is None:
        return outcome, binary
    value = _numbers(table.column(question.value), question.value, found)
    if value is None:
        return outcome, False
    missing = int((np.isnan(value) & (outcome != 0)).sum())
    if missing:
        remedy = "fill the cells wherever the outcome is not 0"
        found.append(FieldProblem(question.value, f"{missing} rows", "empty", remedy))
    return outcome * np.where(outcome == 0, 0.0, np.nan_to_num(value)), False


def _numbers(column: pa.ChunkedArray, name: str, found: list[FieldProblem]) -> Floats | None:
    """The numbers of a column, NaN where empty; None, and a problem, where it holds something else."""
    kind = column.type
    if not (pa.types.is_boolean(kind) or _is_number(kind)):
        found.append(FieldProblem(name, str(kind), "not_a_number", "give a column of numbers"))
        return None
    numbers = pc.cast(pc.cast(column, pa.int8()) if pa.types.is_boolean(kind) else column, pa.float64(), safe=False)
    values = np.array(numbers.to_numpy(), dtype=float)
    infinite = int((np.isinf(values) | (np.isnan(values) & ~column.is_null().to_numpy())).sum())
    if infinite:
        found.append(
            FieldProblem(name, f"{infinite} rows", "not_finite", "give finite numbers, or leave the cell empty")
        )
        return None
    return values


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _feature(column: pa.ChunkedArray, name: str, found: list[FieldProblem]) -> Feature | None:
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if text or pa.types.is_dictionary(column.type):
        return _category(pc.cast(column, pa.string()), name, found)
    if not (pa.types.is_boolean(column.type) or _is_number(column.type)):
        remedy = "give numbers or text: of a date, the days since then"
        found.append(FieldProblem(name, str(column.type), "not_a_feature", remedy))
        return None
    values = _numbers(column, name, found)
    if values is None:
        return None
    known = values[~np.isnan(values)]
    if known.size == 0 or (known.size == values.size and known.min() == known.max()):
        value = float(known[0]) if known.size else None
        found.append(FieldProblem(name, value, "constant", "leave it out: it is the same for everybody"))
    return Feature(name, "flag" if pa.types.is_boolean(column.type) else "number", values)


def refusal(column: pa.ChunkedArray, name: str) -> FieldProblem | None:
    """Return why a column is no feature: it is the same for all, has too many values, or values of a wrong type."""
    found: list[FieldProblem] = []
    _feature(column, name, found)
    return found[0] if found else None


def _category(column: pa.ChunkedArray, name: str, found: list[FieldProblem]) -> Feature | None:
    given = column.combine_chunks().dictionary_encode()
    levels: list[str] = given.dictionary.to_pylist()
    codes = np.array(pc.fill_null(given.indices, -1).to_numpy(zero_copy_only=False), dtype=int)
    counts = np.bincount(codes[codes >= 0], minlength=len(levels))
    if len(levels) == 0 or (len(levels) == 1 and counts[0] == codes.size):
        value = levels[0] if levels else None
        found.append(FieldProblem(name, value, "constant", "leave it out: it is the same for everybody"))
        return None
    kept = sorted(sorted(range(len(levels)), key=lambda code: (-counts[code], levels[code]))[:MAX_LEVELS])
    if 2 * counts[kept].sum() < counts.sum():
        remedy = (
            f"leave it out, or group its values: the {MAX_LEVELS} most frequent of {len(levels)} cover less than half"
        )
        found.append(FieldProblem(name, f"{len(levels)} values", "too_many", remedy))
        return None
    kept.sort(key=lambda code: levels[code])
    place = np.full(len(levels) + 1, np.nan)
    place[kept] = np.arange(len(kept))
    return Feature(name, "category", place[codes], tuple(levels[code] for code in kept))


def _ids(table: pa.Table, column: str) -> list[Any]:
    ids: list[Any] = table.column(column).to_pylist()
    if table.column(column).null_count:
        raise _refused(column, f"{table.column(column).null_count} rows", "empty", "fill the cells, or drop the rows")
    if len(set(ids)) < len(ids):
        rows = f"{len(ids) - len(set(ids))} rows"
        raise _refused(column, rows, "not_unique", "give one row a user: sum up his rows first")
    return ids


def _propensity(table: pa.Table, question: Question, arm: Ints, names: Sequence[str]) -> Floats:
    """The shares given, or those counted: over all, or within each stratum."""
    size = len(names)
    if question.chances:
        return _chances(table, question, names)
    if question.weights is not None:
        weights = _per_variant(question.weights, names, "weights")
        if set(question.weights) != set(names) or weights.min() <= 0:
            remedy = f"give a weight above 0 for each of {', '.join(names)}"
            raise _refused("weights", dict(question.weights), "bad_weights", remedy, what="command")
        return np.tile(weights / weights.sum(), (arm.size, 1))
    stratum = np.zeros(arm.size, dtype=int)
    for column in question.strata:
        codes = pc.fill_null(table.column(column).combine_chunks().dictionary_encode().indices, -1)
        _, stratum = np.unique(
            stratum * (table.num_rows + 1) + codes.to_numpy(zero_copy_only=False) + 1, return_inverse=True
        )
    counts = np.bincount(stratum * size + arm, minlength=(stratum.max() + 1) * size).reshape(-1, size)
    if counts.min() < MIN_CELL:
        small, k = divmod(int(counts.argmin()), size)
        row = int(np.argmax(stratum == small))
        group = ", ".join(f"{column}={table.column(column)[row].as_py()}" for column in question.strata)
        remedy = f"choose coarser groups: {names[k]} has {counts[small, k]} users in {group}, {MIN_CELL} at least"
        raise _refused("stratum", list(question.strata), "too_few", remedy)
    shares: Floats = counts / counts.sum(axis=1, keepdims=True)
    return shares[stratum]


def _chances(table: pa.Table, question: Question, names: Sequence[str]) -> Floats:
    if set(question.chances) != set(names):
        remedy = f"name the column of each of {', '.join(names)}"
        raise _refused("chances", dict(question.chances), "bad_weights", remedy, what="command")
    found: list[FieldProblem] = []
    columns = [_numbers(table.column(question.chances[name]), question.chances[name], found) for name in names]
    if found:
        raise InvalidDocument(found, "file")
    chances = np.column_stack([column for column in columns if column is not None])
    wrong = ~((chances > 0).all(axis=1) & np.isclose(chances.sum(axis=1), 1, atol=1e-6))
    if wrong.any():
        remedy = "give each user a chance above 0 for every variant, 1 in all"
        raise _refused("chances", chances[wrong][0].tolist(), "bad_weights", remedy)
    return chances


def _per_variant(given: Any, names: Sequence[str], option: str) -> Floats:
    for name, value in given.items():
        if name not in names:
            raise _refused(option, name, "unknown_variant", f"name variants: {', '.join(names)}", what="command")
        if not 0 <= value < inf:
            raise _refused(option, {name: value}, "out_of_range", "give a number of 0 or more", what="command")
    return np.array([float(given.get(name, 0.0)) for name in names])


def _refused(name: str, value: object, problem: str, remedy: str, what: str = "file") -> InvalidDocument:
    return InvalidDocument([FieldProblem(name, value, problem, remedy)], what)
