"""One row a user who took part: what was known of him when he was exposed, his variant and its chance, what he did."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import ibis
import ibis.expr.types as ir
import msgspec
import numpy as np
import pyarrow as pa

from experiments import aggregate, facts, lake, people, registry
from experiments.documents import Experiment, Kind, Status
from experiments.errors import Conflict, FieldProblem, InvalidDocument, NotFound
from experiments.facts import Facts
from experiments.metrics import ConversionMetric, MeanMetric, QuantileMetric, RetentionMetric, TimeToEventMetric
from experiments.outcomes import Source
from experiments.people import Scope
from experiments.store import Store
from experiments.sums import DAY_US, MICROS

OUTCOME: Final = "outcome"
_FIXED: Final = ("user_id", "variant", "stratum", "exposed_at", OUTCOME)
_ONE_NUMBER: Final = (ConversionMetric, RetentionMetric, MeanMetric, TimeToEventMetric, QuantileMetric)
_MOST_TAGS: Final = 30
LOOKBACK_DAYS: Final = 90
# Longer than any window: whoever is asked about, has matured.
_AGES: Final = timedelta(days=36_600)
_OBJECT = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True)
class Rows:
    """The users of one phase who matured for a metric.

    Attributes:
        table: user_id, variant, stratum, exposed_at, outcome; ``chance.<variant>`` for each variant, as the allocation
            in force gave it; the ``features``.
        features: names of the columns known before the exposure: ``user.<attribute>`` (numbers, truth values or texts;
            ``user.tags=vip`` for an element of a list), ``before.count|value|recency_days.<event>``, and the metric's
            own covariates, ``before.<name>``.
        experiment: the document.
        metric: key of the metric.
        direction: which way of the metric is good, "up" or "down".
        batch: watermark of the lake.
    """

    table: pa.Table
    features: tuple[str, ...]
    experiment: Experiment
    metric: str
    direction: str
    batch: int


def of_experiment(
    store: Store,
    key: str,
    *,
    now: datetime,
    metric: str | None = None,
    lookback_days: int = LOOKBACK_DAYS,
    watermark: int | None = None,
    revision: int | None = None,
) -> Rows:
    """Return the rows of an experiment's present phase, newest data included.

    Args:
        store: the store.
        key: of the experiment.
        now: the present.
        metric: whose outcome; by default the primary one.
        lookback_days: how far back events before the exposure are counted.
        watermark: read the lake as of this one instead, moving nothing.
        revision: of the experiment, by default the newest.

    Raises:
        NotFound: no such experiment.
        Conflict: ``not_started``.
        InvalidDocument: the metric is none of this experiment's, or not one number a user.
    """
    if watermark is None:
        lake.sync(store.engine, store.lake, now=now)
    with store.read() as session:
        experiment: Experiment = registry.get(session, Kind.experiment, key, revision)
        if experiment.status is Status.draft:
            raise Conflict("not_started", f"the experiment {key!r} is a draft: start it first")
        uses = registry.metric_uses(session, experiment)
        mark = lake.watermark(session, watermark)
        files = {kind: lake.files(session, store.lake, kind) for kind in lake.SCHEMAS}
    if mark is None:
        raise NotFound("not_found", "the lake is empty")
    chosen = chosen_metric([found for found, _, _, _ in uses], metric)
    scope = Scope(key, experiment.phase, mark.batch, mark.at, store.settings.timezone, experiment.forced)
    events, past = _past([found for found, _, _, _ in uses], lookback_days)
    with facts.opened(files) as found:
        users = found.execute(aggregate.per_user(found, chosen, scope, past).order_by("user_id"))
        attributes = _attributes(found, users, scope)
    return _assembled(users, attributes, events, experiment, chosen, mark.batch)


def behaviour(
    found: Facts, users: Sequence[str], metrics: Sequence[Any], metric: Any, *, at: datetime, batch: int
) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Return the ``before.`` features of users at a moment, as ``of_experiment`` has them at the exposure.

    Args:
        found: the lake's tables.
        users: ids, of people their last ones.
        metrics: of the experiment.
        metric: the one that was studied.
        at: the moment.
        batch: watermark of the lake.
    """
    events, past = _past(metrics, LOOKBACK_DAYS)
    n = len(users)
    now = pa.array([at] * n, pa.timestamp("us", tz="UTC"))
    same = {"name": "x", "variant": "x", "stratum": "x"}
    columns: dict[str, Any] = {name: pa.array([value] * n, pa.string()) for name, value in same.items()}
    columns |= {"phase": pa.array([1] * n, pa.int32()), "batch": pa.array([batch] * n, pa.int32())}
    exposed = pa.table({"user_id": pa.array(users, pa.string()), "at": now, "seq": np.arange(n), **columns})
    scope = Scope("x", 1, batch, at + _AGES, "UTC")
    made = found.execute(aggregate.per_user(replace(found, exposures=ibis.memtable(exposed)), metric, scope, past))
    place = {user: row for row, user in enumerate(made["user_id"].to_pylist())}
    rows = np.array([place[user] for user in users], dtype=int)
    features = _behaviour(made, events)
    return {
        name: np.asarray(
            column if isinstance(column, np.ndarray) else column.to_numpy(zero_copy_only=False), dtype=float
        )[rows]
        for name, column in features.items()
    }


def _past(metrics: Sequence[Any], lookback_days: int) -> tuple[list[str], list[Source]]:
    """The events of metrics, and what is taken of each from the time before: count, sum and last moment."""
    events = sorted({name for found in metrics for name in _events(found)})
    window = (-lookback_days * DAY_US, 0)
    measures: tuple[Literal["count", "sum", "last"], ...] = ("count", "sum", "last")
    return events, [Source(name, measure, *window) for name in events for measure in measures]


def _behaviour(users: pa.Table, events: Sequence[str]) -> dict[str, Any]:
    features: dict[str, Any] = {}
    for i, event in enumerate(events):
        count, value, last = (users[f"past{3 * i + j}"].to_numpy(zero_copy_only=False) for j in range(3))
        features[f"before.count.{event}"] = np.nan_to_num(count.astype(float))
        features[f"before.value.{event}"] = np.nan_to_num(value.astype(float)) / MICROS
        # Whoever did nothing in that time has no last time: the column stays empty there.
        features[f"before.recency_days.{event}"] = -last.astype(float) / DAY_US
    for name in users.column_names:
        if name.endswith("_before"):
            features[f"before.{name.removesuffix('_before')}"] = users[name]
    return features


def chosen_metric(metrics: Sequence[Any], name: str | None) -> Any:
    """Return the metric of this name, the first one if there is no name.

    Raises:
        InvalidDocument: none of them has it, or it is not one number a user.
    """
    by_key = {metric.key: metric for metric in metrics}
    chosen = metrics[0] if name is None else by_key.get(name)
    if chosen is None:
        remedy = f"name one of the experiment's metrics: {', '.join(by_key)}"
        raise InvalidDocument([FieldProblem("metric", name, "unknown_reference", remedy)], "request")
    single = isinstance(chosen, _ONE_NUMBER) and getattr(chosen, "per", "user") == "user"
    if not single:
        remedy = "choose a metric with one number a user: conversion, retention, mean, time_to_event, quantile per user"
        raise InvalidDocument([FieldProblem("metric", chosen.key, "not_one_number", remedy)], "request")
    return chosen


def _events(metric: Any) -> Iterator[str]:
    """The events a metric reads."""
    for field in ("event", "steps", "terms", "numerator", "denominator"):
        value = getattr(metric, field, None)
        for part in (value,) if isinstance(value, str) else value or ():
            yield part if isinstance(part, str) else part.event


def _attributes(found: Facts, users: pa.Table, scope: Scope) -> list[dict[str, Any]]:
    """What was known of each user at his exposure: traits received for that time or before, in their order of time."""
    exposures, traits = found.exposures, found.traits
    if found.aliases is not None:
        exposures, traits = people.of_last_ids(found.execute, found.aliases, scope, exposures, traits)
    wanted = ibis.memtable(users.select(["user_id", "exposed_us"]))
    sent = exposures.filter(exposures.name == scope.experiment, exposures.phase == scope.phase)
    told = ibis.union(_told(sent, scope), _told(traits, scope)).inner_join(wanted, "user_id")
    told = told.filter(told.at_us <= told.exposed_us).order_by("user_id", "at_us", "seq").select("user_id", "data")
    known: dict[str, dict[str, Any]] = {}
    for batch in found.execute(told).to_batches():
        for user, data in zip(batch["user_id"].to_pylist(), batch["data"].to_pylist(), strict=True):
            known.setdefault(user, {}).update(_OBJECT.decode(data))
    return [known.get(user, {}) for user in users["user_id"].to_pylist()]


def _told(table: ir.Table, scope: Scope) -> ir.Table:
    kept = table.filter(table.batch <= scope.batch, table.data.notnull())
    return kept.select("user_id", "data", "seq", at_us=people.epoch_us(kept["at"]))


def _assembled(
    users: pa.Table,
    attributes: Sequence[Mapping[str, Any]],
    events: Sequence[str],
    experiment: Experiment,
    metric: Any,
    batch: int,
) -> Rows:
    exposed = users["exposed_us"].cast(pa.timestamp("us", tz="UTC"))
    columns: dict[str, Any] = {name: users[name] for name in _FIXED if name in users.column_names}
    columns = {**columns, "exposed_at": exposed}
    shares = experiment.shares()
    strata = users["stratum"].to_pylist()
    for variant in experiment.variants:
        chances = {stratum: part[variant.key] for stratum, part in shares.items()}
        columns[f"chance.{variant.key}"] = pa.array([chances[stratum] for stratum in strata], pa.float64())
    features = _behaviour(users, events)
    features |= dict(_flattened(attributes))
    made = {name: pa.array(column, from_pandas=True) if isinstance(column, np.ndarray) else column
            for name, column in features.items()}  # fmt: skip
    return Rows(pa.table(columns | made), tuple(made), experiment, metric.key, metric.direction, batch)


def _flattened(attributes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, pa.Array]]:
    """Columns of attributes: objects by their dotted paths, lists as one column for each frequent element."""
    values: dict[str, dict[int, Any]] = {}
    lists: dict[str, dict[int, list[Any]]] = {}

    def visit(row: int, path: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                visit(row, f"{path}.{key}" if path else key, part)
        elif isinstance(value, list):
            lists.setdefault(path, {})[row] = [part for part in value if isinstance(part, str | int | float)]
        elif value is not None:
            values.setdefault(path, {})[row] = value

    for row, known in enumerate(attributes):
        visit(row, "", known)
    n = len(attributes)
    for path, column in sorted(values.items()):
        yield f"user.{path}", _column([column.get(row) for row in range(n)])
    for path, members in sorted(lists.items()):
        frequent = Counter(str(part) for parts in members.values() for part in set(map(str, parts)))
        for tag, _ in frequent.most_common(_MOST_TAGS):
            yield (
                f"user.{path}={tag}",
                pa.array(
                    [None if row not in members else tag in map(str, members[row]) for row in range(n)], pa.bool_()
                ),
            )


def _column(values: Sequence[Any]) -> pa.Array:
    """Truth values, numbers, or texts: what holds all of an attribute's values."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds <= {int, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    texts: Iterable[str | None] = (
        None if value is None else value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for value in values
    )
    return pa.array(list(texts), pa.string())
