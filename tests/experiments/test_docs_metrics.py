"""The documents shown in docs/metrics.md are valid."""

import json
import re
from pathlib import Path

import pytest

from experiments.documents import Kind, parse
from experiments.plans import Plan

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```json (\w+)\n(.*?)```", PAGE, re.DOTALL)
PLANS = re.findall(r"`(\{\"planned_users\".*?\})` \|", PAGE)


@pytest.mark.parametrize(("kind", "body"), BLOCKS)
def test_documents_are_valid(kind: str, body: str) -> None:
    assert parse(Kind(kind), body).key


def test_every_kind_of_metric_is_shown() -> None:
    kinds = {json.loads(body)["kind"] for kind, body in BLOCKS if kind == "metric"}
    assert kinds == {"conversion", "mean", "ratio", "retention", "time_to_event", "quantile", "funnel"}


def test_every_method_is_shown() -> None:
    methods = {Plan.model_validate_json(body).method for body in PLANS}
    assert methods == {"sequential", "fixed", "group_sequential", "bayes"}
