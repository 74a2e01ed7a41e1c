"""Writes uplift.json: Qini, AUUC and uplift of fixed rankings by causalml and scikit-uplift, TOC by causalml.

    python tests/reference/make_uplift.py        (causalml 0.18.0, scikit-uplift 0.5.1)

causalml's number for tied scores depends on how the processor sorts, so its cases have no ties (null there).
"""

import json
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from causalml.metrics import auuc_score, get_toc, qini_score
    from sklift.metrics import qini_auc_score, uplift_at_k, uplift_auc_score

SEED, USERS = 20240611, 60
SHARES = (0.1, 0.25, 0.5, 0.9)


def cases() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(SEED)
    scores = rng.permutation(USERS) / 100 + rng.integers(-3, 3)
    treated = rng.integers(0, 2, USERS)
    taste = rng.random(USERS)
    binary = (taste < 0.3 + 0.3 * treated * (scores > np.median(scores))).astype(int)
    by_score = np.argsort(-scores)
    late = treated.copy()
    late[by_score[:7]] = 1
    later = treated.copy()
    later[by_score[:5]] = 0
    return {
        "plain": (scores, treated, binary),
        "negative effect": (scores, treated, (taste < 0.6 - 0.4 * treated).astype(int)),
        "no control user at first": (scores, late, binary),
        "no treated user at first": (scores, later, binary),
        "revenue": (scores, treated, np.round(binary * rng.lognormal(3, 1, USERS), 2)),
        "few treated": (scores, (rng.random(USERS) < 0.15).astype(int), binary),
        "ties": (rng.integers(0, 6, USERS) / 10, treated, binary),
    }


def causalml_numbers(scores: np.ndarray, treated: np.ndarray, outcome: np.ndarray) -> dict[str, float] | None:
    if len(np.unique(scores)) < len(scores):
        return None
    frame = pd.DataFrame({"y": outcome, "w": treated, "model": scores})
    found = {}
    for name, score in (("auuc", auuc_score), ("qini", qini_score)):
        for normalize in (True, False):
            found[f"{name}{'' if normalize else '_plain'}"] = float(score(frame, normalize=normalize)["model"])
    return found


def sklift_numbers(scores: np.ndarray, treated: np.ndarray, outcome: np.ndarray) -> dict[str, float] | None:
    if not np.isin(outcome, (0, 1)).all():
        return None
    found = {
        "auuc": uplift_auc_score(outcome, scores, treated),
        "qini": qini_auc_score(outcome, scores, treated),
    }
    # scikit-uplift fails where the treatment harms on the whole.
    if outcome[treated == 1].mean() > outcome[treated == 0].mean():
        found["qini_no_negative"] = qini_auc_score(outcome, scores, treated, negative_effect=False)
    for strategy in ("overall", "by_group"):
        found[f"at_30_{strategy}"] = uplift_at_k(outcome, scores, treated, strategy, 0.3)
    return {name: float(number) for name, number in found.items()}


def main() -> None:
    rng = np.random.default_rng(SEED + 1)
    priority, gains = rng.permutation(USERS) / 10, np.round(rng.normal(0.2, 1, USERS), 3)
    toc = get_toc(pd.DataFrame({"model": priority, "tau": gains}))["model"]
    made = {
        "packages": f"causalml {version('causalml')}, scikit-uplift {version('scikit-uplift')}",
        "cases": [
            {
                "name": name,
                "scores": scores.tolist(),
                "treated": treated.tolist(),
                "outcome": outcome.tolist(),
                "causalml": causalml_numbers(scores, treated, outcome),
                "sklift": sklift_numbers(scores, treated, outcome),
            }
            for name, (scores, treated, outcome) in cases().items()
        ],
        "toc": {
            "priority": priority.tolist(),
            "gains": gains.tolist(),
            "shares": SHARES,
            "values": [float(toc.iloc[round(share * USERS)]) for share in SHARES],
        },
    }
    text = json.dumps(made, indent=1)
    target = Path(__file__).with_name("uplift.json")
    target.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
