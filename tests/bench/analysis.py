"""Analysis of a large experiment against one hand-written DuckDB query for the same sums, and its growth.

    python tests/bench/analysis.py            # 1 M users, 10 M events, 10 metrics, 5 segments: ratios
    python tests/bench/analysis.py --growth   # 10^5 to 10^7 users: time and peak memory

Both sides read the same Parquet files, take turns in one run, and must give the same sums.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from experiments import reports
from experiments.documents import Kind, parse
from experiments.people import Scope
from experiments.sums import Aggregates

DAY_US = 86_400_000_000
START_US = 1_700_000_000_000_000
AS_OF = datetime(2024, 2, 1, tzinfo=UTC)
EVENTS = ("visit", "purchase", "click", "refund", "share")
BLOCK = 1_000_000


def make_data(folder: Path, users: int, events_per_user: int, segments: int) -> tuple[list[Path], list[Path]]:
    """Write exposures and events as the lake would, a file for each million users."""
    folder.mkdir(exist_ok=True)
    exposures, events = [], []
    for block, first in enumerate(range(0, users, BLOCK)):
        rng = np.random.default_rng(block)
        count = min(BLOCK, users - first)
        ids = np.char.add("user-", np.arange(first, first + count).astype(str))
        exposed = START_US + rng.integers(0, 30 * DAY_US, count)
        at = pa.timestamp("us", tz="UTC")
        columns = {
            "user_id": ids,
            "name": np.full(count, "bench"),
            "phase": np.ones(count, np.int32),
            "variant": np.array(["control", "a", "b"])[rng.integers(0, 3, count)],
            "stratum": np.array([f"s{i}" for i in range(segments)])[rng.integers(0, segments, count)],
            "at": pa.array(exposed).cast(at),
            "seq": np.arange(first, first + count),
            "batch": np.ones(count, np.int32),
        }
        exposures.append(folder / f"exposures-{block}.parquet")
        pq.write_table(pa.table(columns), exposures[-1], compression="zstd", row_group_size=250_000)
        total = count * events_per_user
        who = rng.integers(0, count, total)
        columns = {
            "user_id": ids[who],
            "name": np.array(EVENTS)[rng.choice(5, total, p=[0.5, 0.2, 0.2, 0.05, 0.05])],
            "value_micros": np.round(rng.lognormal(3, 1, total) * 100).astype(np.int64) * 10_000,
            "at": pa.array(exposed[who] + rng.integers(-14 * DAY_US, 21 * DAY_US, total)).cast(at),
            "batch": np.ones(total, np.int32),
        }
        events.append(folder / f"events-{block}.parquet")
        pq.write_table(pa.table(columns), events[-1], compression="zstd", row_group_size=250_000)
    return exposures, events


def metric(index: int) -> Any:
    """The index-th metric: conversions and means of the five events, windows of 7 and 14 days."""
    kind: dict[str, Any] = {"kind": "conversion", "event": EVENTS[index % 5]}
    if index % 2:
        kind = {"kind": "mean", "terms": [{"event": EVENTS[index % 5]}]}
    return parse(Kind.metric, {"key": f"m{index}", "name": "m", "window_days": 7 if index < 5 else 14, **kind})


def ours(exposures: list[Path], events: list[Path], metrics: list[Any]) -> Aggregates:
    """What the service does."""
    return reports.sum_up(exposures, events, metrics, Scope("bench", 1, 1, AS_OF, "UTC"))


def by_hand(exposures: list[Path], events: list[Path], metrics: list[Any]) -> list[tuple[Any, ...]]:
    """The query an analyst would write for these sums, per variant, segment and day."""
    first, second, third = [], [], []
    as_of_us = int(AS_OF.timestamp() * 1_000_000)
    for index, one in enumerate(metrics):
        window = one.window_days * DAY_US
        event = one.event if one.kind == "conversion" else one.terms[0].event
        inside = f"name = '{event}' AND d >= 0 AND d < {window}"
        total = f"sum(CASE WHEN {inside} THEN value_micros END)"
        if one.kind == "conversion":
            total = f"max(CASE WHEN {inside} THEN 1 END)"
        first.append(f"{total} AS m{index}")
        second.append(f"coalesce(m{index}, 0)::bigint AS m{index}")
        mature = f"FILTER (exposed <= {as_of_us - window})"
        third.append(f"count(*) {mature}, sum(m{index}) {mature}, sum(m{index}::hugeint * m{index}) {mature}")
    query = f"""
    WITH u AS (SELECT user_id, min(epoch_us("at")) AS exposed, min(variant) AS variant, min(stratum) AS stratum
               FROM read_parquet({[str(p) for p in exposures]}) WHERE name = 'bench' AND phase = 1 GROUP BY user_id),
    e AS (SELECT user_id, {", ".join(first)}
          FROM (SELECT ev.user_id, ev.name, ev.value_micros, epoch_us(ev."at") - u.exposed AS d
                FROM read_parquet({[str(p) for p in events]}) ev JOIN u USING (user_id)) GROUP BY user_id),
    j AS (SELECT exposed, variant, stratum, {", ".join(second)} FROM u LEFT JOIN e USING (user_id))
    SELECT stratum, variant, exposed // {DAY_US} AS day, {", ".join(third)} FROM j GROUP BY ALL ORDER BY ALL"""
    with duckdb.connect() as engine:
        return engine.execute(query).fetchall()


def same(one: Aggregates, other: list[tuple[Any, ...]], metrics: list[Any]) -> bool:
    """Do both hold the same sums?"""
    for row in other:
        for index, metric_ in enumerate(metrics):
            n, total, squares = row[3 + 3 * index : 6 + 3 * index]
            cells = one.metrics[metric_.key].cells
            cell = next(c for c in cells if (c.stratum, c.variant) == row[:2] and (c.day - EPOCH).days == row[2])
            sums = cells[cell]
            if (sums.n, sums.sums[0], sums.products[0]) != (n, int(total or 0), int(squares or 0)):
                return False
    return True


EPOCH = datetime(1970, 1, 1, tzinfo=UTC).date()


def timed(call: Any, *args: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call(*args)
    return time.perf_counter() - start, result


def compare(repeats: int) -> dict[str, float]:
    metrics = [metric(index) for index in range(10)]
    with tempfile.TemporaryDirectory() as folder:
        data, fewer = (make_data(Path(folder, str(n)), 1_000_000, 10, n) for n in (5, 4))
        if not same(ours(*data, metrics), by_hand(*data, metrics), metrics):
            raise SystemExit("the two do not agree")
        laps: dict[str, list[float]] = {"hand": [], "ours": [], "nine": [], "four": []}
        for _ in range(repeats):
            laps["hand"].append(timed(by_hand, *data, metrics)[0])
            laps["ours"].append(timed(ours, *data, metrics)[0])
            laps["nine"].append(timed(ours, *data, metrics[:9])[0])
            laps["four"].append(timed(ours, *fewer, metrics)[0])
    ratios = {name: [a / b for a, b in zip(laps["ours"], laps[name], strict=True)] for name in ("hand", "nine", "four")}
    return {
        "seconds": round(statistics.median(laps["ours"]), 2),
        "seconds_by_hand": round(statistics.median(laps["hand"]), 2),
        "ratio_to_hand": round(statistics.median(ratios["hand"]), 2),
        "tenth_metric_costs": round(statistics.median(ratios["nine"]) - 1, 3),
        "fifth_segment_costs": round(statistics.median(ratios["four"]) - 1, 3),
    }


def growth() -> list[dict[str, float]]:
    rows = []
    for users in (100_000, 1_000_000, 10_000_000):
        with tempfile.TemporaryDirectory() as folder:
            make_data(Path(folder), users, 3, 5)
            answer = subprocess.run(
                [sys.executable, __file__, "--one", folder], check=True, capture_output=True, text=True
            )
            rows.append({"users": users, **json.loads(answer.stdout)})
    return rows


def one(folder: Path) -> dict[str, float]:
    exposures, events = (sorted(folder.glob(f"{kind}-*.parquet")) for kind in ("exposures", "events"))
    seconds, _ = timed(ours, exposures, events, [metric(index) for index in range(5)])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": round(seconds, 2), "peak_mib": round(peak)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--one", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.one)))
    else:
        print(json.dumps(growth() if arguments.growth else compare(arguments.repeats), indent=2))
