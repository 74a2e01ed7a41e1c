# Writes contrasts.json: adjusted p values, simultaneous limits and critical values of the R package multcomp.
#
#     Rscript tests/reference/make_contrasts.R > tests/reference/contrasts.json

suppressPackageStartupMessages({library(multcomp); library(mvtnorm)})
set.seed(1)

json <- function(x) {
  if (is.list(x)) {
    items <- vapply(x, json, "")
    if (is.null(names(x))) return(paste0("[", paste(items, collapse = ",\n  "), "]"))
    return(paste0("{", paste0("\"", names(x), "\": ", items, collapse = ",\n  "), "}"))
  }
  if (is.matrix(x)) return(paste0("[", paste(apply(x, 1, json), collapse = ", "), "]"))
  if (is.character(x)) return(paste0("\"", x, "\""))
  numbers <- formatC(x, digits = 13, format = "g")
  if (length(x) == 1) numbers else paste0("[", paste(trimws(numbers), collapse = ", "), "]")
}

shared <- function(variances, common) diag(variances) + common
cases <- list(
  list(name = "dunnett, unequal arms", mean = c(10, 10.4, 10.9, 9.6, 10.1), covariance = shared(c(0.04, 0.02, 0.09, 0.05, 0.03), 0), kind = "Dunnett"),
  list(name = "dunnett, adjusted arms", mean = c(3, 3.3, 3.1, 3.6),
       covariance = shared(c(0.02, 0.03, 0.025, 0.04), outer(c(1, 1.2, 0.8, 1.5), c(1, 1.2, 0.8, 1.5)) * 0.01), kind = "Dunnett"),
  list(name = "tukey, equal arms", mean = c(0, 0.5, 1.1, 0.2), covariance = shared(rep(0.1, 4), 0), kind = "Tukey"),
  list(name = "tukey, unequal arms", mean = c(0, 0.5, 1.1, 0.2, 0.9), covariance = shared(c(0.05, 0.2, 0.1, 0.02, 0.12), 0), kind = "Tukey"),
  list(name = "free contrasts", mean = c(1, 1.3, 1.2, 2), covariance = shared(c(0.05, 0.1, 0.08, 0.2), 0),
       matrix = rbind(c(-1, 1, 0, 0), c(-0.5, -0.5, 0.5, 0.5), c(0, 0, -1, 1), c(-1, 1 / 3, 1 / 3, 1 / 3)))
)

run <- function(case) {
  k <- length(case$mean)
  c <- if (is.null(case$matrix)) unclass(contrMat(rep(10, k), type = case$kind)) else case$matrix
  test <- glht(parm(case$mean, case$covariance, df = 0), linfct = matrix(c, ncol = k))
  interval <- confint(test, level = 0.95, calpha = adjusted_calpha(alternative = "two.sided", maxpts = 2e5, abseps = 1e-5, releps = 0))
  p <- summary(test, test = adjusted("single-step", maxpts = 2e5, abseps = 1e-5, releps = 0))$test$pvalues
  joint <- summary(test, test = Chisqtest())$test
  list(name = case$name, mean = case$mean, covariance = case$covariance, matrix = matrix(c, ncol = k),
       p_adjusted = as.numeric(p), critical = attr(interval$confint, "calpha"),
       lower = as.numeric(interval$confint[, "lwr"]), upper = as.numeric(interval$confint[, "upr"]),
       chi_square = as.numeric(joint$SSH), df = as.integer(qr(c)$rank))
}

versions <- list(R = R.version.string, multcomp = as.character(packageVersion("multcomp")),
                 mvtnorm = as.character(packageVersion("mvtnorm")))
cat(json(list(made_by = "tests/reference/make_contrasts.R", versions = versions, cases = lapply(cases, run))), "\n")
