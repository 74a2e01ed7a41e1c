"""Budgets of many users: `python tests/bench/budget.py [--users N] [--json FILE]`.

A million users and five variants beside the control, with each kind of limit: seconds of processor time, and what the
answer may lack of the best, proven by its prices, in the largest step of one user. Then 3,000 users, beside the integer
solver.
"""

import argparse
import json
import sys
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from stats.budget import allocate, spend_curve  # noqa: E402

ARMS = 6


def problem(users: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Gains of five variants over the control, a third of them losses, and costs that differ by user."""
    rng = np.random.default_rng(seed)
    gains = rng.normal(0.3, 1, (users, ARMS))
    costs = rng.integers(0, 5, (users, ARMS)).astype(float)
    gains[:, 0] = costs[:, 0] = 0
    return gains, costs


def limits(users: int) -> dict[str, dict[str, Any]]:
    stock = [np.inf, 0.05 * users, 0.12 * users, 0.3 * users, 0.06 * users, 0.06 * users]
    return {
        "budget": {"budget": 0.5 * users},
        "contacts": {"contacts": users // 3},
        "budget and contacts": {"budget": 0.5 * users, "contacts": int(0.35 * users)},
        "stock of each": {"stock": stock},
        "budget, contacts, stock": {"budget": 0.35 * users, "contacts": int(0.33 * users), "stock": stock},
    }


def main() -> None:
    """Print a line for each kind of limit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    gains, costs = problem(given.users)
    start = process_time()
    spend_curve(gains, costs, 21, gains)
    print(
        f"{given.users:,} users, {ARMS - 1} variants: curve of all budgets with its band {process_time() - start:.1f} s"
    )
    for name, options in limits(given.users).items():
        start = process_time()
        made = allocate(gains, costs, **options)
        seconds = process_time() - start
        found[name] = {"seconds": seconds, "gap_steps": made.gap / gains.max()}
        print(f"{name:28} {seconds:6.1f} s, may lack {made.gap / gains.max():.6f} of one user's largest step")
    small = 3_000
    gains, costs = problem(small)
    for name, options in limits(small).items():
        ours, best = allocate(gains, costs, **options), allocate(gains, costs, **options, exact=True)
        found[f"{name}, exact"] = {"lack_steps": (best.objective - ours.objective) / gains.max()}
        lack = best.objective - ours.objective
        print(f"{name:28} {small:,} users: {lack:.6f} below the integer solver's {best.objective:.2f}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
