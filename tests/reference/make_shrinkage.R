# Writes shrinkage.json: Q, tau and pooled means by R's metafor.
#
#     Rscript tests/reference/make_shrinkage.R tests/reference/shrinkage.json
#
# "schools": Rubin (1981), eight schools, effects and standard errors. The others are made up.

suppressMessages(library(metafor))

cases <- list(
  schools = list(d = c(28, 8, -3, 7, -1, 1, 18, 12), V = diag(c(15, 10, 16, 11, 9, 11, 10, 18)^2)),
  apart = list(d = c(0.9, 0.1, -0.4, 1.3, 0.5), V = diag(c(0.2, 0.1, 0.3, 0.25, 0.15)^2)),
  two = list(d = c(1, 4), V = diag(c(1, 0.5))),
  shared = list(d = c(2, 0.5, -1, 3), V = diag(c(0.5, 0.3, 0.4, 0.8)) + 0.6),
  overlap = list(d = c(2, 0.5, -1), V = matrix(c(1, 0.5, 0.2, 0.5, 0.8, -0.1, 0.2, -0.1, 0.6), 3))
)

quoted <- function(x) paste0("\"", x, "\"")
numbers <- function(x) paste0("[", paste(formatC(x, digits = 15, format = "g"), collapse = ", "), "]")

rows <- sapply(names(cases), function(name) {
  d <- cases[[name]]$d
  V <- cases[[name]]$V
  fixed <- rma.mv(d, V)
  # Paule-Mandel where V is full, by its definition; the residual Q is metafor's at the tau^2 tried.
  excess <- function(t2) {
    fit <- rma.mv(d, V + t2 * diag(length(d)))
    fit$QE - (length(d) - 1)
  }
  t2 <- if (excess(0) <= 0) 0 else uniroot(excess, c(0, 100), tol = 1e-13)$root
  univariate <- all(V[upper.tri(V)] == 0)
  pm <- if (univariate) rma(d, diag(V), method = "PM", control = list(tol = 1e-13))$tau2 else t2
  stopifnot(abs(pm - t2) < 1e-6)
  # Posterior mean of mu and of the effects where tau^2 is known to be 1.
  one <- if (univariate) rma(d, diag(V), tau2 = 1) else rma.mv(d, V + diag(length(d)))
  blup <- if (univariate) blup(one) else list(pred = numeric(0), se = numeric(0))
  paste0(
    "{\"name\": ", quoted(name), ", \"effects\": ", numbers(d), ", \"covariance\": [",
    paste(apply(V, 1, numbers), collapse = ", "), "], \"q\": ", numbers(fixed$QE), ", \"p_value\": ", numbers(fixed$QEp),
    ", \"tau_squared\": ", numbers(pm), ", \"mean_at_one\": ", numbers(one$b[1]), ", \"se_at_one\": ", numbers(one$se),
    ", \"blup_at_one\": ", numbers(blup$pred), ", \"blup_se_at_one\": ", numbers(blup$se), "}"
  )
})
package <- paste("R", getRversion(), "metafor", packageVersion("metafor"))
writeLines(
  paste0("{\"package\": ", quoted(package), ", \"cases\": [\n", paste(rows, collapse = ",\n"), "\n]}"),
  commandArgs(TRUE)[1]
)
