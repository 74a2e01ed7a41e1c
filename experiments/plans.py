"""The plan of an experiment: how its answer will be read, fixed before the start."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from experiments.fields import Document

# Looks closer than this spend next to nothing, and the bounds become numerically delicate.
APART = 0.01


def apart(looks: Sequence[float]) -> bool:
    """Whether these shares rise, far enough apart."""
    return all(b - a >= APART - 1e-9 for a, b in pairwise([0.0, *looks]))


class Spending(Document):
    """How a group-sequential plan spends its error rate over the looks.

    ``hwang_shih_decani`` and ``power`` take a ``parameter``.
    """

    name: Literal["obrien_fleming", "pocock", "hwang_shih_decani", "power"] = "obrien_fleming"
    # Steeper, it spends all at one look, and nothing that a double can hold at the others.
    parameter: float | None = Field(default=None, ge=-20, le=20)

    def _inconsistencies(self) -> Iterator[tuple[str, str]]:
        takes = self.name in ("hwang_shih_decani", "power")
        if takes != (self.parameter is not None):
            yield "parameter", f"give {self.name} its parameter" if takes else f"leave it out: {self.name} has none"
        elif self.parameter is not None and (self.parameter == 0 or (self.name == "power" and self.parameter < 0)):
            yield "parameter", "give a positive number" if self.name == "power" else "give a number other than 0"


class Prior(Document):
    """What is believed of a lift before the data: normal, ``mean`` and ``sd`` as shares of the control (0.1 = 10 %)."""

    mean: float = 0.0
    sd: float = Field(gt=0)


class Plan(Document):
    """How the answer will be read, fixed before the start.

    ``planned_users`` counts users over all variants. ``sequential`` may be read at any time and is sharpest at that
    size; ``fixed`` is read once, there; ``group_sequential`` at the ``looks``, shares of that size, spending alpha by
    ``spending``, and giving up where the effect planned for has become unlikely: ``futility`` is the chance of missing
    it that may be spent on that; ``bayes`` gives posteriors under the ``prior`` (flat if none is given), uncorrected.
    ``comparisons``: every variant with the control, or all pairs.
    """

    planned_users: int = Field(ge=2)
    method: Literal["sequential", "fixed", "group_sequential", "bayes"] = "sequential"
    alpha: float = Field(default=0.05, ge=1e-6, lt=0.5)
    correction: Literal["holm", "bh", "none"] = "holm"
    comparisons: Literal["control", "all_pairs"] = "control"
    looks: list[Annotated[float, Field(gt=0, le=1)]] | None = Field(default=None, min_length=1, max_length=50)
    spending: Spending | None = None
    futility: float | None = Field(default=None, gt=0, le=0.5)
    prior: Prior | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_method(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        if given.get("method") == "bayes":
            return {"correction": "none"} | given
        if given.get("method") == "group_sequential" and given.get("spending") is None:
            return given | {"spending": {"name": "obrien_fleming"}}
        return given

    def _inconsistencies(self) -> Iterator[tuple[str, str]]:
        """Mixing two ways of reading voids both: each is refused with the reason."""
        if self.method == "bayes" and self.correction != "none":
            yield "correction", "set it to none: posteriors have no p values to correct"
        if self.prior is not None and self.method != "bayes":
            yield "prior", f"leave it out: only bayes has a prior, and {self.method} keeps its error rate without one"
        if self.method == "group_sequential":
            looks = self.looks or []
            if not looks or looks[-1] != 1 or not apart(looks):
                remedy = f"give shares of the planned users, {APART} or more apart, the last 1, such as [0.25, 0.5, 1]"
                yield "looks", remedy
        else:
            if self.looks is not None:
                yield "looks", f"leave them out: {self.method} plans none; group_sequential does"
            if self.futility is not None:
                yield "futility", f"leave it out: {self.method} has no looks at which to give up; group_sequential has"
            if self.spending is not None:
                yield "spending", f"leave it out: {self.method} spends no error rate by looks; group_sequential does"
