"""Analysis of a file or a frame: one row a user, or several with ``unit`` or ``cluster``; no store needed.

It goes the way of the service from the sums on, so the same users give the same figures.
"""

from experiments.files.analysis import analyse, analyse_table
from experiments.files.question import FileMetric, Question

__all__ = ["FileMetric", "Question", "analyse", "analyse_table"]
