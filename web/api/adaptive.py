"""Adaptive shares over HTTP."""

import msgspec
from flask import Response

from experiments import adaptive
from experiments.access import Scope
from web.api.operations import Answer, Operations, json_answer
from web.replies import JSON
from web.state import state


class Adaptation(msgspec.Struct, frozen=True):
    """What became of an update of adaptive shares, and why."""

    experiment: str
    code: adaptive.AdaptCode
    wave: int
    shares: dict[str, float]
    open: float
    revision: int
    matured: dict[str, int]
    watermark: int | None
    health: list[str]
    next_at: str | None


def _adapt(key: str) -> Response:
    held = state()
    done = adaptive.update(held.store, key, now=held.clock())
    return json_answer(
        Adaptation(
            experiment=done.experiment,
            code=done.code,
            wave=done.wave,
            shares=dict(done.shares),
            open=done.open,
            revision=done.revision,
            matured=dict(done.matured),
            watermark=done.watermark,
            health=list(done.health),
            next_at=None if done.next_at is None else done.next_at.isoformat(),
        )
    )


def declare(operations: Operations) -> None:
    """Add the operations of this module."""
    operations.add(
        "POST",
        "/experiments/{key}/adapt",
        _adapt,
        name="adapt_experiment",
        summary="Open the next wave of an experiment with adaptive shares, if it is due.",
        tag="experiments",
        scope=Scope.admin,
        answers={200: Answer("What became of it", {JSON: {"$ref": "#/components/schemas/Adaptation"}})},
        problems=(409,),
    )
