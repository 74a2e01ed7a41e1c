"""Real experiments of ASOS looked at every day: what a t-test read so claims, and what the confidence sequence claims.

    python -m tests.stats.study_asos FILE

FILE is asos_part_dev.csv.gz, one half (by experiment id) of the data of Liu, Cardoso, Couturier & McCoy 2021 (CC BY
4.0): counts, means and variances of two arms at each half day or day. What their planners meant to collect is not in
the data; the sequence is tuned to the final number of users, and once more to half of it, in its place. Whether an
effect is there is not known either: these are counts of claims, not of errors. Metrics 2 to 4 are totals that grow
after a user has entered, which no sequence is made for.
"""

import csv
import gzip
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from stats.arms import means
from stats.effects import difference
from stats.horizon import Fixed, Horizon, Sequential
from stats.moments import Moments

ALPHA = 0.05
FIXED = Fixed(ALPHA)
METRICS = ("1", "2", "3", "4")
Series = list[list[Moments]]


@dataclass(frozen=True, slots=True)
class Reading:
    """What each rule claims about one series: significant at the last look, at any look."""

    t_at_end: bool
    t_ever: bool
    sequence_at_end: bool
    sequence_ever: bool
    half_at_end: bool
    half_ever: bool


def read(path: Path) -> dict[str, list[Series]]:
    """Looks of each series, by metric, control first. Looks without a variance are left out, and so empty series."""
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["variance_c"] and row["variance_t"]]
    found: dict[str, list[Series]] = {metric: [] for metric in METRICS}
    key = ("experiment_id", "variant_id", "metric_id")
    rows.sort(key=lambda row: (*(row[name] for name in key), float(row["time_since_start"])))
    for (_, _, metric), looks in groupby(rows, key=lambda row: tuple(row[name] for name in key)):
        found[metric].append([[_arm(look, "c"), _arm(look, "t")] for look in looks])
    return found


def _arm(look: dict[str, str], arm: str) -> Moments:
    n = int(float(look[f"count_{arm}"]))
    square = float(look[f"variance_{arm}"]) * (n - 1)
    return Moments(n, np.array([float(look[f"mean_{arm}"])]), np.array([[square]]))


def judge(series: Series) -> Reading:
    users = sum(arm.n for arm in series[-1])
    t = _significant(series, FIXED)
    sequence, half = (_significant(series, Sequential.tuned(ALPHA, users * share)) for share in (1.0, 0.5))
    return Reading(t[-1], any(t), sequence[-1], any(sequence), half[-1], any(half))


def _significant(series: Series, horizon: Horizon) -> list[bool]:
    return [difference(means(look), 1, 0, horizon).p_value < ALPHA for look in series]


def counts(readings: Sequence[Reading]) -> dict[str, int]:
    """Series per claim, and the four cells of Liu et al.'s Table 2: t at the end against the sequence at any look."""
    total = {name: sum(getattr(reading, name) for reading in readings) for name in Reading.__dataclass_fields__}
    both = sum(r.t_at_end and r.sequence_ever for r in readings)
    cells = {
        "both": both,
        "only_sequence": total["sequence_ever"] - both,
        "only_t": total["t_at_end"] - both,
        "neither": len(readings) - total["t_at_end"] - total["sequence_ever"] + both,
    }
    return {"series": len(readings), **total, **cells}


def main() -> None:
    for metric, series in read(Path(sys.argv[1])).items():
        sys.stdout.write(f"metric {metric}: {json.dumps(counts([judge(one) for one in series]))}\n")


if __name__ == "__main__":
    main()
