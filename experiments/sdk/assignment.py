"""From documents to answers: a snapshot is compiled once, then `assign` only looks up. No I/O, no clock.

A snapshot is decoded JSON: `experiments`, `segments`, `layers`, `holdouts`, `saved_groups`. Fields that are not used
here are ignored, so that an older SDK reads the snapshot of a newer server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from types import MappingProxyType
from typing import Final, TypeVar

from .conditions import attribute_names, compile_condition
from .errors import DocumentError
from .experiment import NO_ATTRIBUTES, Assignment, CompiledExperiment, Reason, Rule, Slice, Stratum
from .hashing import BUCKETS, code_units, fnv1a32
from .shares import allocation, ten_thousandths

__all__ = ["Assignment", "CompiledExperiment", "Evaluator", "Reason", "allocation", "compile_experiment"]

MAX_VARIANTS: Final = 100

_T = TypeVar("_T")


class Evaluator:
    """All experiments of a snapshot, compiled. Raises `DocumentError` when made of a bad snapshot, and never after."""

    def __init__(self, snapshot: Mapping[str, object]) -> None:
        parts = _Parts.of(snapshot)
        documents = _documents(snapshot, "experiments")
        self._experiments = {key: _compile(document, parts) for key, document in documents.items()}
        self.experiments: Mapping[str, CompiledExperiment] = MappingProxyType(self._experiments)

    def assign(self, experiment_key: str, user_id: str, attributes: Mapping[str, object] = NO_ATTRIBUTES) -> Assignment:
        """Return the assignment of a user in one experiment (see `CompiledExperiment.assign`)."""
        try:
            experiment = self._experiments[experiment_key]
        except (KeyError, TypeError):
            key = experiment_key if isinstance(experiment_key, str) else ""
            return Assignment(key, None, None, Reason.unknown_experiment, None, 0, 0)
        return experiment.assign(user_id, attributes)

    def assign_all(self, user_id: str, attributes: Mapping[str, object] = NO_ATTRIBUTES) -> dict[str, Assignment]:
        """Return the assignment of a user in every experiment, by the experiment's key."""
        return {key: experiment.assign(user_id, attributes) for key, experiment in self._experiments.items()}


def compile_experiment(
    document: Mapping[str, object], snapshot: Mapping[str, object] = NO_ATTRIBUTES
) -> CompiledExperiment:
    """Compile one experiment document; `snapshot` holds the segments, layers, holdouts and saved groups it names.

    Raises `DocumentError` where a field that assignment relies on is missing or cannot be used.
    """
    return _compile(document, _Parts.of(snapshot))


@dataclass(frozen=True, slots=True)
class _Parts:
    """What experiments share, by key."""

    segments: Mapping[str, Rule]
    layer_salts: Mapping[str, str]
    holdouts: Mapping[str, Slice]
    saved_groups: Mapping[str, Sequence[object]]

    @classmethod
    def of(cls, snapshot: Mapping[str, object]) -> _Parts:
        written = _object(snapshot.get("saved_groups") or {}, "saved_groups")
        groups = {name: _array(written, name, "saved_groups") for name in written}
        segments = _documents(snapshot, "segments")
        layers = _documents(snapshot, "layers")
        holdouts = _documents(snapshot, "holdouts")
        return cls(
            {key: _rule(part.get("condition"), groups, f"segments.{key}.condition") for key, part in segments.items()},
            {key: _text(part, "salt", f"layers.{key}") for key, part in layers.items()},
            {key: _holdout(part, f"holdouts.{key}") for key, part in holdouts.items()},
            groups,
        )


def _compile(document: Mapping[str, object], parts: _Parts) -> CompiledExperiment:
    key = _text(document, "key", "experiment")
    path = f"experiments.{key}"
    revision, phase = _integer(document, "revision", path), _integer(document, "phase", path)
    salt = _text(document, "salt", path)
    tactics = _tactics(document.get("variants"), f"{path}.variants")
    variants = tuple(tactics)
    values = _values(document, tactics)

    def answer(reason: Reason, variant: str | None = None, stratum: str | None = None) -> Assignment:
        tactic = tactics[variant] if variant is not None else None
        value = values[variant] if variant is not None else None
        return Assignment(key, variant, tactic, reason, stratum, phase, revision, value)

    def stratum(where: str, rule: Rule | None = None, part: Mapping[str, object] = NO_ATTRIBUTES) -> Stratum:
        weights = _inherited(part.get("weights"), document.get("weights"))
        coverage = _inherited(part.get("coverage"), document.get("coverage"), 1.0)
        ranges = _ranges(weights, coverage, variants, where)
        segment = None if rule is None else _text(part, "segment", where)
        return allocated(segment, rule, ranges, answer(Reason.not_covered, None, segment))

    def wave(number: int, ranges: tuple[tuple[int, int], ...]) -> Stratum:
        return allocated(f"{key}:{number}", None, ranges, answer(Reason.not_covered))

    def allocated(
        segment: str | None, rule: Rule | None, ranges: tuple[tuple[int, int], ...], uncovered: Assignment
    ) -> Stratum:
        arms = [answer(Reason.assigned, variant, segment) for variant in variants]
        # Between two bounds the answer is constant: an arm inside its range, nobody behind it.
        bounds = tuple(bound for range_ in ranges for bound in range_)
        answers = (uncovered, *(one for arm in arms for one in (arm, uncovered)))
        return Stratum(segment, rule, ranges, bounds, answers)

    def written_stratum(i: int, part: Mapping[str, object]) -> Stratum:
        where = f"{path}.strata.{i}"
        return stratum(where, _named(parts.segments, part.get("segment"), f"{where}.segment"), part)

    written = [_object(part, f"{path}.strata.{i}") for i, part in enumerate(_array(document, "strata", path))]
    waves = tuple(wave(number, ranges) for number, ranges in enumerate(_waves(document, variants, path), 1))
    if waves:
        # One look-up for all of them: in the order of the buckets, and nobody behind the last one.
        after = tuple(one for part in waves for one in part.answers[1:])
        bounds = tuple(bound for part in waves for bound in part.bounds)
        strata: tuple[Stratum, ...] = (Stratum(None, None, (), bounds, (answer(Reason.not_covered), *after)),)
    else:
        strata = tuple(written_stratum(i, part) for i, part in enumerate(written)) or (stratum(path),)
    audience = document.get("audience")
    rule = None if audience is None else _rule(audience, parts.saved_groups, f"{path}.audience")
    holdouts = tuple(
        _named(parts.holdouts, name, f"{path}.holdouts.{i}")
        for i, name in enumerate(_array(document, "holdouts", path))
    )
    layer = _layer(document.get("layer"), parts.layer_salts, f"{path}.layer")
    rules = [rule for rule in (rule, *(stratum.rule for stratum in strata)) if rule is not None]
    plain = strata[0] if not (rules or holdouts or layer) else None
    forced = _object(document.get("forced") or {}, f"{path}.forced")
    return CompiledExperiment(
        key=key,
        revision=revision,
        phase=phase,
        running=document.get("status") == "running",
        salt=salt,
        control=_choice(document.get("control"), variants, f"{path}.control"),
        variants=variants,
        values=values,
        audience=rule,
        holdouts=holdouts,
        layer=layer,
        strata=strata,
        forced={
            user: answer(Reason.forced, _choice(variant, variants, f"{path}.forced.{user}"))
            for user, variant in forced.items()
        },
        saved_groups=parts.saved_groups,
        reads=frozenset().union(*(attribute_names(rule.condition) for rule in rules)),
        _sticky={variant: answer(Reason.sticky, variant) for variant in variants},
        _refusals={reason: answer(reason) for reason in Reason},
        _state=fnv1a32(code_units(salt)),
        _plain=plain,
        sticky=document.get("sticky") is not False,
        waves=waves,
    )


def _rule(condition: object, groups: Mapping[str, Sequence[object]], path: str) -> Rule:
    written = _object(condition, path)
    return Rule(written, compile_condition(written, groups, path=path))


def _slice(salt: str, start: int, end: int) -> Slice:
    return Slice(salt, start, end, fnv1a32(code_units(salt)))


def _holdout(part: Mapping[str, object], path: str) -> Slice:
    return _slice(_text(part, "salt", path), 0, ten_thousandths(part.get("share"), f"{path}.share"))


def _layer(written: object, salts: Mapping[str, str], path: str) -> Slice | None:
    if written is None:
        return None
    part = _object(written, path)
    salt = _named(salts, part.get("key"), f"{path}.key")
    start, end = (ten_thousandths(part.get(side), f"{path}.{side}") for side in ("start", "end"))
    return _slice(salt, start, end)


def _tactics(written: object, path: str) -> dict[str, Mapping[str, object] | None]:
    """Return the tactic of each variant, in order."""
    tactics: dict[str, Mapping[str, object] | None] = {}
    if not isinstance(written, list | tuple) or not 1 <= len(written) <= MAX_VARIANTS:
        raise DocumentError(path, written, f"give an array of 1 to {MAX_VARIANTS} variants")
    for i, item in enumerate(written):
        part = _object(item, f"{path}.{i}")
        key, tactic = _text(part, "key", f"{path}.{i}"), part.get("tactic")
        if key in tactics:
            raise DocumentError(f"{path}.{i}.key", key, "give each variant a key of its own")
        tactics[key] = None if tactic is None else MappingProxyType(dict(_object(tactic, f"{path}.{i}.tactic")))
    return tactics


def _values(document: Mapping[str, object], tactics: Mapping[str, Mapping[str, object] | None]) -> dict[str, object]:
    """Return what each variant gives as a feature flag: its `value`, else its tactic, else its key.

    One experiment gives one type: values where any variant has one, tactics (without what they leave open, so `{}` for
    a variant without one) where any has one.
    """
    values: dict[str, object] = {
        part["key"]: part.get("value")
        for part in document["variants"]  # type: ignore[attr-defined]
    }
    if any(value is not None for value in values.values()):
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values())
        if numbers and any(isinstance(value, float) for value in values.values()):
            return {key: float(value) for key, value in values.items()}  # type: ignore[arg-type]
        return values
    if any(tactic is not None for tactic in tactics.values()):
        return {
            key: {name: part for name, part in (tactic or {}).items() if part is not None}
            for key, tactic in tactics.items()
        }
    return {key: key for key in values}


def _ranges(weights: object, coverage: object, variants: Sequence[str], path: str) -> tuple[tuple[int, int], ...]:
    shares: list[float] | int = len(variants)
    if weights is not None:
        named = _object(weights, f"{path}.weights")
        if named.keys() != set(variants):
            raise DocumentError(f"{path}.weights", weights, f"give one weight for each of {', '.join(variants)}")
        shares = [named[variant] for variant in variants]  # type: ignore[misc]  # allocation checks them
    try:
        return allocation(shares, coverage)  # type: ignore[arg-type]
    except DocumentError as error:
        raise DocumentError(f"{path}.{error.path}", error.value, error.remedy) from None


def _waves(document: Mapping[str, object], variants: Sequence[str], path: str) -> Iterator[tuple[tuple[int, int], ...]]:
    """The ranges of each wave, which begins where the one before ends; in it, arms follow in their order."""
    start = 0
    for i, item in enumerate(_array(document, "waves", path)):
        where = f"{path}.waves.{i}.widths"
        widths = _object(_object(item, f"{path}.waves.{i}").get("widths"), where)
        if widths.keys() != set(variants):
            raise DocumentError(where, widths, f"give one width for each of {', '.join(variants)}")
        ends = tuple(
            accumulate((ten_thousandths(widths[variant], f"{where}.{variant}") for variant in variants), initial=start)
        )
        start = ends[-1]
        if start > BUCKETS:
            raise DocumentError(where, widths, "give widths that sum to 1 at most over all waves")
        yield tuple(pairwise(ends))


# Fields.


def _documents(snapshot: Mapping[str, object], name: str) -> dict[str, Mapping[str, object]]:
    documents: dict[str, Mapping[str, object]] = {}
    for i, item in enumerate(_array(snapshot, name, "snapshot")):
        document = _object(item, f"{name}.{i}")
        key = _text(document, "key", f"{name}.{i}")
        if key in documents:
            raise DocumentError(f"{name}.{i}.key", key, "give each document a key of its own")
        documents[key] = document
    return documents


def _inherited(*values: object) -> object:
    return next((value for value in values if value is not None), None)


def _object(value: object, path: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise DocumentError(path, value, "give an object")
    return value


def _array(document: Mapping[str, object], name: str, path: str) -> Sequence[object]:
    value = document.get(name)
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise DocumentError(f"{path}.{name}", value, "give an array")
    return value


def _text(document: Mapping[str, object], name: str, path: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value:
        raise DocumentError(f"{path}.{name}", value, "give a text that is not empty")
    return value


def _integer(document: Mapping[str, object], name: str, path: str) -> int:
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DocumentError(f"{path}.{name}", value, "give a whole number")
    return value


def _choice(value: object, choices: Sequence[str], path: str) -> str:
    if not isinstance(value, str) or value not in choices:
        raise DocumentError(path, value, f"name one of {', '.join(choices)}")
    return value


def _named(parts: Mapping[str, _T], name: object, path: str) -> _T:
    if not isinstance(name, str) or name not in parts:
        raise DocumentError(path, name, f"name one of those in the snapshot: {', '.join(parts) or 'none'}")
    return parts[name]
