"""The rule language of audiences and segments: GrowthBook's Mongo-style conditions, compiled once to closures.

Meaning follows the GrowthBook SDKs, whose values are JSON: types are never converted, `true` is not 1, a missing
attribute equals null. What they pass over in silence (an unknown operator, a bad pattern, an operand of the wrong type)
is refused here when the condition is compiled. `docs/assignment.md` lists every operator.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from .errors import DocumentError

__all__ = ["MAX_DEPTH", "Condition", "attribute_names", "compile_condition"]

Condition: TypeAlias = Callable[[Mapping[str, object]], bool]
SavedGroups: TypeAlias = Mapping[str, Sequence[object]]
_Test: TypeAlias = Callable[[object], bool]
_Order: TypeAlias = Callable[[Any, Any], bool]
_Builder: TypeAlias = Callable[[object, "_At"], _Test]

MAX_DEPTH: Final = 100  # far below the interpreter's recursion limit, so that evaluating cannot hit it

_NO_GROUPS: Final[SavedGroups] = MappingProxyType({})
_COMBINERS: Final = frozenset({"$and", "$or", "$nor"})


def compile_condition(
    condition: Mapping[str, object], saved_groups: SavedGroups = _NO_GROUPS, *, path: str = "condition"
) -> Condition:
    """Compile a condition to a function from a user's attributes to whether they match.

    `saved_groups` maps a group id to its values, for `$inGroup` and `$notInGroup`; an unknown group is empty. `path`
    names the condition in errors. The function never raises: attributes of an unexpected type do not match. Raises
    `DocumentError` with the path, the value and a remedy where the condition is malformed.
    """
    test = _object_test(condition, _At(path, saved_groups))

    def matches(attributes: Mapping[str, object]) -> bool:
        if not isinstance(attributes, dict):
            attributes = dict(attributes) if isinstance(attributes, Mapping) else {}
        return test(attributes)

    return matches


def attribute_names(condition: Mapping[str, object]) -> frozenset[str]:
    """Return the top-level attributes that a well-formed condition reads."""
    names: set[str] = set()
    for key, operand in condition.items():
        if key == "$not":
            names |= attribute_names(operand)  # type: ignore[arg-type]
        elif key in _COMBINERS:
            names.update(*map(attribute_names, operand))  # type: ignore[call-overload]
        else:
            names.add(key.split(".", 1)[0])
    return frozenset(names)


@dataclass(frozen=True, slots=True)
class _At:
    """A place in the condition that is being compiled."""

    path: str
    groups: SavedGroups
    depth: int = 0

    def down(self, key: str | int) -> _At:
        if self.depth == MAX_DEPTH:
            raise DocumentError(self.path, key, f"nest conditions at most {MAX_DEPTH} deep")
        return replace(self, path=f"{self.path}.{key}", depth=self.depth + 1)

    def refuse(self, value: object, remedy: str) -> DocumentError:
        return DocumentError(self.path, value, remedy)


# Conditions on an object: fields joined by "and", and the combiners.


def _object_test(condition: object, at: _At) -> _Test:
    tests: list[_Test] = []
    for key, operand in _fields(condition, at).items():
        below = at.down(key)
        if key in _COMBINERS:
            parts = [_object_test(part, below.down(i)) for i, part in enumerate(_items(operand, below))]
            tests.append(_COMBINED[key](parts))
        elif key == "$not":
            tests.append(_negated(_object_test(operand, below)))
        elif key.startswith("$"):
            raise below.refuse(operand, "use $and, $or, $nor, $not or the name of an attribute here")
        else:
            tests.append(_field_test(key, _value_test(operand, below)))
    return _every(tests)


def _field_test(path: str, test: _Test) -> _Test:
    first, *rest = path.split(".")

    def matches(value: object) -> bool:
        value = value.get(first) if isinstance(value, dict) else _step(value, first)
        for name in rest:
            value = _step(value, name)
        return test(value)

    return matches


def _step(value: object, name: str) -> object:
    if isinstance(value, Mapping):
        return value.get(name)
    if isinstance(value, list | tuple):
        if name == "length":
            return len(value)
        if _is_index(name) and int(name) < len(value):
            return value[int(name)]
    return None


def _is_index(name: str) -> bool:
    # Ten digits hold every array index of JavaScript.
    return name.isascii() and name.isdigit() and len(name) <= 10 and (name == "0" or name[0] != "0")


def _every(tests: Sequence[_Test]) -> _Test:
    if len(tests) == 1:
        return tests[0]

    def matches(value: object) -> bool:
        for test in tests:  # noqa: SIM110 - a generator costs twice as much here
            if not test(value):
                return False
        return True

    return matches


def _any(tests: Sequence[_Test]) -> _Test:
    # An empty $or matches everybody, as in the GrowthBook SDKs.
    return lambda value: not tests or any(test(value) for test in tests)


def _negated(test: _Test) -> _Test:
    return lambda value: not test(value)


_COMBINED: Final[Mapping[str, Callable[[Sequence[_Test]], _Test]]] = {
    "$and": _every,
    "$or": _any,
    "$nor": lambda tests: _negated(_any(tests)),
}


# Conditions on a value: operators joined by "and", or a literal that must be equal.


def _value_test(operand: object, at: _At) -> _Test:
    if not isinstance(operand, Mapping):
        return _equals(_literal(operand, at))
    names = _fields(operand, at)
    operators = [name for name in names if name.startswith("$")]
    if len(operators) < len(names):
        if operators:
            raise at.refuse(operand, "do not mix operators with the fields of an object")
        return _equals(_literal(operand, at))
    return _every([_operator_test(name, names[name], at.down(name)) for name in operators])


def _operator_test(name: str, operand: object, at: _At) -> _Test:
    build = _OPERATORS.get(name)
    if build is None:
        raise at.refuse(operand, f"use one of {', '.join(sorted(_OPERATORS))}")
    return build(operand, at)


def _equals(literal: object) -> _Test:
    if isinstance(literal, str):
        return lambda value: isinstance(value, str) and value == literal
    if _is_number(literal):
        return lambda value: _is_number(value) and value == literal
    return lambda value: _same(value, literal)


def _same(a: object, b: object) -> bool:
    """Equality of JSON texts, as the JavaScript SDK compares: fields count in their order."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return _ordered_keys(a) == _ordered_keys(b) and all(_same(a[key], b[key]) for key in a)
    return _type(a) == _type(b) and a == b


def _ordered_keys(value: Mapping[object, object]) -> list[object]:
    """Keys in JavaScript's order: array indices ascending, then the others as written."""
    indices = [key for key in value if isinstance(key, str) and _is_index(key) and int(key) < 2**32 - 1]
    named = [key for key in value if key not in set(indices)] if indices else list(value)
    return [*sorted(indices, key=int), *named]


def _strictly_equals(operand: object, at: _At) -> _Test:
    # JavaScript's === compares containers by identity, so none is ever equal to one in a rule.
    if isinstance(_literal(operand, at), Mapping | list | tuple):
        return lambda value: False
    return _equals(operand)


def _compares(order: _Order) -> _Builder:
    def build(operand: object, at: _At) -> _Test:
        if isinstance(operand, str):
            bound = _utf16(operand)
            return lambda value: isinstance(value, str) and order(_utf16(value), bound)
        number = _number_or_text(operand, at)
        return lambda value: _is_number(value) and order(value, number)

    return build


def _utf16(text: str) -> bytes:
    # JavaScript orders texts by UTF-16 code units.
    return text.encode("utf-16-be", "surrogatepass")


def _compares_versions(order: _Order) -> _Builder:
    def build(operand: object, at: _At) -> _Test:
        bound = _padded_version(_number_or_text(operand, at))
        if isinstance(operand, str):
            return lambda value: isinstance(value, str) and order(_padded_version(value), bound)
        return lambda value: _is_number(value) and order(_padded_version(value), bound)

    return build


def _padded_version(version: object) -> str:
    """A version as a text that sorts: `v1.2.3-rc.1+build` becomes its parts, numbers padded to five places.

    A full version without a pre-release gets a part that sorts after every pre-release.
    """
    if isinstance(version, int) and version.bit_length() > 1024:
        version = inf  # as in JavaScript, whose numbers are doubles; str refuses much longer ones
    elif isinstance(version, float) and version.is_integer():
        version = int(version)
    text = str(version) or "0"
    parts = re.split(r"[-.]", text.removeprefix("v").partition("+")[0])
    if len(parts) == 3:
        parts.append("~")
    return "-".join(part.rjust(5) if part.isascii() and part.isdigit() else part for part in parts)


def _finds(flags: re.RegexFlag) -> _Builder:
    def build(operand: object, at: _At) -> _Test:
        if not isinstance(operand, str):
            raise at.refuse(operand, "give a regular expression as a text")
        try:
            search = re.compile(operand, flags).search
        except (re.error, OverflowError, RecursionError) as error:
            raise at.refuse(operand, f"give a regular expression that Python can read ({error})") from None
        return lambda value: isinstance(value, str) and search(value) is not None

    return build


def _among(values: Iterable[object], fold: Callable[[object], object]) -> _Test:
    """Whether a scalar, or any element of an array, is one of the scalars in `values`."""
    members = frozenset(fold(value) for value in values) - {_NOT_A_SCALAR}

    def matches(value: object) -> bool:
        if isinstance(value, list | tuple):
            return any(fold(element) in members for element in value)
        return fold(value) in members

    return matches


# Stand-ins that keep true apart from 1, and containers apart from everything, in a set.
_TRUE, _FALSE, _NOT_A_SCALAR = object(), object(), object()


def _exact(value: object) -> object:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    return value if isinstance(value, int | float) else _NOT_A_SCALAR


def _lowered(value: object) -> object:
    return value.lower() if isinstance(value, str) else _exact(value)


def _is_in(fold: Callable[[object], object]) -> _Builder:
    return lambda operand, at: _among(_literals(operand, at), fold)


def _in_group(operand: object, at: _At) -> _Test:
    if not isinstance(operand, str):
        raise at.refuse(operand, "give the id of a saved group")
    return _among(_literals(at.groups.get(operand, ()), replace(at, path=f"saved_groups.{operand}")), _exact)


def _contains_all(*, lower: bool) -> _Builder:
    def item_test(item: object, at: _At) -> _Test:
        if lower and isinstance(item, str):
            wanted = item.lower()
            return lambda value: isinstance(value, str) and value.lower() == wanted
        return _value_test(item, at)

    def build(operand: object, at: _At) -> _Test:
        tests = [item_test(item, at.down(i)) for i, item in enumerate(_items(operand, at))]
        return lambda value: isinstance(value, list | tuple) and all(any(map(test, value)) for test in tests)

    return build


def _has_element(operand: object, at: _At) -> _Test:
    names = _fields(operand, at)
    on_value = all(name.startswith("$") for name in names) and not names.keys() & _COMBINERS
    test = _value_test(operand, at) if on_value else _object_test(operand, at)
    return lambda value: (
        isinstance(value, list | tuple) and any(element is not None and test(element) for element in value)
    )


def _has_size(operand: object, at: _At) -> _Test:
    if not isinstance(operand, Mapping) and not _is_number(operand):
        raise at.refuse(operand, "give a number, or operators for the number")
    test = _value_test(operand, at)
    return lambda value: isinstance(value, list | tuple) and test(len(value))


def _exists(operand: object, at: _At) -> _Test:
    if not isinstance(operand, bool):
        raise at.refuse(operand, "give true or false")
    return lambda value: (value is not None) is operand


def _has_type(operand: object, at: _At) -> _Test:
    if operand not in _TYPES:
        raise at.refuse(operand, f"use one of {', '.join(_TYPES)}")
    return lambda value: _type(value) == operand


def _not(build: _Builder) -> _Builder:
    return lambda operand, at: _negated(build(operand, at))


_OPERATORS: Final[Mapping[str, _Builder]] = {
    "$eq": _strictly_equals,
    "$ne": _not(_strictly_equals),
    "$lt": _compares(operator.lt),
    "$lte": _compares(operator.le),
    "$gt": _compares(operator.gt),
    "$gte": _compares(operator.ge),
    "$veq": _compares_versions(operator.eq),
    "$vne": _not(_compares_versions(operator.eq)),
    "$vlt": _compares_versions(operator.lt),
    "$vlte": _compares_versions(operator.le),
    "$vgt": _compares_versions(operator.gt),
    "$vgte": _compares_versions(operator.ge),
    "$in": _is_in(_exact),
    "$nin": _not(_is_in(_exact)),
    "$ini": _is_in(_lowered),
    "$nini": _not(_is_in(_lowered)),
    "$inGroup": _in_group,
    "$notInGroup": _not(_in_group),
    "$regex": _finds(re.NOFLAG),
    "$notRegex": _not(_finds(re.NOFLAG)),
    "$regexi": _finds(re.IGNORECASE),
    "$notRegexi": _not(_finds(re.IGNORECASE)),
    "$all": _contains_all(lower=False),
    "$alli": _contains_all(lower=True),
    "$elemMatch": _has_element,
    "$size": _has_size,
    "$exists": _exists,
    "$type": _has_type,
    "$not": _not(_value_test),
}


# JSON values.

_TYPES: Final = ("null", "boolean", "number", "string", "array", "object")


def _type(value: object) -> str | None:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list | tuple):
        return "array"
    return "object" if isinstance(value, Mapping) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number_or_text(operand: object, at: _At) -> object:
    if not isinstance(operand, str) and not _is_number(operand):
        raise at.refuse(operand, "give a number or a text")
    return _literal(operand, at)


def _literals(operand: object, at: _At) -> Sequence[object]:
    # Most are texts, and a saved group may hold very many: those need no place of their own.
    return [item if isinstance(item, str) else _literal(item, at.down(i)) for i, item in enumerate(_items(operand, at))]


def _literal(value: object, at: _At) -> object:
    """Return the value, once it is known to be JSON all the way down."""
    if isinstance(value, Mapping):
        for key, item in _fields(value, at).items():
            _literal(item, at.down(key))
    elif isinstance(value, list | tuple):
        _literals(value, at)
    elif _type(value) is None or (isinstance(value, float) and not isfinite(value)):
        raise at.refuse(value, "give a JSON value: null, true, false, a finite number, a text, an array or an object")
    return value


def _items(operand: object, at: _At) -> Sequence[object]:
    if not isinstance(operand, list | tuple):
        raise at.refuse(operand, "give an array")
    return operand


def _fields(operand: object, at: _At) -> Mapping[str, object]:
    if not isinstance(operand, Mapping) or not all(isinstance(key, str) for key in operand):
        raise at.refuse(operand, "give an object")
    return operand
