"""Upturn's SDK: which variant a user gets, with the standard library alone.

`Evaluator(snapshot).assign(experiment, user, attributes)` answers in microseconds and never raises.
"""

from .assignment import Evaluator, compile_experiment
from .conditions import compile_condition
from .errors import DocumentError
from .experiment import Assignment, CompiledExperiment, Reason
from .hashing import bucket
from .shares import allocation

__all__ = [
    "Assignment",
    "CompiledExperiment",
    "DocumentError",
    "Evaluator",
    "Reason",
    "__version__",
    "allocation",
    "bucket",
    "compile_condition",
    "compile_experiment",
]

__version__ = "0.1.0"
