"""A study's trained model on disk: of the chosen learner those of all folds, whose mean speaks of users not studied.

The first line of the file is its card, which a server reads; the rest loads the packages of the learners.
"""

import hashlib
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from experiments.errors import Conflict, FieldProblem, InvalidDocument
from experiments.report import Struct
from experiments.settings import Settings
from experiments.uplift.answer import Answer
from experiments.uplift.frame import Feature
from experiments.uplift.learners import Fitted, missing

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_PACKAGES = ("causalml", "lightgbm", "scikit-learn", "numpy")


class Known(Struct, frozen=True):
    """A feature as the model learnt it; ``missing``: of how many of the users studied it was not known."""

    name: str
    kind: Literal["number", "flag", "category"]
    labels: tuple[str, ...]
    missing: float


class Card(Struct, frozen=True, kw_only=True):
    """What a model is: which study made it, of which data, and what it asks of users.

    ``variants`` and ``costs`` begin with the control's; ``shares`` are the mean chances in the study. ``packages`` made
    the file, and their versions have to be there to read it.
    """

    study: str
    experiment: str
    metric: str
    watermark: int
    learner: str
    variants: tuple[str, ...]
    costs: tuple[float, ...]
    shares: tuple[float, ...]
    features: tuple[Known, ...]
    alpha: float
    packages: dict[str, str]
    digest: str


@dataclass(frozen=True, slots=True)
class Studied:
    """The users studied, K variants: what a policy is worth on them.

    Attributes:
        effects: (n, K-1) predicted by models that have not seen the user.
        scores: (n, K) doubly robust, before costs.
        untreated: (n,) whether he got the control.
        weight: (n,) one over the chance of the control.
        outcome: (n,) times its value.
    """

    effects: Floats
    scores: Floats
    untreated: npt.NDArray[np.bool_]
    weight: Floats
    outcome: Floats


@dataclass(frozen=True, slots=True)
class Model:
    """A model that was loaded."""

    card: Card
    models: Sequence[Fitted]
    studied: Studied

    def effects(self, features: Mapping[str, Floats]) -> Floats:
        """Return the effect of each variant against the control, (n, K-1): the mean of the folds' models.

        Args:
            features: of each of the card's features the values (n,), as ``Feature`` has them.
        """
        made = [Feature(known.name, known.kind, features[known.name], known.labels) for known in self.card.features]
        matrix = np.column_stack([column for feature in made for column in feature.columns()])
        shares = np.tile(np.array(self.card.shares), (len(matrix), 1))
        total = np.zeros((len(matrix), len(self.card.variants) - 1))
        for each in self.models:
            total += each.effects(matrix, shares)
        return total / len(self.models)


def path(settings: Settings, study: str) -> Path:
    """Return where a study's model is."""
    return settings.folder / "studies" / f"{study}.model"


def save(found: Answer, file: Path, *, study: str, experiment: str, watermark: int) -> None:
    """Write the model of an answer."""
    frame, report = found.frame, found.report
    studied = Studied(
        effects=found.effects,
        scores=found.scores,
        untreated=frame.arm == 0,
        weight=1 / frame.propensity[:, 0],
        outcome=frame.outcome,
    )
    body = pickle.dumps((list(found.models), studied), protocol=pickle.HIGHEST_PROTOCOL)
    card = Card(
        study=study,
        experiment=experiment,
        metric=report.outcome,
        watermark=watermark,
        learner=report.best,
        variants=frame.names,
        costs=tuple(float(cost) for cost in frame.costs),
        shares=tuple(float(share) for share in frame.propensity.mean(axis=0)),
        features=tuple(
            Known(each.name, each.kind, each.labels, float(np.isnan(each.values).mean())) for each in frame.features
        ),
        alpha=report.method.alpha,
        packages=_versions(),
        digest=hashlib.sha256(body).hexdigest(),
    )
    part = file.with_suffix(".model.part")
    part.write_bytes(msgspec.json.encode(card) + b"\n" + body)
    part.replace(file)


def card(file: Path) -> Card:
    """Return the card of a model; raise Conflict, ``no_model`` or ``model_outdated``."""
    return _opened(file, whole=False)[0]


def load(file: Path) -> Model:
    """Return a model, which loads what the learners need.

    Raises:
        Conflict: ``no_model``; ``model_outdated``: made by other versions of the packages, or of the program.
    """
    known, body = _opened(file, whole=True)
    now = _versions()
    others = [f"{name} {made}, here {now[name]}" for name, made in known.packages.items() if now[name] != made]
    if others:
        raise _outdated(f"it was made with {'; '.join(others)}")
    if hashlib.sha256(body).hexdigest() != known.digest:
        raise _outdated("its file was changed or cut")
    # A file of our own folder, as trusted as the program beside it.
    models, studied = pickle.loads(body)  # noqa: S301
    return Model(known, models, studied)


def _opened(file: Path, *, whole: bool) -> tuple[Card, bytes]:
    try:
        with file.open("rb") as opened:
            head, body = opened.readline(), opened.read() if whole else b""
    except FileNotFoundError:
        raise Conflict("no_model", "the study's model is not in the store's folder: ask for the study again") from None
    try:
        return msgspec.json.decode(head, type=Card), body
    except msgspec.DecodeError:
        raise _outdated("its card is of another version of the program") from None


def _outdated(reason: str) -> Conflict:
    return Conflict("model_outdated", f"the study's model cannot be used any more, ask for a new study: {reason}")


def _versions() -> dict[str, str]:
    try:
        return {name: version(name) for name in _PACKAGES}
    except PackageNotFoundError as error:
        raise missing(error.name) from None


def values(feature: Known, known: Sequence[Any]) -> Floats:
    """Return the values (n,) of a feature, as ``Feature`` has them, from what is known of n users.

    None is unknown; of what does not fit the kind (a text for a number) as little is known as of a rare value.
    """
    if feature.kind == "category":
        place = {label: float(code) for code, label in enumerate(feature.labels)}
        return np.array([place.get(_text(value), np.nan) for value in known], dtype=float)
    if feature.kind == "flag":
        flags = (float(value) if isinstance(value, int) and value in (0, 1) else np.nan for value in known)
        return np.fromiter(flags, float, len(known))
    return np.array([_number(value) for value in known], dtype=float)


def _text(value: Any) -> str:
    # As the rows of the study were read: numbers among texts in the words of JSON.
    return value if isinstance(value, str) else "" if value is None else msgspec.json.encode(value).decode()


def _number(value: Any) -> float:
    known = isinstance(value, int | float | Decimal) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else np.nan


def check_columns(card: Card, columns: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return which column is each feature, and the columns that the model does not know.

    Raises:
        InvalidDocument: ``missing_column``, naming all of them.
    """
    found, missing = {}, []
    for feature in card.features:
        # An attribute may go by its own name.
        names = (feature.name, feature.name.removeprefix("user."))
        column = next((name for name in names if name in columns), None)
        if column is None:
            remedy = f"give this column too: the model of the study {card.study!r} asks for it"
            missing.append(FieldProblem(feature.name, None, "missing_column", remedy))
        else:
            found[feature.name] = column
    if missing:
        raise InvalidDocument(missing, "file")
    used = set(found.values())
    return found, [name for name in columns if name not in used]
