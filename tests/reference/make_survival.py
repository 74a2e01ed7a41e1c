"""Writes survival.json: what R survival and lifelines make of three published data sets.

    python tests/reference/make_survival.py

Data from R: MASS::gehan (leukemia remission in weeks, Freireich et al. 1963; Gehan 1965), survival::veteran
(Kalbfleisch & Prentice 1980) and survival::lung (Loprinzi et al. 1994). Needs Rscript with both packages.
"""

import json
import subprocess
from pathlib import Path

import lifelines
import numpy as np
from lifelines.statistics import multivariate_logrank_test

R = r"""
library(survival)
data(gehan, package = "MASS")
sets <- list(
  gehan = data.frame(time = gehan$time, event = gehan$cens, arm = as.integer(factor(gehan$treat)) - 1, stratum = 0),
  veteran = data.frame(time = veteran$time, event = veteran$status, arm = as.integer(veteran$celltype) - 1,
                       stratum = veteran$trt - 1),
  lung = data.frame(time = lung$time, event = lung$status - 1, arm = lung$sex - 1,
                    stratum = ifelse(is.na(lung$ph.ecog), 0, pmin(lung$ph.ecog, 2)))
)
at <- list(gehan = c(6, 10, 20), veteran = c(30, 100, 150), lung = c(100, 365, 700))
num <- function(x) paste0("[", paste(format(x, digits = 17, trim = TRUE), collapse = ","), "]")
cells <- c()
for (name in names(sets)) {
  d <- sets[[name]]
  arms <- c()
  for (a in sort(unique(d$arm))) {
    fit <- survfit(Surv(time, event) ~ 1, data = d[d$arm == a, ], conf.type = "log-log")
    s <- summary(fit, times = at[[name]])
    r <- sapply(at[[name]], function(h) summary(fit, rmean = h)$table[c("rmean", "se(rmean)")])
    arms <- c(arms, sprintf('{"survival":%s,"se":%s,"lower":%s,"upper":%s,"rmst":%s,"rmst_se":%s}',
      num(s$surv), num(s$std.err), num(s$lower), num(s$upper), num(r[1, ]), num(r[2, ])))
  }
  plain <- survdiff(Surv(time, event) ~ arm, data = d)$chisq
  strat <- if (length(unique(d$stratum)) > 1) survdiff(Surv(time, event) ~ arm + strata(stratum), data = d)$chisq
           else plain
  cells <- c(cells, sprintf(
    '"%s":{"time":%s,"event":%s,"arm":%s,"stratum":%s,"at":%s,"arms":[%s],"logrank":%s,"stratified":%s}',
    name, num(d$time), num(d$event), num(d$arm), num(d$stratum), num(at[[name]]), paste(arms, collapse = ","),
    format(plain, digits = 17), format(strat, digits = 17)))
}
cat(sprintf('{"versions":{"R":"%s","survival":"%s"},%s}', paste(R.version$major, R.version$minor, sep = "."),
  packageVersion("survival"), paste(cells, collapse = ",")))
"""


def main() -> None:
    answer = json.loads(subprocess.run(["Rscript", "-e", R], capture_output=True, text=True, check=True).stdout)
    versions = {**answer.pop("versions"), "lifelines": lifelines.__version__}
    for data in answer.values():
        time, event, arm = (np.array(data[column]) for column in ("time", "event", "arm"))
        data["lifelines"] = {
            "logrank": multivariate_logrank_test(time, arm, event).test_statistic,
            "arms": [of_arm(time[arm == a], event[arm == a], data["at"]) for a in range(len(data["arms"]))],
        }
    document = {
        "made_by": "tests/reference/make_survival.py",
        "source": "R data sets MASS::gehan, survival::veteran, survival::lung",
        "versions": versions,
        "sets": answer,
    }
    target = Path(__file__).with_name("survival.json")
    target.write_text(json.dumps(document, indent=1, default=float) + "\n", encoding="utf-8")


def of_arm(time: np.ndarray, event: np.ndarray, at: list[float]) -> dict[str, list[float]]:
    fit = lifelines.KaplanMeierFitter().fit(time, event)
    limits = fit.confidence_interval_survival_function_
    rows = [limits.index.searchsorted(t, side="right") - 1 for t in at]
    return {
        "survival": [float(fit.predict(t)) for t in at],
        "lower": limits.iloc[rows, 0].tolist(),
        "upper": limits.iloc[rows, 1].tolist(),
        "rmst": [lifelines.utils.restricted_mean_survival_time(fit, t) for t in at],
    }


if __name__ == "__main__":
    main()
