"""Writes hillstrom.json: sums per arm of the Hillstrom e-mail test and what SciPy and statsmodels make of its rows.

    python tests/reference/make_hillstrom.py PATH/TO/hillstrom.csv.gz

Data: Kevin Hillstrom, MineThatData E-Mail Analytics and Data Mining Challenge, 2008-03-20, 64,000 customers.
"""

import csv
import gzip
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import scipy
import scipy.stats
import statsmodels
import statsmodels.api as sm
from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest

ARMS = {"control": "No E-Mail", "mens": "Mens E-Mail", "womens": "Womens E-Mail"}
COLUMNS = ("visit", "conversion", "spend_cents", "history_cents")


def main(path: Path) -> None:
    content = gzip.decompress(path.read_bytes())
    rows = list(csv.DictReader(content.decode().splitlines()))
    table = {
        arm: np.array(
            [
                [
                    int(r["visit"]),
                    int(r["conversion"]),
                    round(float(r["spend"]) * 100),
                    round(float(r["history"]) * 100),
                ]
                for r in rows
                if r["segment"] == label
            ],
            dtype=np.int64,
        )
        for arm, label in ARMS.items()
    }
    control = table["control"]
    expected: dict[str, dict[str, object]] = {}
    for arm in ("mens", "womens"):
        treated = table[arm]
        welch = scipy.stats.ttest_ind(treated[:, 2] / 100, control[:, 2] / 100, equal_var=False)
        interval = welch.confidence_interval(0.95)
        counts = (int(treated[:, 1].sum()), len(treated), int(control[:, 1].sum()), len(control))
        z, p = proportions_ztest(counts[0::2], counts[1::2])
        ratio = confint_proportions_2indep(*counts, compare="ratio", method="score", correction=False)
        expected[arm] = {
            "spend": {
                "t": welch.statistic,
                "df": welch.df,
                "p_value": welch.pvalue,
                "lower": interval.low,
                "upper": interval.high,
            },
            "conversion": {"z": z, "p_value": p, "ratio_lower": ratio[0], "ratio_upper": ratio[1]},
            "spend_per_visit": ratio_by_clusters(treated),
            "spend_adjusted": adjusted_by_ols(treated, np.vstack(list(table.values()))),
        }
    expected["control"] = {"spend_per_visit": ratio_by_clusters(control)}
    pearson = scipy.stats.chisquare([len(arm) for arm in table.values()])
    document = {
        "source": "Hillstrom 2008, MineThatData E-Mail Analytics and Data Mining Challenge",
        "sha256_csv": hashlib.sha256(content).hexdigest(),
        "made_by": "tests/reference/make_hillstrom.py",
        "versions": {"numpy": np.__version__, "scipy": scipy.__version__, "statsmodels": statsmodels.__version__},
        "columns": COLUMNS,
        "arms": {
            arm: {"n": len(x), "sums": x.sum(axis=0).tolist(), "products": (x.T @ x).tolist()}
            for arm, x in table.items()
        },
        "srm": {"statistic": pearson.statistic, "p_value": pearson.pvalue},
        "expected": expected,
    }
    target = Path(__file__).with_name("hillstrom.json")
    target.write_text(json.dumps(document, indent=1, default=float) + "\n", encoding="utf-8")


def ratio_by_clusters(x: np.ndarray) -> dict[str, float]:
    """Spend per visit. Nobody visits twice or spends without a visit, so each visit is a cluster of its own."""
    visits = x[x[:, 0] == 1]
    if x[x[:, 0] == 0, 2].any():
        raise ValueError("spend without a visit")
    fit = sm.OLS(visits[:, 2] / 100, np.ones(len(visits))).fit(cov_type="HC0")
    users = len(x)
    return {"ratio": fit.params[0], "se": fit.bse[0] * np.sqrt(users / (users - 1))}


def adjusted_by_ols(x: np.ndarray, everyone: np.ndarray) -> dict[str, float]:
    """Spend of an arm at the mean history of all users, by ordinary least squares within the arm."""
    fit = sm.OLS(x[:, 2] / 100, sm.add_constant(x[:, 3] / 100)).fit()
    at_mean = fit.get_prediction(np.array([[1.0, everyone[:, 3].mean() / 100]]))
    return {"mean": at_mean.predicted_mean[0], "se_given_covariates": at_mean.se_mean[0], "slope": fit.params[1]}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
