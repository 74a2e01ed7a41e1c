"""The API of programs: our own under /v1, with its description, and those that apps' clients speak already."""

from flask import Blueprint

from web.api import (
    adaptive,
    assignments,
    documents,
    events,
    features,
    ofrep,
    plan,
    policies,
    programme,
    reports,
    segment,
    streams,
    uplift,
)
from web.api.operations import Operations
from web.thin import Routes


def operations() -> Operations:
    """Return all operations, on a new blueprint and new routes."""
    routes = Routes()
    found = Operations(Blueprint("api", __name__, url_prefix="/v1"), routes)
    for module in (assignments, events, documents, adaptive, plan, policies, programme, reports, uplift):
        module.declare(found)
    for outside in (ofrep, features, segment, streams):
        outside.add(routes)
    return found
