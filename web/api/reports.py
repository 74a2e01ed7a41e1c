"""Reports over HTTP, as JSON, CSV, Parquet and a workbook."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from flask import Response, request

from experiments import export, priors, registry, reports
from experiments.access import Scope
from experiments.documents import Kind
from experiments.errors import NotFound
from experiments.reports import Saved
from web.api.operations import Answer, Operations, conditional, json_answer
from web.problems import RequestRefused
from web.replies import JSON
from web.state import state

CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
FORMATS: Mapping[str, str] = {"json": JSON, "csv": CSV, "parquet": PARQUET, "xlsx": XLSX}

_REPORT: Mapping[str, Any] = {"$ref": "#/components/schemas/Report"}
_CONTENT: Mapping[str, Mapping[str, Any]] = {JSON: _REPORT, CSV: {"type": "string"}, PARQUET: {}, XLSX: {}}


class ReportEntry(msgspec.Struct, frozen=True):
    """A saved report in a list."""

    id: str
    created_at: str
    revision: int
    phase: int
    watermark: int


class ReportList(msgspec.Struct, frozen=True):
    """The reports of an experiment, newest first."""

    items: list[ReportEntry]


class LearntPrior(msgspec.Struct, frozen=True):
    """The prior of a metric's lift learnt from past experiments: for the plan of a Bayesian reading."""

    metric: str
    effects: int
    mean: float
    sd: float


def download(saved: Saved, extension: str, *, attachment: bool = False) -> Response:
    """Return a report in one of ``FORMATS``; ``?bom=1`` begins a CSV with a byte order mark, for spreadsheets."""
    report = saved.report
    if extension == "json":
        response = Response(saved.body, mimetype=JSON)
    elif extension == "csv":
        response = Response(export.report_csv(report, bom=request.args.get("bom") == "1"), mimetype=CSV)
    elif extension == "parquet":
        response = Response(export.report_parquet(report), mimetype=PARQUET)
    else:
        response = Response(export.report_xlsx(report), mimetype=XLSX)
    if attachment or extension in ("parquet", "xlsx"):
        name = f"{report.experiment}-{report.as_of[:10]}.{extension}"
        response.headers.set("Content-Disposition", "attachment", filename=name)
    response.headers["Vary"] = "Accept"
    return conditional(response, f"{saved.id}-{extension}")


def latest(key: str) -> Saved:
    """Return an experiment's newest report; raise NotFound, ``no_report`` when none was made."""
    with state().store.read() as session:
        registry.revision_of(session, Kind.experiment, key)
        found = reports.latest(session, key)
    if found is None:
        raise NotFound("no_report", f"no report of {key!r} was made yet: POST /v1/experiments/{key}/reports makes one")
    return found


def _find(report_id: str) -> Saved:
    with state().store.read() as session:
        return reports.find(session, report_id)


def _negotiated() -> str:
    best = request.accept_mimetypes.best_match(list(FORMATS.values()))
    if best is None and request.accept_mimetypes:
        raise RequestRefused(406, "not_acceptable", f"available are {', '.join(FORMATS.values())}")
    return next((extension for extension, media in FORMATS.items() if media == best), "json")


def _make(key: str) -> Response:
    held = state()
    saved = reports.make(held.store, key, now=held.clock())
    response = Response(saved.body, 201, mimetype=JSON)
    response.headers["Location"] = f"/v1/reports/{saved.id}"
    return response


def _list(key: str) -> Response:
    with state().store.read() as session:
        registry.revision_of(session, Kind.experiment, key)
        entries = reports.listing(session, key)
    items = [ReportEntry(e.id, e.created_at.isoformat(), e.revision, e.phase, e.watermark) for e in entries]
    return json_answer(ReportList(items))


def _prior(key: str) -> Response:
    with state().store.read() as session:
        found = priors.learn(session, key)
    return json_answer(LearntPrior(found.metric, found.effects, found.prior.mean, found.prior.sd))


def _latest(key: str) -> Response:
    return download(latest(key), _negotiated())


def _one(report: str) -> Response:
    return download(_find(report), _negotiated())


def _latest_as(extension: str) -> Callable[[str], Response]:
    return lambda key: download(latest(key), extension)


def _one_as(extension: str) -> Callable[[str], Response]:
    return lambda report: download(_find(report), extension)


def declare(operations: Operations) -> None:
    """Add the operations of this module."""
    operations.add(
        "POST",
        "/experiments/{key}/reports",
        _make,
        name="make_report",
        summary="Analyse an experiment now. The same data and documents give the same report, saved once.",
        tag="reports",
        scope=Scope.admin,
        answers={201: Answer("The report", {JSON: _REPORT}, ("Location",))},
        problems=(409,),
    )
    operations.add(
        "GET",
        "/experiments/{key}/reports",
        _list,
        name="list_reports",
        summary="The reports made of an experiment, newest first.",
        tag="reports",
        scope=Scope.read,
        answers={200: Answer("The list", {JSON: {"$ref": "#/components/schemas/ReportList"}})},
    )
    operations.add(
        "GET",
        "/metrics/{key}/prior",
        _prior,
        name="get_prior",
        summary="What past experiments teach about a metric's lift, as a prior.",
        tag="reports",
        scope=Scope.read,
        answers={200: Answer("The prior", {JSON: {"$ref": "#/components/schemas/LearntPrior"}})},
        problems=(409,),
    )
    for path, what, negotiated, chosen in (
        ("/experiments/{key}/report", "latest", _latest, _latest_as),
        ("/reports/{report}", "one", _one, _one_as),
    ):
        which = "newest report of an experiment" if what == "latest" else "report with this id"
        _declare_read(operations, path, negotiated, f"get_{what}_report", f"The {which}, as `Accept` asks.", _CONTENT)
        for extension, media in FORMATS.items():
            name, summary = f"get_{what}_report_{extension}", f"The {which}, as {extension}."
            _declare_read(operations, f"{path}.{extension}", chosen(extension), name, summary, {media: _CONTENT[media]})


def _declare_read(
    operations: Operations,
    path: str,
    handler: Callable[..., Response],
    name: str,
    summary: str,
    content: Mapping[str, Mapping[str, Any]],
) -> None:
    operations.add(
        "GET",
        path,
        handler,
        name=name,
        summary=summary,
        tag="reports",
        scope=Scope.read,
        answers={200: Answer("The report", content, ("ETag",)), 304: Answer("The caller has it")},
        problems=(406,) if len(content) > 1 else (),
        query={"bom": {"type": "string", "enum": ["0", "1"]}} if CSV in content else None,
        headers=("If-None-Match",),
    )
