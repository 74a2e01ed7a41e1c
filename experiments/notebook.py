"""Analyses in a notebook: of a frame or a file, or of a report that the service made.

from experiments import notebook

found = notebook.analyse(frame, variant="segment", control="none", metrics={"spend": "mean:spend"})
found.frame()
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from experiments import charts, export, files, printout
from experiments import report as reports
from experiments.errors import FieldProblem, InvalidDocument, NotFound
from experiments.files import FileMetric, Question
from experiments.report import Report

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Analysis:
    """A report, as a frame, as a chart, and as what a notebook shows."""

    report: Report

    def frame(self) -> "pd.DataFrame":
        """Return the comparisons, one a row, with the columns of ``export.COLUMNS``."""
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise ModuleNotFoundError("frame() needs pandas: pip install 'upturn[notebook]'") from None

        return pd.DataFrame(list(export.rows(self.report)), columns=list(export.COLUMNS))

    def chart(self, metric: str | None = None) -> Any:
        """Return the effects on a metric, the primary one if not named, as an Altair chart. Raises NotFound."""
        if metric is None:
            return charts.forest(self.report, self.report.primary())
        for part in self.report.metrics:
            if part.metric == metric:
                return charts.forest(self.report, part)
        known = ", ".join(part.metric for part in self.report.metrics)
        raise NotFound("not_found", f"there is no metric {metric!r}: there are {known}")

    def _repr_html_(self) -> str:
        return printout.part(self.report)


def analyse(
    source: Any,
    *,
    metrics: Mapping[str, str] | Sequence[str],
    variant: str | None = None,
    control: str | None = None,
    as_of: datetime | None = None,
    **options: Any,
) -> Analysis:
    """Analyse a frame (pandas, Polars, Arrow) or a file.

    Args:
        source: the frame, or the path of a CSV or Parquet file.
        metrics: {"spend": "mean:spend"} or ["spend=mean:spend"], the primary one first.
        variant: column that tells each user's variant.
        control: its value for the control.
        as_of: the moment that a frame stands for, now if not given; a file has its own.
        options: the other fields of ``files.Question``, such as ``segments=["channel"]``.

    Raises:
        InvalidDocument: as ``files.analyse``; a frame that is none.
    """
    texts = [f"{name}={kind}" for name, kind in metrics.items()] if isinstance(metrics, Mapping) else metrics
    question = Question(variant, control, [FileMetric.parse(text) for text in texts], **options)
    if isinstance(source, str | Path):
        return Analysis(files.analyse(Path(source), question))
    moment = (as_of or datetime.now(UTC)).replace(microsecond=0)
    return Analysis(files.analyse_table(_table(source), question, name="frame", as_of=moment))


def of(report: Report) -> Analysis:
    """Wrap a report that the service made."""
    return Analysis(report)


def load(source: bytes | str | Path) -> Analysis:
    """Read a report back: its JSON as bytes, or the path of a file of it. Raises InvalidDocument."""
    try:
        return Analysis(reports.decode(source if isinstance(source, bytes) else Path(source).read_bytes()))
    except (msgspec.DecodeError, OSError) as error:
        value = source if not isinstance(source, bytes) else f"{len(source)} bytes"
        remedy = f"give a report of the schema {reports.SCHEMA} as JSON: {error}"
        raise InvalidDocument([FieldProblem("report", str(value), "unreadable", remedy)], "report") from None


def _table(frame: Any) -> pa.Table:
    if isinstance(frame, pa.Table):
        table = frame
    elif hasattr(frame, "__arrow_c_stream__"):
        table = pa.table(frame)
    else:
        remedy = "give a pandas, Polars or Arrow frame, or the path of a CSV or Parquet file"
        raise InvalidDocument([FieldProblem("frame", type(frame).__name__, "not_a_frame", remedy)], "command")
    # Categories are text to the engine.
    plain = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in table.schema]
    return table.cast(pa.schema(plain))
