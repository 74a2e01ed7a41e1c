"""Writes quantiles.json: quantiles of Engel's food expenditure with the standard errors of R quantreg.

    python tests/reference/make_quantiles.py

Data: quantreg::engel (Koenker & Bassett 1982), 235 households. Clusters are blocks of five households by income, so
that values within a cluster resemble each other. Needs Rscript with quantreg.
"""

import json
import subprocess
from pathlib import Path

R = r"""
library(quantreg)
data(engel)
y <- engel$foodexp
cluster <- (rank(engel$income, ties.method = "first") - 1) %/% 5
weights <- 1 + (seq_along(y) - 1) %% 3
num <- function(x) paste0("[", paste(format(x, digits = 17, trim = TRUE), collapse = ","), "]")
q <- c(0.25, 0.5, 0.8)
set.seed(20240501)
one <- function(f) sapply(q, f)
boot <- function(tau, ...) sd(boot.rq(matrix(1, length(y), 1), y, tau = tau, R = 20000, ...)$B)
cat(sprintf(
  '{"versions":{"R":"%s","quantreg":"%s"},"values":%s,"cluster":%s,"weights":%s,"q":%s,"expected":{"quantile":%s,"weighted":%s,"nid":%s,"bootstrap":%s,"cluster_bootstrap":%s}}',
  paste(R.version$major, R.version$minor, sep = "."), packageVersion("quantreg"), num(y), num(cluster), num(weights),
  num(q),
  num(one(function(t) unname(coef(rq(y ~ 1, tau = t))))),
  num(one(function(t) unname(coef(rq(y ~ 1, tau = t, weights = weights))))),
  num(one(function(t) summary(rq(y ~ 1, tau = t), se = "nid")$coefficients[1, 2])),
  num(one(function(t) boot(t, bsmethod = "xy"))),
  num(one(function(t) boot(t, bsmethod = "cluster", cluster = cluster)))))
"""


def main() -> None:
    answer = json.loads(subprocess.run(["Rscript", "-e", R], capture_output=True, text=True, check=True).stdout)
    document = {"made_by": "tests/reference/make_quantiles.py", "source": "R data set quantreg::engel", **answer}
    target = Path(__file__).with_name("quantiles.json")
    target.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
