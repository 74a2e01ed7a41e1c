"""Before an experiment starts: how many users it needs, what they can show, how long it takes, and what would help.

The answer follows the analysis: the same level for each comparison, the same stopping rules, the same matured users.
"""

from experiments.planner.answers import MetricPlan, PlanAnswer, answer, for_experiment
from experiments.planner.baselines import Found, measure
from experiments.planner.forecasts import (
    Advice,
    AdviceCode,
    Baseline,
    Capacity,
    Forecast,
    Needed,
    Question,
    Size,
    Week,
    forecast,
)
from experiments.planner.requests import ExperimentPlanRequest, PlanRequest, needs_store, parse

__all__ = [
    "Advice",
    "AdviceCode",
    "Baseline",
    "Capacity",
    "ExperimentPlanRequest",
    "Forecast",
    "Found",
    "MetricPlan",
    "Needed",
    "PlanAnswer",
    "PlanRequest",
    "Question",
    "Size",
    "Week",
    "answer",
    "for_experiment",
    "forecast",
    "measure",
    "needs_store",
    "parse",
]
