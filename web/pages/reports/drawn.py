"""The charts of a saved report as files: the rows that are drawn, and pictures."""

from flask import Response, abort, request

from experiments import export
from experiments.codes import Verdict
from experiments.reports import Saved
from web import charts
from web.api import reports as downloads
from web.api.operations import conditional
from web.charts import pictures
from web.languages import language
from web.pages.reader import formats
from web.pages.reports.results import shown


def rows(saved: Saved, name: str, key: str) -> Response:
    """Return what the charts of this name draw, as CSV; of data that cannot be trusted nothing."""
    if name not in charts.NAMES:
        abort(404)
    report = saved.report
    found = charts.csv_rows(report, name, formats()) if report.decision.verdict != Verdict.invalid else []
    body = export.csv_bytes(charts.columns(found), found, bom=request.args.get("bom") == "1")
    response = Response(body, mimetype=downloads.CSV)
    response.headers.set("Content-Disposition", "attachment", filename=f"{key}-{name}.csv")
    return response


def picture(saved: Saved, name: str, extension: pictures.Extension, key: str) -> Response:
    """Return one chart as a picture in the reader's language."""
    chart = shown(saved.body, formats()).drawn.get(name)
    if chart is None:
        abort(404)
    response = Response(pictures.picture(chart.spec, extension), mimetype=pictures.MEDIA[extension])
    response.headers.set("Content-Disposition", "inline", filename=f"{key}-{name}.{extension}")
    return conditional(response, f"{saved.id}-{name}-{language()}-{extension}")
