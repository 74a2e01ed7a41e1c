"""Conditions of the rule language in words: "recency is at most 3 and city is north"."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from web.formats import Formats
from web.languages import gettext

_ATTRIBUTE = "user."


def feature(name: str) -> str:
    """Return what a feature of a study is called: an attribute by its name, what was done before in words."""
    if name.startswith(_ATTRIBUTE):
        return name.removeprefix(_ATTRIBUTE)
    parts = name.split(".", 2)
    if len(parts) == 3 and parts[0] == "before":
        match parts[1]:
            case "count":
                return gettext("number of “%(event)s” before", event=parts[2])
            case "value":
                return gettext("total of “%(event)s” before", event=parts[2])
            case "recency_days":
                return gettext("days since the last “%(event)s”", event=parts[2])
    return name


def words(condition: Mapping[str, Any] | None, formats: Formats) -> str:
    """Return a condition in words; what it cannot say is shown as the condition itself."""
    return gettext(" and ").join(_parts(condition or {}, formats)) or gettext("everyone")


def _parts(condition: Mapping[str, Any], formats: Formats) -> Iterator[str]:
    for name, operand in condition.items():
        match name:
            case "$and":
                for part in operand:
                    yield from _parts(part, formats)
            case "$or":
                yield gettext("(%(choices)s)", choices=gettext(" or ").join(words(part, formats) for part in operand))
            case "$not":
                yield gettext("not (%(condition)s)", condition=words(operand, formats))
            case "$nor":
                choices = gettext(" or ").join(words(part, formats) for part in operand)
                yield gettext("not (%(condition)s)", condition=choices)
            case _:
                yield from _tests(feature(name), operand, formats)


def _tests(name: str, operand: Any, formats: Formats) -> Iterator[str]:
    if not isinstance(operand, Mapping) or not any(key.startswith("$") for key in operand):
        yield _is(name, operand, formats)
        return
    compared = any(key in operand for key in ("$lt", "$lte", "$gt", "$gte"))
    for operator, value in operand.items():
        # "Known" goes without saying where a number is compared.
        if not (operator == "$ne" and value is None and compared):
            yield _test(name, operator, value, formats)


def _is(name: str, value: Any, formats: Formats) -> str:
    if value is None:
        return gettext("%(name)s is unknown", name=name)
    return gettext("%(name)s is %(value)s", name=name, value=_value(value, formats))


def _test(name: str, operator: str, value: Any, formats: Formats) -> str:
    if operator == "$not":
        tests = gettext(" and ").join(_tests(name, value, formats))
        return gettext("not (%(condition)s)", condition=tests)
    facts = {"name": name, "value": _value(value, formats)}
    match operator:
        case "$eq":
            return _is(name, value, formats)
        case "$ne" if value is None:
            return gettext("%(name)s is known", name=name)
        case "$ne" if isinstance(value, bool):
            return gettext("%(name)s is %(value)s or unknown", name=name, value=_value(not value, formats))
        case "$ne":
            return gettext("%(name)s is not %(value)s", **facts)
        case "$lt" | "$vlt":
            return gettext("%(name)s is below %(value)s", **facts)
        case "$lte" | "$vlte":
            return gettext("%(name)s is at most %(value)s", **facts)
        case "$gt" | "$vgt":
            return gettext("%(name)s is above %(value)s", **facts)
        case "$gte" | "$vgte":
            return gettext("%(name)s is at least %(value)s", **facts)
        case "$in" | "$ini":
            return gettext("%(name)s is one of %(value)s", **facts)
        case "$nin" | "$nini":
            return gettext("%(name)s is none of %(value)s", **facts)
        case "$exists":
            return gettext("%(name)s is known", name=name) if value else gettext("%(name)s is unknown", name=name)
        case "$all" | "$alli":
            return gettext("%(name)s has all of %(value)s", **facts)
        case "$elemMatch" if isinstance(value, Mapping) and set(value) == {"$eq"}:
            return gettext("%(name)s has %(value)s", name=name, value=_value(value["$eq"], formats))
    return f"{name} {operator} {_json(value)}"


def _value(value: Any, formats: Formats) -> str:
    match value:
        case bool():
            return gettext("yes") if value else gettext("no")
        case int() | float():
            return formats.plain(value, 12)
        case str():
            return value
        case list():
            return formats.names(_value(each, formats) for each in value)
    return _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
