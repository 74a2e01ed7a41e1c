"""The lake's files opened in an engine of this process."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from experiments import lake

# Beyond this the engine uses the disk, so that an analysis of any size leaves memory for the rest of the process.
MEMORY_LIMIT = "2GB"


@dataclass(frozen=True, slots=True)
class Facts:
    """Tables of the lake; ``execute`` runs an expression over them and returns a pyarrow table."""

    execute: Callable[[ir.Table], Any]
    exposures: ir.Table
    events: ir.Table
    traits: ir.Table
    aliases: ir.Table | None


@contextmanager
def opened(files: Mapping[str, Sequence[Path]]) -> Iterator[Facts]:
    """Open files by their kind; a kind left out, or without files, is empty (aliases: None)."""
    with TemporaryDirectory() as spill:
        engine = ibis.duckdb.connect(memory_limit=MEMORY_LIMIT, temp_directory=spill, preserve_insertion_order=False)

        def table(kind: str) -> ir.Table:
            paths = [str(path) for path in files.get(kind, ())]
            if paths:
                return engine.read_parquet(paths)
            # Columns of files may be null, whatever the lake writes: an empty table is to be of the same type.
            schema = pa.schema([field.with_nullable(True) for field in lake.SCHEMAS[kind]])
            return ibis.memtable(schema.empty_table())

        try:
            aliases = table("alias") if files.get("alias") else None
            yield Facts(engine.to_pyarrow, table("exposure"), table("event"), table("identify"), aliases)
        finally:
            engine.disconnect()
