# Writes power.json: sample sizes by R's own power functions, rpact and exact quantiles of Dunnett's statistic (mvtnorm).
#
#     Rscript tests/reference/make_power.R > tests/reference/power.json
suppressMessages(library(rpact))
suppressMessages(library(mvtnorm))
set.seed(1)

number <- function(x) format(x, digits = 12, trim = TRUE)
conversion <- power.prop.test(p1 = 0.05, p2 = 0.06, power = 0.8, tol = 1e-12)$n
small <- power.prop.test(p1 = 0.3, p2 = 0.5, power = 0.9, sig.level = 0.01, tol = 1e-12)$n
mean <- power.t.test(delta = 1, sd = 3, power = 0.8, tol = 1e-12)$n
few <- power.t.test(n = 6, delta = 2, sd = 1, strict = TRUE)$power
events <- getSampleSizeSurvival(
  hazardRatio = 0.7, lambda2 = 0.1, typeOfComputation = "Schoenfeld", sided = 2, alpha = 0.05, beta = 0.2
)$eventsFixed
skewed <- getSampleSizeSurvival(
  hazardRatio = 0.7, lambda2 = 0.1, typeOfComputation = "Schoenfeld", sided = 2, alpha = 0.05, beta = 0.2,
  allocationRatioPlanned = 3
)$eventsFixed
dunnett <- function(shares) {
  l <- sqrt(shares[-1] / (shares[-1] + shares[1]))
  r <- outer(l, l)
  diag(r) <- 1
  qmvnorm(0.95, tail = "both.tails", corr = r, algorithm = Miwa(4096), ptol = 1e-9)$quantile
}
cat("{\n  \"source\": \"", R.version.string, ", rpact ", as.character(packageVersion("rpact")), ", mvtnorm ",
  as.character(packageVersion("mvtnorm")), "\",\n", sep = "")
cat("  \"conversion .05 to .06, power .8, per arm\": ", number(conversion), ",\n", sep = "")
cat("  \"conversion .3 to .5, power .9, level .01, per arm\": ", number(small), ",\n", sep = "")
cat("  \"mean 1, sd 3, power .8, per arm\": ", number(mean), ",\n", sep = "")
cat("  \"power at 6 per arm, mean 2, sd 1\": ", number(few), ",\n", sep = "")
cat("  \"events, hazard ratio .7\": ", number(events), ",\n", sep = "")
cat("  \"events, hazard ratio .7, 3 to 1\": ", number(skewed), ",\n", sep = "")
cat("  \"dunnett, three equal treatments\": ", number(dunnett(rep(0.25, 4))), ",\n", sep = "")
cat("  \"dunnett, shares .4 .3 .2 .1\": ", number(dunnett(c(0.4, 0.3, 0.2, 0.1))), "\n}\n", sep = "")
