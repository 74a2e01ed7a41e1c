"""Writes width.json: sequential intervals of gbstats for two arms given by their sums.

    python tests/reference/make_width.py      # in an environment of its own: gbstats 0.8 wants pandas < 2

`users` are those of both arms, `tuned` gbstats' sequential_tuning_parameter (its default is 5000).
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gbstats.frequentist.tests import SequentialConfig, SequentialTwoSidedTTest
from gbstats.models.statistics import SampleMeanStatistic

CASES = [
    *((alpha, 10_000, share) for alpha in (0.05, 0.01) for share in (0.1, 0.25, 0.5, 1, 2, 4)),
    *((0.05, 5_000, users / 5_000) for users in (50_000, 500_000)),
]


def interval(alpha: float, tuned: int, share: float) -> dict[str, Any]:
    users = round(tuned * share)
    n_c = round(0.4 * users)
    arms = [{"n": n_c, "sum": 5 * n_c, "squares": 34 * n_c}, {"n": users - n_c, "sum": 6 * (users - n_c)}]
    arms[1]["squares"] = 61 * arms[1]["n"]
    control, treated = (SampleMeanStatistic(n=a["n"], sum=a["sum"], sum_squares=a["squares"]) for a in arms)
    config = SequentialConfig(alpha=alpha, difference_type="absolute", sequential_tuning_parameter=tuned)
    lower, upper = SequentialTwoSidedTTest(control, treated, config).confidence_interval
    return {"alpha": alpha, "tuned": tuned, "users": users, "arms": arms, "lower": lower, "upper": upper}


def main() -> None:
    made_by = f"tests/reference/make_width.py, gbstats {version('gbstats')}"
    cases = [json.dumps(interval(*case)) for case in CASES]
    text = f'{{\n "made_by": "{made_by}",\n "cases": [\n  ' + ",\n  ".join(cases) + "\n ]\n}\n"
    (Path(__file__).parent / "width.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
