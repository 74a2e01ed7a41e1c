"""Writes compliance.json: what linearmodels' two-stage least squares makes of rows with one-sided non-compliance.

    python tests/reference/make_compliance.py

Needs linearmodels. The rows are drawn here and stored as counts and sums, so that the tests need nothing but NumPy.
"""

import json
from pathlib import Path

import linearmodels
import numpy as np
import pandas as pd
from linearmodels.iv import IV2SLS


def main() -> None:
    rng = np.random.default_rng(20240601)
    n = 3000
    assigned = np.repeat([0, 1], n)
    eager = rng.normal(size=2 * n)
    received = ((eager > 0.2) & (assigned == 1)) | (eager > 1.8)
    # In hundredths, so that the sums are exact.
    outcome = np.round(100 * (2 + eager + 0.6 * received + rng.exponential(2, 2 * n))).astype(int)
    frame = pd.DataFrame({"y": outcome / 100, "d": received.astype(float), "z": assigned.astype(float), "one": 1.0})
    fit = IV2SLS(frame["y"], frame[["one"]], frame[["d"]], frame[["z"]]).fit(cov_type="robust")
    arms = [np.column_stack([outcome, received.astype(int)])[assigned == arm] for arm in (0, 1)]
    document = {
        "made_by": "tests/reference/make_compliance.py",
        "versions": {"linearmodels": linearmodels.__version__, "numpy": np.__version__, "pandas": pd.__version__},
        "columns": ["outcome_cents", "received"],
        "arms": [{"n": n, "sums": x.sum(axis=0).tolist(), "products": (x.T @ x).tolist()} for x in arms],
        "two_stage": {"effect": float(fit.params["d"]), "se_robust": float(fit.std_errors["d"])},
    }
    target = Path(__file__).with_name("compliance.json")
    target.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
