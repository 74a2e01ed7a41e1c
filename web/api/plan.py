"""Planning over HTTP: how many users a test needs, and what those there are can show."""

from flask import Response

from experiments import planner
from experiments.access import Scope
from experiments.errors import FieldProblem, InvalidDocument
from web import payload
from web.api.operations import Answer, Operations, json_answer
from web.replies import JSON
from web.state import state


def _plan() -> Response:
    sent = payload.decoded(payload.body())
    if not isinstance(sent, dict):
        raise InvalidDocument([FieldProblem("$", sent, "misshaped", "send a JSON object")], "plan")
    held = state()
    return json_answer(planner.answer(planner.parse(sent), held.store, now=held.clock()))


def declare(operations: Operations) -> None:
    """Add the operations of this module."""
    operations.add(
        "POST",
        "/plan",
        _plan,
        name="plan",
        summary="Say what a test needs and can show: of an experiment, of a metric as it was lately, or by numbers.",
        tag="plan",
        scope=Scope.read,
        body={
            "anyOf": [
                {"$ref": "#/components/schemas/PlanRequest"},
                {"$ref": "#/components/schemas/ExperimentPlanRequest"},
            ]
        },
        answers={200: Answer("The plan", {JSON: {"$ref": "#/components/schemas/PlanAnswer"}})},
        problems=(404, 422),
    )
