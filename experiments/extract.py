"""Writing the lake's rows to a file, for analysts: exposures, events, attributes, other ids, and one row a user."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import duckdb

from experiments import lake, rows
from experiments.errors import FieldProblem, InvalidDocument
from experiments.store import Store

KINDS: Mapping[str, str] = {"exposures": "exposure", "events": "event", "users": "identify", "aliases": "alias"}
_FORMATS = {
    ".csv": "FORMAT csv, HEADER",
    ".parquet": "FORMAT parquet, COMPRESSION zstd",
    ".jsonl": "FORMAT json",
}


def write(store: Store, kind: str, file: Path, *, experiment: str | None, now: datetime) -> int:
    """Write all rows of a kind, in the order of receipt, newest data included.

    Args:
        store: the store.
        kind: of lake rows: exposure, event, identify or alias.
        file: to write; its ending chooses the form.
        experiment: only exposures of this experiment.
        now: the present.

    Returns:
        The number of rows written. The file appears whole or not at all.
    """
    form = _form(file)
    if experiment is not None and kind != "exposure":
        problem = FieldProblem("experiment", experiment, "not_here", "only exposures belong to an experiment")
        raise InvalidDocument([problem], "command")
    lake.sync(store.engine, store.lake, now=now)
    with store.read() as session:
        paths = [str(path) for path in lake.files(session, store.lake, kind)]
    columns = [name for name in lake.SCHEMAS[kind].names if name not in ("seq", "batch")]
    listed = ", ".join(f'"{name}"' for name in columns)
    with duckdb.connect() as engine:
        source = engine.read_parquet(paths) if paths else engine.from_arrow(lake.SCHEMAS[kind].empty_table())
        if experiment is not None:
            source = source.filter(duckdb.ColumnExpression("name") == duckdb.ConstantExpression(experiment))
        return _save(engine, source.order("batch, seq").project(listed), file, form)


def write_users(store: Store, file: Path, *, experiment: str, metric: str | None, now: datetime) -> int:
    """Write one row for each user who took part in an experiment and matured (see ``rows.of_experiment``)."""
    form = _form(file)
    found = rows.of_experiment(store, experiment, metric=metric, now=now)
    with duckdb.connect() as engine:
        return _save(engine, engine.from_arrow(found.table), file, form)


def _form(file: Path) -> str:
    if file.suffix not in _FORMATS:
        problem = FieldProblem("file", str(file), "unknown_format", f"end it in {', '.join(_FORMATS)}")
        raise InvalidDocument([problem], "command")
    return _FORMATS[file.suffix]


def _save(engine: duckdb.DuckDBPyConnection, source: duckdb.DuckDBPyRelation, file: Path, form: str) -> int:
    part = file.with_name(f".{file.name}.part")
    engine.execute("SET TimeZone = 'UTC'")
    source.create_view("chosen")
    target = str(part).replace("'", "''")
    try:
        (count,) = engine.execute(f"COPY chosen TO '{target}' ({form})").fetchone() or (0,)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return int(count)
