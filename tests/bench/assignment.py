"""Assignment speed as ratios measured side by side: `python tests/bench/assignment.py [--json FILE]`.

One call of the SDK against a bare loop of the hash and against the GrowthBook SDK, and a whole audience per core.
Every round times all contestants in turn, so that a busy machine slows all of them; medians of the ratios count.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from growthbook import GrowthBook

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from experiments.bulk import assign_bulk  # noqa: E402
from experiments.sdk import Evaluator  # noqa: E402

SALT = "spring-coupon:1"
DOCUMENT = {
    "key": "spring-coupon",
    "revision": 1,
    "status": "running",
    "phase": 1,
    "salt": SALT,
    "control": "control",
    "variants": [{"key": "control", "tactic": None}, {"key": "coupon", "tactic": {"copy": "hello"}}],
    "weights": {"control": 0.5, "coupon": 0.5},
    "coverage": 0.8,
}
TARGETED = DOCUMENT | {"key": "targeted", "audience": {"city": {"$in": ["x", "y"]}, "age": {"$gte": 18}}}
ATTRIBUTES = {"city": "x", "age": 30}


def bare_loop(salt: str) -> Callable[[str], int]:
    """The two-fold hash and nothing else, as fast as the SDK: salt hashed once, upper bits cut off at the end."""
    seed = 0x811C9DC5
    for unit in salt.encode():
        seed = (seed ^ unit) * 0x01000193 & 0xFFFFFFFF

    def bucket(user_id: str) -> int:
        state = seed
        for unit in user_id.encode():
            state = (state ^ unit) * 0x01000193
        twice = 0x811C9DC5
        for unit in b"%d" % (state & 0xFFFFFFFF):
            twice = (twice ^ unit) * 0x01000193
        return (twice & 0xFFFFFFFF) % 10_000

    return bucket


def growthbook_client() -> GrowthBook:
    rule = {
        "variations": ["control", "coupon"],
        "weights": [0.5, 0.5],
        "coverage": 0.8,
        "seed": SALT,
        "hashVersion": 2,
    }
    condition = {"condition": TARGETED["audience"]}
    return GrowthBook(
        features={
            "spring-coupon": {"defaultValue": None, "rules": [rule]},
            "targeted": {"defaultValue": None, "rules": [rule | condition]},
        }
    )


def nanoseconds_each(call: Callable[[str], object], users: list[str]) -> float:
    start = perf_counter()
    for user in users:
        call(user)
    return (perf_counter() - start) / len(users) * 1e9


def measure(rounds: int, users: int, audience: int) -> dict[str, float]:
    ids = [f"user-{i}" for i in range(1_000_000, 1_000_000 + users)]
    evaluator = Evaluator({"experiments": [DOCUMENT, TARGETED]})
    client = growthbook_client()

    def growthbook(key: str) -> Callable[[str], object]:
        def value(user: str) -> object:
            client.set_attributes({"id": user, **ATTRIBUTES})
            return client.get_feature_value(key, None)

        return value

    def sdk(user: str) -> str | None:
        return evaluator.assign("spring-coupon", user).variant

    def sdk_targeted(user: str) -> str | None:
        return evaluator.assign("targeted", user, ATTRIBUTES).variant

    assert [sdk(user) for user in ids] == [growthbook("spring-coupon")(user) for user in ids]
    assert [sdk_targeted(user) for user in ids] == [growthbook("targeted")(user) for user in ids]

    client.set_attributes({"id": ids[0], **ATTRIBUTES})
    many = np.array([f"user-{i}" for i in range(1_000_000, 1_000_000 + audience)])
    experiment = evaluator.experiments["spring-coupon"]
    calls: dict[str, Callable[[str], object]] = {
        "bare hash loop": bare_loop(SALT),
        "SDK, each another user": partial(evaluator.assign, "spring-coupon"),
        "SDK, same user": lambda user: evaluator.assign("spring-coupon", ids[0]),
        "SDK, targeted": lambda user: evaluator.assign("targeted", user, ATTRIBUTES),
        "GrowthBook SDK, same user": lambda user: client.get_feature_value("spring-coupon", None),
        "GrowthBook SDK, each another user": growthbook("spring-coupon"),
        "GrowthBook SDK, targeted": growthbook("targeted"),
    }
    times: dict[str, list[float]] = {name: [] for name in [*calls, "bulk"]}
    for _ in range(rounds):
        # A new evaluator remembers no user: "each another user" pays for every hash.
        evaluator = Evaluator({"experiments": [DOCUMENT, TARGETED]})
        calls["SDK, each another user"] = partial(evaluator.assign, "spring-coupon")
        for name, call in calls.items():
            times[name].append(nanoseconds_each(call, ids))
        start = perf_counter()
        result = assign_bulk(experiment, many)
        times["bulk"].append((perf_counter() - start) / audience * 1e9)
        client.set_attributes({"id": ids[0], **ATTRIBUTES})
    for i in range(0, audience, max(audience // 1_000, 1)):
        arm = int(result.variant[i])
        assert (experiment.variants[arm] if arm >= 0 else None) == experiment.assign(str(many[i])).variant
    client.destroy()

    def ratio(name: str, to: str) -> float:
        return statistics.median(a / b for a, b in zip(times[name], times[to], strict=True))

    figures = {f"{name}, ns": statistics.median(values) for name, values in times.items()}
    figures["SDK, each another user / bare hash loop"] = ratio("SDK, each another user", "bare hash loop")
    figures["GrowthBook SDK / SDK, same user"] = ratio("GrowthBook SDK, same user", "SDK, same user")
    figures["GrowthBook SDK / SDK, each another user"] = ratio(
        "GrowthBook SDK, each another user", "SDK, each another user"
    )
    figures["GrowthBook SDK, targeted / SDK, targeted"] = ratio("GrowthBook SDK, targeted", "SDK, targeted")
    figures["bulk, million users a second"] = 1e3 / statistics.median(times["bulk"])
    return figures


BARS = {
    "SDK, each another user / bare hash loop": ("at most", 2.0),
    "GrowthBook SDK / SDK, same user": ("at least", 10.0),
    "bulk, million users a second": ("at least", 5.0),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--audience", type=int, default=2_000_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = measure(options.rounds, options.users, options.audience)
    met = True
    for name, value in figures.items():
        side, bar = BARS.get(name, ("", 0.0))
        good = not side or (value <= bar if side == "at most" else value >= bar)
        met &= good
        verdict = side and f"{side} {bar:g}: {'met' if good else 'MISSED'}"
        print(f"{name:<44}{value:>12,.2f}  {verdict}")
    document = json.dumps({"figures": figures, "met": met}, indent=2)
    print(document)
    if options.json:
        options.json.write_text(document + "\n", encoding="utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
