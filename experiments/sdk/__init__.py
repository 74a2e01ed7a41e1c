"""Upturn's SDK: which variant a user gets, and what he did, with the standard library alone.

`Evaluator(snapshot).assign(experiment, user, attributes)` answers in microseconds and never raises. `Client(url, key)`
keeps the snapshot fresh and sends exposures and events in the background.
"""

from .assignment import Evaluator, compile_experiment
from .client import Client, Details
from .conditions import compile_condition
from .errors import DocumentError
from .experiment import Assignment, CompiledExperiment, Reason
from .hashing import bucket
from .options import Options
from .shares import allocation
from .transport import HTTPTransport, Request, Response, Stream, Transport, WSGITransport

__all__ = [
    "Assignment",
    "Client",
    "CompiledExperiment",
    "Details",
    "DocumentError",
    "Evaluator",
    "HTTPTransport",
    "Options",
    "Reason",
    "Request",
    "Response",
    "Stream",
    "Transport",
    "WSGITransport",
    "__version__",
    "allocation",
    "bucket",
    "compile_condition",
    "compile_experiment",
]

__version__ = "0.1.0"
