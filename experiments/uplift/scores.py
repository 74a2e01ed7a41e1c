"""What the answer says of each user, as a table."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from experiments.uplift.answer import Answer


def table(found: Answer) -> pa.Table:
    """Return a row for each user: his id, the effect of each variant, and what the model and the rules give him."""
    names = found.frame.names
    columns: dict[str, Any] = {"user": found.frame.ids}
    columns |= {f"effect:{name}": found.effects[:, k] for k, name in enumerate(names[1:])}
    columns |= {"model": [names[k] for k in found.model], "rules": [names[k] for k in found.tree]}
    return pa.table(columns)


def write(found: Answer, path: Path) -> None:
    """Write the table to a ``.csv``, or to Parquet."""
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table(found), path)
    else:
        pyarrow.parquet.write_table(table(found), path)
