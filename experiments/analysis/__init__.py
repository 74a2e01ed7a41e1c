"""From sums to the report: effects of every variant, over all users and in each segment, and whether to trust them.

All metrics take one way: sums per stratum, variant and day → moments (or lifetimes, or values) → an arm vector
(estimates with their joint covariance) → comparisons under the plan's horizon.
"""

from experiments.analysis.build import Data, build

__all__ = ["Data", "build"]
