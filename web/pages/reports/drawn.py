"""Charts as files: the rows that are drawn, and pictures; those of a saved report by their names."""

from hashlib import sha256

from flask import Response, abort, request

from experiments import export
from experiments.codes import Verdict
from experiments.reports import Saved
from web import charts
from web.api import reports as downloads
from web.api.operations import conditional
from web.charts import Chart, pictures
from web.charts.canvas import Rows
from web.pages.reader import formats
from web.pages.reports.results import shown


def rows(saved: Saved, name: str, key: str) -> Response:
    """Return what the charts of this name draw, as CSV; of data that cannot be trusted nothing."""
    if name not in charts.NAMES:
        abort(404)
    report = saved.report
    found = charts.csv_rows(report, name, formats()) if report.decision.verdict != Verdict.invalid else []
    return table(found, f"{key}-{name}")


def picture(saved: Saved, name: str, extension: pictures.Extension, key: str) -> Response:
    """Return one chart as a picture in the reader's language."""
    chart = shown(saved.body, formats()).drawn.get(name)
    if chart is None:
        abort(404)
    return image(chart, extension, f"{key}-{name}")


def table(found: Rows, filename: str) -> Response:
    """Return rows that are drawn as a file, CSV."""
    body = export.csv_bytes(charts.columns(found), found, bom=request.args.get("bom") == "1")
    response = Response(body, mimetype=downloads.CSV)
    response.headers.set("Content-Disposition", "attachment", filename=f"{filename}.csv")
    return response


def image(chart: Chart, extension: pictures.Extension, filename: str) -> Response:
    """Return a chart as a picture."""
    body = pictures.picture(chart.spec, extension)
    response = Response(body, mimetype=pictures.MEDIA[extension])
    response.headers.set("Content-Disposition", "inline", filename=f"{filename}.{extension}")
    return conditional(response, sha256(body).hexdigest())
