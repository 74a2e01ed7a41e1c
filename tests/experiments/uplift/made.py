"""Made campaigns with known effects, and the questions about them."""

import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from experiments.uplift.answer import Answer, answer_table
from experiments.uplift.question import Question

FEATURES = ("age", "spent", "city", "member")


def campaign(n: int = 6000, *, seed: int = 1, effect: str = "city", arms: int = 2) -> pa.Table:
    """A campaign: ``effect`` "city" helps in one city and hurts elsewhere, "all" helps all alike, "none" nobody.

    With three variants, "gift" helps the young and "call" the others, where there is an effect.
    """
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 70, n).astype(float)
    spent = np.round(rng.gamma(1.5, 40.0, n), 2)
    city = rng.choice(["north", "south", "west"], n, p=[0.4, 0.4, 0.2])
    member = rng.random(n) < 0.3
    arm = rng.integers(0, arms, n)
    helped = (city == "north") if arms == 2 else (age < 40)
    size = {"city": np.where(helped, 6.0, -3.0), "all": np.full(n, 3.0), "none": np.zeros(n)}[effect]
    lift = np.where(arm == 1, size, np.where(arm == 2, -size, 0.0)) if effect == "city" else np.where(arm > 0, size, 0)
    outcome = 20 + 0.2 * age + 5 * member + lift + rng.normal(0, 8, n)
    hidden = rng.random(n) < 0.1
    return pa.table(
        {
            "id": [f"u{i}" for i in range(n)],
            "arm": np.array(["hold", "gift", "call"])[arm],
            "age": pa.array(age, mask=rng.random(n) < 0.05),
            "spent": spent,
            "city": pa.array(city, mask=hidden),
            "member": member,
            "revenue": outcome,
            "bought": (outcome > 35).astype(int),
            "margin": pa.array(np.full(n, 10.0), mask=outcome <= 35),
        }
    )


def question(**changed: Any) -> Question:
    given: dict[str, Any] = {
        "variant": "arm",
        "control": "hold",
        "outcome": "revenue",
        "features": FEATURES,
        "folds": 3,
        "learners": ("t",),
    }
    return Question(**given | changed)


def answered(table: pa.Table, **changed: Any) -> Answer:
    return answer_table(table, question(**changed), name="made", clock=time.perf_counter)


def write(table: pa.Table, path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table.column_names)
        writer.writerows(zip(*(["" if v is None else v for v in c.to_pylist()] for c in table.columns), strict=True))
    return path
