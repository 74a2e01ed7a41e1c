"""A report for ever: its own address, its files, and a page to print."""

from flask import Blueprint, Response, abort, render_template

from experiments import registry, reports
from experiments.documents import Experiment, Kind
from experiments.errors import Conflict
from experiments.reports import Saved
from web import assets
from web.api import reports as downloads
from web.charts import pictures
from web.pages.reader import formats
from web.pages.reports import drawn
from web.pages.reports.matrix import matrices
from web.pages.reports.planned import digest, planned
from web.pages.reports.results import shown
from web.pages.reports.scorecard import scorecard
from web.security import login_required
from web.state import state

blueprint = Blueprint("frozen", __name__)


@blueprint.get("/reports/<report>")
@login_required
def show(report: str) -> str:
    """Show one report as it was made, whatever came later."""
    return _page(report, printed=False)


@blueprint.get("/reports/<report>/print")
@login_required
def printed(report: str) -> str:
    """Show the same to be printed: all is unfolded, and charts are pictures."""
    return _page(report, printed=True)


@blueprint.get("/reports/<report>.<any(json,csv,parquet,xlsx):extension>")
@login_required
def download(report: str, extension: str) -> Response:
    """Return the report as a file."""
    return downloads.download(_find(report), extension, attachment=extension != "json")


@blueprint.get("/reports/<report>/chart/<name>.csv")
@login_required
def chart(report: str, name: str) -> Response:
    """Return what a chart of the report draws."""
    saved = _find(report)
    return drawn.rows(saved, name, saved.report.experiment)


@blueprint.get("/reports/<report>/chart/<name>.<any(svg,png):extension>")
@login_required
def picture(report: str, name: str, extension: pictures.Extension) -> Response:
    """Return a chart of the report as a picture."""
    saved = _find(report)
    return drawn.picture(saved, name, extension, saved.report.experiment)


def _find(name: str) -> Saved:
    with state().store.read() as session:
        return reports.find(session, name)


def _page(name: str, *, printed: bool) -> str:
    texts = formats()
    with state().store.read() as session:
        saved = reports.find(session, name)
        try:
            report = saved.report
        except Conflict:
            abort(410)
        # The document as it was then: later revisions change no report. A policy's report has none.
        experiment: Experiment = registry.get(session, Kind.experiment, report.experiment, report.revision)
        if experiment.control != report.control or experiment.phase != report.phase:
            abort(404)
        newest = reports.latest(session, report.experiment)
        segments = {segment.key: segment for segment in registry.all_of(session, Kind.segment)}
        uses = registry.metric_uses(session, experiment)
    results = shown(saved.body, texts)
    return render_template(
        "report.html",
        frozen=True,
        printed=printed,
        experiment=experiment,
        report=report,
        saved=saved,
        newest=newest is None or newest.id == saved.id,
        results=results,
        scorecard=scorecard(report, experiment, "", texts) if results.trusted else None,
        matrices=matrices(report, experiment, segments, texts),
        planned=planned(experiment, report, uses, segments, texts),
        as_of=texts.moment(report.as_of),
        created=texts.moment(saved.created_at),
        vega=assets.NAME,
        formats=texts,
        where="frozen",
        at={"report": name},
        digest=digest(experiment),
    )
