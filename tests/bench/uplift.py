"""Our learners against causalml's and scikit-uplift's on the same folds: `python tests/bench/uplift.py [--json FILE]`.

64,000 customers, three variants, visits. Every list is judged by the same doubly robust scores. The others have
LightGBM as it comes, on one thread. Qini: the area between the list and a random one, per user, of each variant against
the control within folds, summed. Time: CPU seconds for training and predicting all folds; ours with all learners that
compete and with choosing one.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from experiments.uplift.choose import choose  # noqa: E402
from experiments.uplift.crossfit import crossfit  # noqa: E402
from experiments.uplift.frame import Frame, from_table, read  # noqa: E402
from experiments.uplift.learners import DEFAULT  # noqa: E402
from experiments.uplift.question import Question  # noqa: E402
from stats import uplift  # noqa: E402

FOLDS = 5
FEATURES = ("recency", "history", "mens", "womens", "newbie", "zip_code", "channel")
QUESTION = Question(variant="segment", control="No E-Mail", outcome="visit", features=FEATURES)
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def contestants() -> dict[str, Fit]:
    """Each trains on (matrix, arm, outcome) and predicts the effects (n, 2) for another matrix."""
    from causalml.inference.meta import BaseDRLearner, BaseSRegressor, BaseTRegressor, BaseXRegressor
    from lightgbm import LGBMClassifier, LGBMRegressor
    from sklift.models import ClassTransformation, SoloModel, TwoModels

    def causal(make: Callable[[Any], Any], *, known: bool, **options: Any) -> Fit:
        def fit(x: np.ndarray, arm: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
            model = make(LGBMRegressor(n_jobs=1, verbose=-1))
            half = {k: np.full(len(x), 0.5) for k in (1, 2)} if known else None
            model.fit(X=x, treatment=arm, y=y, **({"p": half} if known else {}), **options)
            extra = {"p": {k: np.full(len(at), 0.5) for k in (1, 2)}} if known and not options else {}
            return np.asarray(model.predict(X=at, **extra))

        return fit

    def binary(make: Callable[[], Any]) -> Fit:
        def fit(x: np.ndarray, arm: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
            columns = []
            for k in (1, 2):
                pair = (arm == 0) | (arm == k)
                model = make()
                model.fit(x[pair], y[pair].astype(int), (arm[pair] == k).astype(int))
                columns.append(model.predict(at))
            return np.column_stack(columns)

        return fit

    def trees() -> Any:
        return LGBMClassifier(n_jobs=1, verbose=-1)

    return {
        "causalml T": causal(lambda base: BaseTRegressor(base, control_name=0), known=False),
        "causalml S": causal(lambda base: BaseSRegressor(base, control_name=0), known=False),
        "causalml X": causal(lambda base: BaseXRegressor(base, control_name=0), known=True),
        "causalml DR": causal(lambda base: BaseDRLearner(base, control_name=0), known=True, seed=1),
        "scikit-uplift two models": binary(lambda: TwoModels(trees(), trees())),
        "scikit-uplift solo model": binary(lambda: SoloModel(trees())),
        "scikit-uplift class transformation": binary(lambda: ClassTransformation(trees())),
    }


def qini(scores: np.ndarray, effects: np.ndarray, fold: np.ndarray) -> float:
    """The areas of the list for each variant against the control, summed."""
    return sum(uplift.rate(effects[:, k - 1], scores[:, k] - scores[:, 0], "qini", fold).estimate for k in (1, 2))


def measure(frame: Frame, seed: int) -> dict[str, dict[str, float]]:
    """One split into folds: Qini and seconds of each contestant, ours first."""
    start = process_time()
    ours = crossfit(frame, DEFAULT, folds=FOLDS, seed=seed, clock=process_time)
    choice = choose(ours, alpha=0.05, rng=np.random.default_rng(seed))
    seconds = process_time() - start
    found = {"ours": {"qini": qini(ours.scores, ours.effects[choice.learner], ours.fold), "seconds": seconds}}
    for name, fit in contestants().items():
        effects = np.empty((ours.fold.size, 2))
        start = process_time()
        for each in range(FOLDS):
            here = ours.fold == each
            effects[here] = fit(ours.matrix[~here], frame.arm[~here], frame.outcome[~here], ours.matrix[here])
        found[name] = {"qini": qini(ours.scores, effects, ours.fold), "seconds": process_time() - start}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    frame = from_table(read(ROOT / "experiments" / "demo" / "hillstrom.csv.gz"), QUESTION)
    contestants()
    runs = [measure(frame, seed) for seed in range(1, arguments.splits + 1)]
    result = {
        name: {what: float(np.mean([run[name][what] for run in runs])) for what in ("qini", "seconds")}
        for name in runs[0]
    }
    reference = result["causalml T"]["seconds"]
    for name, row in result.items():
        print(
            f"{name:36} Qini {row['qini']:.5f}  {row['seconds']:5.1f} s  {row['seconds'] / reference:.2f} x T-learner"
        )
    others = max(row["qini"] for name, row in result.items() if name != "ours")
    qinis, times = result["ours"]["qini"] / others, result["ours"]["seconds"] / reference
    met = qinis >= 1 and times <= 3
    print(
        f"ours / the best other: Qini {qinis:.2f} (at least 1); "
        f"ours / causalml's T-learner: time {times:.2f} (at most 3)"
    )
    document = json.dumps({"contestants": result, "met": met}, indent=2)
    if arguments.json:
        arguments.json.write_text(document + "\n", encoding="utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
