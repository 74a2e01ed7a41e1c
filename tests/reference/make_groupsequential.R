# Writes groupsequential.json: designs, power, and an analysis after stopping, by rpact.
#
#     Rscript tests/reference/make_groupsequential.R > tests/reference/groupsequential.json
suppressMessages(library(rpact))

invisible(setLogLevel("DISABLED"))

numbers <- function(x) paste0("[", paste(format(as.numeric(x), digits = 12, trim = TRUE), collapse = ", "), "]")
entry <- function(name, ...) {
  fields <- list(...)
  body <- paste0("\"", names(fields), "\": ", unlist(fields), collapse = ", ")
  paste0("    \"", name, "\": {", body, "}")
}
design <- function(name, times, sided, ...) {
  d <- getDesignGroupSequential(
    informationRates = times, alpha = 0.05 * sided / 2, beta = 0.2, sided = sided, tolerance = 1e-10, ...
  )
  x <- getDesignCharacteristics(d)
  entry(name,
    sides = sided, information = numbers(times), bounds = numbers(d$criticalValues), shift = x$shift,
    inflation = x$inflationFactor, expected = x$averageSampleNumber1
  )
}
equal <- (1:5) / 5
uneven <- c(0.15, 0.4, 0.75, 1)
rows <- c()
for (sided in 1:2) {
  rows <- c(
    rows,
    design(paste0("obrien_fleming/", sided), equal, sided, typeOfDesign = "asOF"),
    design(paste0("obrien_fleming uneven/", sided), uneven, sided, typeOfDesign = "asOF"),
    design(paste0("pocock/", sided), equal, sided, typeOfDesign = "asP"),
    design(paste0("hwang_shih_decani/", sided), uneven, sided, typeOfDesign = "asHSD", gammaA = -4),
    design(paste0("power/", sided), uneven, sided, typeOfDesign = "asKD", gammaA = 2)
  )
}
f <- getDesignGroupSequential(
  kMax = 4, alpha = 0.025, beta = 0.2, sided = 1, typeOfDesign = "asOF", typeBetaSpending = "bsOF",
  bindingFutility = FALSE, tolerance = 1e-10
)
futility <- entry("futility",
  information = numbers((1:4) / 4), bounds = numbers(f$criticalValues), lower = numbers(f$futilityBounds),
  shift = getDesignCharacteristics(f)$shift
)
# Two samples of unit standard deviation, 40 more in each at every look: the second look stops.
d <- getDesignGroupSequential(kMax = 5, alpha = 0.025, sided = 1, typeOfDesign = "asOF", tolerance = 1e-10)
data <- getDataset(
  n1 = rep(40, 3), n2 = rep(40, 3), means1 = c(1.1, 1.3, 1.2), means2 = c(0.6, 0.5, 0.5),
  stDevs1 = rep(1, 3), stDevs2 = rep(1, 3)
)
r <- getAnalysisResults(d, data, stage = 3, normalApproximation = TRUE)
s <- getStageResults(d, data, stage = 3, normalApproximation = TRUE)
effect <- s$overallMeans1 - s$overallMeans2
analysis <- entry("analysis",
  z = numbers(s$overallTestStatistics[1:3]), effect = numbers(effect[1:3]),
  repeated_p = numbers(r$repeatedPValues[1:3]), repeated_lower = numbers(r$repeatedConfidenceIntervalLowerBounds[1:3]),
  final_p = format(r$finalPValues[2], digits = 12), final_lower = r$finalConfidenceIntervalLowerBounds[2],
  final_upper = r$finalConfidenceIntervalUpperBounds[2], median_unbiased = r$medianUnbiasedEstimates[2]
)
cat("{\n  \"source\": \"rpact ", as.character(packageVersion("rpact")), ", ", R.version.string, "\",\n", sep = "")
cat("  \"designs\": {\n", paste(rows, collapse = ",\n"), "\n  },\n", sep = "")
cat(sub("^    ", "  ", futility), ",\n", sub("^    ", "  ", analysis), "\n}\n", sep = "")
