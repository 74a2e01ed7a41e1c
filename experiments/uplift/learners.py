"""Learners of who gains: causalml's, over small gradient-boosted trees, all behind one call.

causalml, scikit-learn and LightGBM are imported when a learner is made, never before: they take seconds and 300 MB.
Each learner runs on one thread and starts no process, so that it gives the same numbers wherever it runs.
"""

import importlib
import io
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from experiments.errors import UpturnError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FOREST = "forest"


class MissingPackage(UpturnError):
    """A package that the learners need is not installed."""

    status = 501


def missing(package: str) -> MissingPackage:
    """Return the error about a package that is not installed."""
    detail = f"uplift needs the package {package}, which is not installed: pip install {package}"
    return MissingPackage("missing_package", detail, package=package)


@dataclass(frozen=True, slots=True)
class Rows:
    """What a learner is trained on: ``matrix`` (n, p), ``arm`` (n,), ``outcome`` (n,), ``propensity`` (n, K)."""

    matrix: Floats
    arm: Ints
    outcome: Floats
    propensity: Floats

    def take(self, where: npt.NDArray[np.bool_]) -> "Rows":
        """Return some of the rows."""
        return Rows(self.matrix[where], self.arm[where], self.outcome[where], self.propensity[where])


class Fitted(Protocol):
    """A trained learner."""

    def effects(self, matrix: Floats, propensity: Floats) -> Floats:
        """Return the predicted effect of each variant against the control, (n, K-1)."""
        ...


class Learner(Protocol):
    """Trains on rows; the seed settles all that is random."""

    def __call__(self, rows: Rows, seed: int) -> Fitted: ...


@dataclass(frozen=True, slots=True)
class _Meta:
    model: Any
    takes_propensity: bool = False

    def effects(self, matrix: Floats, propensity: Floats) -> Floats:
        extra = {"p": _shares(propensity)} if self.takes_propensity else {}
        with _quiet():
            return np.asarray(self.model.predict(X=matrix, **extra), dtype=float)


@dataclass(frozen=True, slots=True)
class Arms:
    """The T-learner: one model for each variant, from which both effects and outcomes are read.

    The same as causalml's, which trains the control's model once for every other variant.
    """

    models: Sequence[Any]

    def outcomes(self, matrix: Floats) -> Floats:
        """Return the predicted outcome under each variant, (n, K)."""
        with _quiet():
            return np.column_stack([model.predict(matrix) for model in self.models])

    def effects(self, matrix: Floats, propensity: Floats) -> Floats:
        """Return the differences of the outcomes from that under the control, (n, K-1)."""
        return against_control(self.outcomes(matrix))


def against_control(outcomes: Floats) -> Floats:
    """Return the differences (n, K-1) of outcomes (n, K) from the control's."""
    return outcomes[:, 1:] - outcomes[:, :1]


@dataclass(frozen=True, slots=True)
class _Forest:
    model: Any

    def effects(self, matrix: Floats, propensity: Floats) -> Floats:
        with _quiet():
            return np.asarray(self.model.predict(_filled(matrix)), dtype=float)


def load(learners: Sequence[str]) -> None:
    """Import what the learners need, so that the first of them is not charged for it."""
    _imported("lightgbm")
    if set(learners) - {"t"}:
        _imported("causalml.inference.meta")
    if FOREST in learners:
        _imported("causalml.inference.tree")


def fit_arms(rows: Rows, seed: int) -> Arms:
    """Train the T-learner."""
    models = []
    with _quiet():
        for k in range(rows.propensity.shape[1]):
            here = rows.arm == k
            models.append(_trees(rows, seed).fit(rows.matrix[here], rows.outcome[here]))
    return Arms(models)


def _s(rows: Rows, seed: int) -> Fitted:
    with _quiet():
        model = _imported("causalml.inference.meta").BaseSRegressor(_trees(rows, seed), control_name=0)
        model.fit(X=rows.matrix, treatment=rows.arm, y=rows.outcome)
    return _Meta(model)


def _x(rows: Rows, seed: int) -> Fitted:
    with _quiet():
        model = _imported("causalml.inference.meta").BaseXRegressor(_trees(rows, seed), control_name=0)
        model.fit(X=rows.matrix, treatment=rows.arm, y=rows.outcome, p=_shares(rows.propensity))
    return _Meta(model, takes_propensity=True)


def _r(rows: Rows, seed: int) -> Fitted:
    with _quiet():
        # Its own default would start as many processes as there are cores.
        options = {"control_name": 0, "n_fold": 3, "random_state": seed, "cv_n_jobs": 1}
        model = _imported("causalml.inference.meta").BaseRLearner(_trees(rows, seed), **options)
        model.fit(X=rows.matrix, treatment=rows.arm, y=rows.outcome, p=_shares(rows.propensity), verbose=False)
    return _Meta(model)


def _dr(rows: Rows, seed: int) -> Fitted:
    with _quiet():
        model = _imported("causalml.inference.meta").BaseDRLearner(_trees(rows, seed), control_name=0)
        p = _shares(rows.propensity)
        model.fit(X=rows.matrix, treatment=rows.arm, y=rows.outcome, p=p, seed=seed)
    return _Meta(model)


def _forest(rows: Rows, seed: int) -> Fitted:
    if not np.isin(rows.outcome, (0, 1)).all():
        # causalml would turn any outcome into 0/1 without a word.
        raise ValueError("the uplift forest takes an outcome of 0/1")
    width = len(str(rows.propensity.shape[1]))
    with _quiet():
        model = _imported("causalml.inference.tree").UpliftRandomForestClassifier(
            control_name="0".zfill(width),
            n_estimators=20,
            random_state=seed,
            n_jobs=1,
            max_depth=4,
            min_samples_leaf=200,
        )
        treatment = np.array([str(arm).zfill(width) for arm in rows.arm])
        model.fit(X=_filled(rows.matrix), treatment=treatment, y=rows.outcome.astype(int))
    return _Forest(model)


LEARNERS: Mapping[str, Learner] = {"s": _s, "t": fit_arms, "x": _x, "r": _r, "dr": _dr, FOREST: _forest}
DEFAULT = ("s", "t", "x")


def _trees(rows: Rows, seed: int) -> Any:
    """Small and slow trees: effects are a tenth of what outcomes differ by, and larger trees learn noise."""
    leaf = int(np.clip(rows.arm.size // 250, 20, 500))
    return _imported("lightgbm").LGBMRegressor(
        n_estimators=40,
        num_leaves=8,
        learning_rate=0.06,
        max_bin=63,
        min_child_samples=leaf,
        reg_lambda=10.0,
        n_jobs=1,
        random_state=seed,
        deterministic=True,
        force_row_wise=True,
        verbose=-1,
    )


def _shares(propensity: Floats) -> dict[int, Floats]:
    """The chance of each variant among those who got it or the control, as causalml takes it."""
    control = propensity[:, 0]
    return {k: propensity[:, k] / (propensity[:, k] + control) for k in range(1, propensity.shape[1])}


def _filled(matrix: Floats) -> Floats:
    """Empty cells below all others, where a split can take them apart."""
    lowest = np.nanmin(matrix, axis=0)
    return np.where(np.isnan(matrix), lowest - 1, matrix)


def _imported(name: str) -> Any:
    """Import, keeping to itself what causalml's packages print, warn of and do to the style of all charts."""
    if sys.modules.get(name) is not None:
        return sys.modules[name]
    try:
        style = importlib.import_module("matplotlib").rc_context()
        with style, _quiet(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return importlib.import_module(name)
    except ImportError as error:
        raise missing((error.name or name).split(".")[0]) from None


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
