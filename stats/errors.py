"""The problems that may stand in a report where a number cannot."""

from enum import StrEnum

__all__ = ["Problem", "StatError"]


class Problem(StrEnum):
    """Why there is no number. A closed list: the sentences live in the translations."""

    NOT_ENOUGH_DATA = "not_enough_data"
    ZERO_VARIANCE = "zero_variance"
    ZERO_DENOMINATOR = "zero_denominator"
    LIFT_NOT_IDENTIFIED = "lift_not_identified"
    NO_CONTROL = "no_control"
    SAMPLE_RATIO_MISMATCH = "sample_ratio_mismatch"
    UNEXPECTED_USERS = "unexpected_users"
    HORIZON_NOT_REACHED = "horizon_not_reached"
    WEAK_INSTRUMENT = "weak_instrument"
    TRIGGER_UNBALANCED = "trigger_unbalanced"
    NO_OPTIMUM = "no_optimum"
    BEFORE_FIRST_LOOK = "before_first_look"
    SHAPE_REJECTED = "shape_rejected"
    TIED = "tied"


class StatError(Exception):
    """The data do not carry the number asked for. Wrong arguments raise ValueError instead.

    `code` says why, `facts` holds what a reader needs to act on it (counts, the index of an arm).
    """

    def __init__(self, code: Problem, **facts: int | float | str) -> None:
        super().__init__(code)
        self.code = code
        self.facts = facts

    def __str__(self) -> str:
        return f"{self.code} {self.facts}" if self.facts else str(self.code)
