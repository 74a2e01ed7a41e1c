"""Small made-up facts, and the way from them to sums: what the tests of aggregation and analysis share."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any, NamedTuple

import ibis
import jsonschema
import msgspec
import numpy as np
import pyarrow as pa
import pytest

from experiments import aggregate, analysis, report
from experiments.design import Design, MetricSpec
from experiments.documents import Kind, parse
from experiments.fields import Direction, Role
from experiments.people import Scope
from experiments.report import Report
from experiments.sums import MICROS, Aggregates, Cell, Column, Layout, Measured, Sums, UserCounts

START = datetime(2024, 5, 1, tzinfo=UTC)
LATER = START + timedelta(days=60)


class Exposure(NamedTuple):
    user_id: str
    variant: str
    at: datetime = START
    stratum: str | None = None
    name: str = "x"
    phase: int = 1
    batch: int = 1


class Event(NamedTuple):
    user_id: str
    name: str
    at: datetime = START
    value: float | None = None
    batch: int = 1


class Alias(NamedTuple):
    user_id: str
    other_id: str
    batch: int = 1


def conversion(key: str = "c", event: str = "buy", **fields: Any) -> Any:
    return parse(
        Kind.metric, {"key": key, "name": key, "kind": "conversion", "event": event, "window_days": 7} | fields
    )


def mean(key: str = "m", terms: Sequence[dict[str, Any]] = ({"event": "buy"},), **fields: Any) -> Any:
    return parse(
        Kind.metric, {"key": key, "name": key, "kind": "mean", "terms": list(terms), "window_days": 7} | fields
    )


def ratio(key: str, numerator: Sequence[dict[str, Any]], denominator: Sequence[dict[str, Any]], **fields: Any) -> Any:
    body = {"kind": "ratio", "numerator": list(numerator), "denominator": list(denominator), "window_days": 7}
    return parse(Kind.metric, {"key": key, "name": key} | body | fields)


def metric(key: str, **fields: Any) -> Any:
    """A metric of any other kind."""
    return parse(Kind.metric, {"key": key, "name": key} | fields)


_TIME = pa.timestamp("us", tz="UTC")


def exposure_table(rows: Sequence[Exposure]) -> pa.Table:
    schema = pa.schema(
        {"user_id": pa.string(), "variant": pa.string(), "at": _TIME, "stratum": pa.string()}
        | {"name": pa.string(), "phase": pa.int32(), "batch": pa.int32(), "seq": pa.int64()}
    )
    # The last received stands first: only ``seq`` tells the order of receipt.
    return pa.Table.from_pylist([{**row._asdict(), "seq": i} for i, row in enumerate(rows)][::-1], schema)


def event_table(rows: Sequence[Event]) -> pa.Table:
    schema = pa.schema(
        {"user_id": pa.string(), "name": pa.string(), "at": _TIME, "value_micros": pa.int64(), "batch": pa.int32()}
    )
    micros = [None if row.value is None else round(row.value * 1_000_000) for row in rows]
    return pa.Table.from_pylist(
        [{**row._asdict(), "value_micros": m} for row, m in zip(rows, micros, strict=True)], schema
    )


def alias_table(rows: Sequence[Alias]) -> pa.Table:
    schema = pa.schema({"user_id": pa.string(), "name": pa.string(), "seq": pa.int64(), "batch": pa.int32()})
    listed = [{"user_id": a.user_id, "name": a.other_id, "seq": i, "batch": a.batch} for i, a in enumerate(rows)]
    return pa.Table.from_pylist(listed[::-1], schema)


def measure(
    exposures: Sequence[Exposure],
    events: Sequence[Event],
    metrics: Sequence[Any],
    *,
    phase: int = 1,
    batch: int = 10,
    as_of: datetime = LATER,
    timezone: str = "UTC",
    forced: Iterable[str] = (),
    name: str = "x",
    received: str | None = None,
    trigger: str | None = None,
    aliases: Sequence[Alias] | None = None,
) -> Aggregates:
    """Sums as DuckDB makes them of the rows; the order of ``exposures`` and ``aliases`` is the order of receipt."""
    engine = ibis.duckdb.connect()
    try:
        return aggregate.from_facts(
            engine.to_pyarrow,
            ibis.memtable(exposure_table(exposures)),
            ibis.memtable(event_table(events)),
            metrics,
            Scope(name, phase, batch, as_of, timezone, forced, received, trigger),
            None if aliases is None else ibis.memtable(alias_table(aliases)),
        )
    finally:
        engine.disconnect()


SHARES = ("conversion", "retention", "funnel")


def spec(key: str = "m", kind: Any = "mean", **fields: Any) -> MetricSpec:
    plain: dict[str, Any] = {
        "name": key,
        "role": Role.primary,
        "direction": Direction.up,
        "margin": None,
        "unit": "share" if kind in SHARES else "number",
        "horizon_days": 7,
        "window_days": 7,
        "revision": 1,
    }
    return MetricSpec(key=key, kind=kind, **plain | fields)


def design(shares: Mapping[str | None, Mapping[str, float]] | None = None, **fields: Any) -> Design:
    """A plan of control ``c`` against ``t``, half and half, read once at 5 %; strata are the keys of ``shares``."""
    shares = shares or {None: {"c": 0.5, "t": 0.5}}
    segments = [stratum for stratum in shares if stratum is not None]
    plain: dict[str, Any] = {
        "experiment": "x",
        "name": "X",
        "revision": 1,
        "phase": 1,
        "control": "c",
        "variants": {variant: variant.upper() for variant in next(iter(shares.values()))},
        "segments": {segment: segment.upper() for segment in segments},
        "members": {segment: (segment,) for segment in segments},
        "dimensions": {"segment": tuple(segments)} if segments else {},
        "stratified": len({tuple(part.values()) for part in shares.values()}) > 1,
        "method": "fixed",
        "alpha": 0.05,
        "planned_users": None,
        "correction": "holm",
    }
    return Design(shares=shares, **plain | fields)


Rows = Mapping[Any, Any]


def measured(
    rows: Rows, kind: str = "mean", covariates: int = 0, *, uncapped: int | None = None, **fields: Any
) -> Measured:
    """Sums of users' values: for each (stratum, variant[, day]) an array (users, columns), in the metric's unit."""
    arrays = {who: np.asarray(values, dtype=float) for who, values in rows.items()}
    arrays = {who: array if array.ndim == 2 else array[:, None] for who, array in arrays.items()}
    binary = kind in SHARES
    columns = tuple(
        Column(f"x{i}", 1 if binary else MICROS, binary) for i in range(next(iter(arrays.values())).shape[1])
    )
    cells = {}
    for who, array in arrays.items():
        whole = [[round(value * column.scale) for value, column in zip(row, columns, strict=True)] for row in array]
        pairs = list(combinations_with_replacement(range(len(columns)), 2))
        cells[Cell(*who) if len(who) == 3 else Cell(*who, None)] = Sums(
            len(whole),
            tuple(sum(row[i] for row in whole) for i in range(len(columns))),
            tuple(sum(row[i] * row[j] for row in whole) for i, j in pairs),
        )
    return Measured(Layout(columns, covariates, uncapped), cells, **fields)


def build(
    plan: Design,
    *metrics: tuple[MetricSpec, Measured],
    users: Mapping[Any, UserCounts] | None = None,
    forced: int = 0,
    as_of: datetime = LATER,
    **more: Any,
) -> Report:
    """The report of some metrics, with every promise of the schema checked."""
    if users is None:
        counts: Counter[tuple[str | None, str]] = Counter()
        for cell, part in metrics[0][1].cells.items():
            counts[cell.stratum, cell.variant] += part.n
        users = {who: UserCounts(n, n) for who, n in counts.items()}
    made = analysis.build(plan, analysis.Data(users, forced, metrics, **more), as_of=as_of, watermark=None)
    assert_sound(report.encode(made))
    assert_finite(msgspec.to_builtins(made))
    return made


_SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text(encoding="utf-8"))
_VALIDATOR = jsonschema.Draft202012Validator(_SCHEMA)


def assert_sound(body: bytes) -> None:
    """The bytes are a report by the published schema, and hold no number that is none."""
    document = json.loads(body, parse_constant=pytest.fail)
    _VALIDATOR.validate(document)
    for metric in document["metrics"]:
        for comparison in [*metric["comparisons"], *metric["pairs"]]:
            numbers = [comparison[name] for name in ("absolute", "se", "p_value", "p_adjusted", "significant")]
            assert (comparison["problem"] is None) == all(number is not None for number in numbers)
            assert (comparison["problem"] is None) or all(number is None for number in numbers)


def assert_finite(value: object) -> None:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            assert_finite(part)
    assert not isinstance(value, float) or math.isfinite(value)
