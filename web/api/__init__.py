"""The API under /v1, and its description."""

from flask import Blueprint

from web.api import assignments, documents, events, plan, reports
from web.api.operations import Operations


def operations() -> Operations:
    """Return all operations, on a new blueprint."""
    found = Operations(Blueprint("api", __name__, url_prefix="/v1"))
    for module in (assignments, events, documents, plan, reports):
        module.declare(found)
    return found
