"""Reads tests/reference and gives the Hillstrom moments, spend and history in dollars."""

import json
from pathlib import Path
from typing import Any

from stats.moments import Moments

REFERENCE = Path(__file__).parents[1] / "reference"
ARMS = ("control", "mens", "womens")
VISIT, CONVERSION, SPEND, HISTORY = range(4)


def load(name: str) -> Any:
    return json.loads((REFERENCE / name).read_text(encoding="utf-8"))


def hillstrom() -> list[Moments]:
    arms = load("hillstrom.json")["arms"]
    return [
        Moments.from_integer_sums(arms[a]["n"], arms[a]["sums"], arms[a]["products"], [1, 1, 100, 100]) for a in ARMS
    ]
