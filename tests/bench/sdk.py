"""The SDK's client in an app: against GrowthBook's and PlanOut on the same experiment, and what it costs to have.

    python -m tests.bench.sdk [--json FILE]

Every round times all contestants in turn; medians of the ratios count. Memory and start-up are measured in fresh
processes. PlanOut 0.6.0 takes part where it is installed (`pip install planout==0.6.0 six`).
"""

import argparse
import collections
import collections.abc
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from growthbook import GrowthBook

from experiments.sdk import Client, Evaluator, Options, Request, Response
from tests.bench import serving
from tests.bench.assignment import DOCUMENT, SALT, growthbook_client, nanoseconds_each

KEY = "spring-coupon"
EXPERIMENTS = 1_000
BARS = {
    "GrowthBook, same user / client.variant, same user": ("at least", 10.0),
    "GrowthBook, same user / Evaluator.assign, same user": ("at least", 10.0),
}


class Receipts:
    """A transport that takes everything, so that no network is measured."""

    def send(self, request: Request, timeout: float) -> Response:
        if request.path != "/v1/events":
            return Response(200, {"etag": '"1"'}, json.dumps(snapshot(1)).encode())
        count = len(json.loads(gzip.decompress(request.body))["batch"])
        return Response(202, {}, json.dumps({"accepted": count, "duplicates": 0, "rejected": []}).encode())

    def stream(self, request: Request, timeout: float) -> Any:
        raise ConnectionError("there are no streams here")


def client(spool: Path | None = None) -> Client:
    """A client with the experiment, that sends nothing while it is timed."""
    options = Options(queue_items=1_000_000, batch_items=10_000, flush_seconds=3_600, streaming=False)
    return Client(
        "http://127.0.0.1", "upk_bench", bootstrap=snapshot(1), spool=spool, transport=Receipts(), options=options
    )


def snapshot(count: int) -> dict[str, Any]:
    return {"experiments": [DOCUMENT] + [DOCUMENT | {"key": f"other-{i}", "salt": f"{i}"} for i in range(1, count)]}


def features(count: int) -> dict[str, Any]:
    """The same experiments as GrowthBook's SDK reads them."""
    rule = {"variations": ["control", "coupon"], "weights": [0.5, 0.5], "coverage": 0.8, "hashVersion": 2}
    salts = {KEY: SALT} | {f"other-{i}": f"{i}" for i in range(1, count)}
    return {key: {"defaultValue": None, "rules": [rule | {"seed": salt}]} for key, salt in salts.items()}


def planout() -> Callable[[str], object] | None:
    """PlanOut's assignment of the same experiment, None where it is not installed; it makes other variants."""
    # It was written before Python 3.10 took this name away.
    collections.MutableMapping = collections.abc.MutableMapping  # type: ignore[attr-defined]
    try:
        from planout.experiment import DefaultExperiment
        from planout.ops.random import BernoulliTrial, WeightedChoice
    except ImportError:
        return None

    class Coupon(DefaultExperiment):  # type: ignore[misc]  # it logs nothing
        def setup(self) -> None:
            self.name, self.salt = KEY, SALT

        def assign(self, params: Any, user: str) -> None:
            params.enrolled = BernoulliTrial(p=0.8, unit=user)
            if params.enrolled:
                params.variant = WeightedChoice(choices=["control", "coupon"], weights=[0.5, 0.5], unit=user)

    return lambda user: Coupon(user=user).get("variant")


def contestants(app: Client, spooling: Client, growthbook: GrowthBook, one: str) -> dict[str, Callable[[str], object]]:
    """What is timed, in this order: each call takes the next user, or ``one`` whatever it is given."""
    evaluator = Evaluator(snapshot(1))
    offline = Client("http://localhost", "k", bootstrap=snapshot(1), offline=True)
    plan = planout()
    calls: dict[str, Callable[[str], object]] = {
        "Evaluator.assign, same user": lambda _: evaluator.assign(KEY, one),
        "Evaluator.assign, each another user": lambda user: evaluator.assign(KEY, user),
        "client.variant, same user": lambda _: app.variant(KEY, one),
        "client.variant, each another user, first exposure": lambda user: app.variant(KEY, user),
        "client.variant, each another user, exposed before": lambda user: app.variant(KEY, user),
        "client.variant, offline, each another user": lambda user: offline.variant(KEY, user),
        "client.variant, first exposure, with a spool": lambda user: spooling.variant(KEY, user),
        "client.track": lambda user: app.track(user, "purchase", 19.9, {"sku": "sku-1"}),
        "client.track, with a spool": lambda user: spooling.track(user, "purchase", 19.9, {"sku": "sku-1"}),
        "GrowthBook, same user": lambda _: growthbook.get_feature_value(KEY, None),
        "GrowthBook, each another user": lambda user: growthbook_value(growthbook, user),
    }
    if plan is not None:
        calls |= {"PlanOut, same user": lambda _: plan(one), "PlanOut, each another user": plan}
    return calls


def growthbook_value(growthbook: GrowthBook, user: str) -> object:
    growthbook.set_attributes({"id": user})
    return growthbook.get_feature_value(KEY, None)


def measure_calls(rounds: int, users: int, spools: Path) -> dict[str, float]:
    growthbook = growthbook_client()
    times: dict[str, list[float]] = {}
    for lap in range(rounds):
        ids = [f"user-{lap}-{i}" for i in range(users)]
        with client() as app, client(spools) as spooling:
            same = Evaluator(snapshot(1))
            assert [same.assign(KEY, user).variant for user in ids] == [growthbook_value(growthbook, u) for u in ids]
            growthbook.set_attributes({"id": ids[0]})
            for name, call in contestants(app, spooling, growthbook, ids[0]).items():
                times.setdefault(name, []).append(nanoseconds_each(call, ids))
    growthbook.destroy()

    figures = {f"{name}, ns": statistics.median(values) for name, values in times.items()}

    def compare(name: str, to: str) -> None:
        pairs = zip(times[name], times[to], strict=True)
        figures[f"{name} / {to}"] = statistics.median(a / b for a, b in pairs)

    for peer in ("GrowthBook", "PlanOut"):
        if f"{peer}, same user" not in times:
            continue
        compare(f"{peer}, same user", "client.variant, same user")
        compare(f"{peer}, same user", "Evaluator.assign, same user")
        compare(f"{peer}, each another user", "client.variant, each another user, exposed before")
        compare(f"{peer}, each another user", "client.variant, each another user, first exposure")
        compare(f"{peer}, each another user", "Evaluator.assign, each another user")
    return figures


# In fresh processes.


_IMPORTS = {"ours": "from experiments.sdk import Client", "growthbook": "from growthbook import GrowthBook"}
_READY = {
    "ours": "Client('http://localhost', 'k', bootstrap=json.load(open(PATH)), offline=True)",
    "growthbook": "GrowthBook(features=json.load(open(PATH)))",
}


def measure_processes(rounds: int, folder: Path) -> dict[str, float]:
    """Start-up and memory of both, each time in a new process."""
    paths = {"ours": folder / "snapshot.json", "growthbook": folder / "features.json"}
    paths["ours"].write_text(json.dumps(snapshot(EXPERIMENTS)), encoding="utf-8")
    paths["growthbook"].write_text(json.dumps(features(EXPERIMENTS)), encoding="utf-8")
    seen: dict[str, list[float]] = {}
    for _ in range(rounds):
        for whose, path in paths.items():
            name = "the SDK" if whose == "ours" else "GrowthBook"
            for note, value in started_process(whose, path).items():
                seen.setdefault(f"{name}, {note}", []).append(value)
    figures = {name: statistics.median(values) for name, values in seen.items()}
    for note in ("import, ms", "1,000 experiments ready, ms", "1,000 experiments, KiB"):
        pairs = zip(seen[f"the SDK, {note}"], seen[f"GrowthBook, {note}"], strict=True)
        figures[f"the SDK / GrowthBook, {note.rpartition(',')[0]}"] = statistics.median(a / b for a, b in pairs)
    return figures


def started_process(whose: str, path: Path) -> dict[str, float]:
    script = f"""
import json, sys, time
start = time.perf_counter()
{_IMPORTS[whose]}
imported = time.perf_counter()
import gc, tracemalloc
PATH = {str(path)!r}
again = time.perf_counter()
held = {_READY[whose]}
ready = time.perf_counter()
del held
gc.collect()
tracemalloc.start()
held = {_READY[whose]}
gc.collect()
kept = tracemalloc.get_traced_memory()[0]
print(json.dumps([imported - start, imported - start + ready - again, kept]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=serving.ROOT, check=True, capture_output=True, text=True)
    imported, ready, kept = json.loads(done.stdout)
    return {
        "import, ms": imported * 1e3,
        "1,000 experiments ready, ms": ready * 1e3,
        "1,000 experiments, KiB": kept / 1024,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure_calls(options.rounds, options.users, Path(folder, "spool"))
        figures |= measure_processes(options.rounds, Path(folder))
    if "PlanOut, same user, ns" not in figures:
        print("PlanOut was skipped, as it is not installed: pip install planout==0.6.0 six", file=sys.stderr)
    met = serving.tell(figures, BARS)
    if options.json:
        options.json.write_text(json.dumps({"figures": figures, "met": met}, indent=2) + "\n", encoding="utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
