# Writes dose.json: trend tests of base R and one-sided Dunnett p values of multcomp.
#
#     Rscript tests/reference/make_dose.R tests/reference/dose.json
#
# Counts: turnout by number of mailings, Gerber & Green 1998 (one-person households), in Imai & Ratkovic 2013.
suppressPackageStartupMessages(library(multcomp))

n <- c(7350, 2440, 2528, 2456)
x <- c(2953, 938, 1001, 987)
array <- function(v) paste0("[", paste(sprintf("%.17g", v), collapse = ", "), "]")
trend <- sapply(list(0:3, c(0, 1, 2, 4)), function(score) {
  test <- prop.trend.test(x, n, score)
  c(test$statistic, test$p.value)
})

# p that arm k is beaten: the largest of the differences of the others from it, by the joint normal distribution.
beaten <- function(mean, variance) {
  sapply(seq_along(mean), function(k) {
    contrasts <- diag(length(mean))[-k, , drop = FALSE]
    contrasts[, k] <- -1
    fit <- glht(parm(mean, variance, df = 0), linfct = contrasts, alternative = "greater")
    set.seed(1)
    min(summary(fit, test = adjusted("single-step", abseps = 1e-8, maxpts = 1e6))$test$pvalues)
  })
}
independent <- list(mean = c(1, 1.3, 1.1, .8, 1.25), se = c(.1, .12, .09, .05, .2))
correlated <- list(mean = c(.2, .5, .4, .3), variance = rbind(c(.02, .008, .002, .004), c(.008, .03, .005, .003),
                                                            c(.002, .005, .015, .001), c(.004, .003, .001, .025)))
writeLines(c(
  "{",
  '"made_by": "tests/reference/make_dose.R",',
  sprintf('"versions": {"R": "%s.%s", "multcomp": "%s", "mvtnorm": "%s"},', R.version$major, R.version$minor,
          packageVersion("multcomp"), packageVersion("mvtnorm")),
  sprintf('"mailings": {"n": %s, "voted": %s},', array(n), array(x)),
  sprintf('"trend": {"0123": %s, "0124": %s},', array(trend[, 1]), array(trend[, 2])),
  sprintf('"independent": {"mean": %s, "se": %s, "p": %s},', array(independent$mean), array(independent$se),
          array(beaten(independent$mean, diag(independent$se^2)))),
  sprintf('"correlated": {"mean": %s, "covariance": [%s], "p": %s}', array(correlated$mean),
          paste(apply(correlated$variance, 1, array), collapse = ", "), array(beaten(correlated$mean, correlated$variance))),
  "}"), commandArgs(TRUE)[1])
