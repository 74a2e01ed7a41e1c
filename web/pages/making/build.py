"""From what was typed to the document, with the metrics and segments that it needs, and all that is wrong."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from experiments import presets
from experiments.documents import Experiment, Kind, parse
from experiments.errors import InvalidDocument
from experiments.fields import Role
from experiments.metrics import ConversionMetric, MeanMetric, RetentionMetric
from experiments.waves import Adaptive
from web.drafts import Fields
from web.languages import gettext
from web.pages.making import words
from web.pages.making.form import NEW, OPERATORS, Known, Reader, Trouble, arms, one, roles_of, step_of

_SHARES: Final = ("conversion", "retention", "funnel")


@dataclass(slots=True)
class Built:
    """The document that a form gives, the metrics and segments that come with it, and what is wrong."""

    document: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    segments: list[dict[str, Any]] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    experiment: Experiment | None = None


def build(fields: Fields, base: Mapping[str, Any] | None, known: Known, planned: int | None) -> Built:
    """Make the document.

    Args:
        fields: what was typed.
        base: the document that is changed.
        known: what the store has.
        planned: the number of users that the planner proposes.
    """
    reader, built = Reader(fields), Built()
    document: dict[str, Any] = dict(base or {})
    built.document = document
    document["name"] = one(fields, "name")[:200]
    if not document["name"]:
        reader.trouble("name", gettext("Give the experiment a name."))
    document["hypothesis"] = one(fields, "hypothesis")
    document["owner"] = one(fields, "owner")[:200]
    tags = one(fields, "tags").replace("，", ",").replace("、", ",").split(",")
    document["tags"] = list(dict.fromkeys(tag.strip()[:200] for tag in tags if tag.strip()))
    document["key"] = _key(reader, base, known)
    audience(reader, document, built, known)
    _variants(reader, document)
    _metrics(reader, document, built, known)
    _plan(reader, document, planned)
    _adaptive(reader, document, built, known)
    start, stop = reader.moment("start_at", known.zone), reader.moment("stop_at", known.zone)
    document["schedule"] = {"start_at": start, "stop_at": stop} if start or stop else None
    built.troubles = reader.troubles
    if not built.troubles:
        _parse(built)
    return built


def _parse(built: Built) -> None:
    """What the form's own checks let through, the document's own rules may still refuse."""
    for kind, documents in (
        (Kind.segment, built.segments),
        (Kind.metric, built.metrics),
        (Kind.experiment, [built.document]),
    ):
        for document in documents:
            try:
                made = parse(kind, document)
            except InvalidDocument as error:
                for problem in error.problems:
                    found = next((_FIELD[part] for part in _parts(problem.field) if part in _FIELD), "key")
                    name = "start_at" if problem.field.startswith("schedule") else found
                    text = gettext("In the document, %(field)s: %(remedy)s", field=problem.field, remedy=problem.remedy)
                    if problem.field == "schedule.stop_at":
                        name, text = "stop_at", gettext("Let it stop after the start.")
                    built.troubles.append(Trouble(name, step_of(name), text))
            else:
                built.experiment = made if kind is Kind.experiment else None


_FIELD: Final = {
    "audience": "condition",
    "weights": "v0_weight",
    "variants": "v0_name",
    "coverage": "coverage",
    "event": "m_event",
    "metrics": "primary",
    "plan": "planned",
    "plan.method": "method",
    "layer": "layer",
    "strata": "segments",
    "adaptive": "adaptive",
    "adaptive.floor": "a_floor",
    "adaptive.wave": "a_wave",
    "adaptive.every_hours": "a_hours",
}


def _parts(field: str) -> Iterator[str]:
    """A field, and what it is a part of."""
    while field:
        yield field
        field = field.rpartition(".")[0]


def _key(reader: Reader, base: Mapping[str, Any] | None, known: Known) -> str:
    if base:
        return str(base["key"])
    typed = one(reader.fields, "key")
    taken = known.taken | {"new"}
    if not typed:
        return presets.free_key(
            presets.key_of(one(reader.fields, "name"), one(reader.fields, "fallback", "experiment")), taken.__contains__
        )
    if typed in taken:
        free = presets.free_key(typed, taken.__contains__)
        reader.trouble("key", gettext("“%(key)s” is taken; “%(free)s” is free.", key=typed, free=free))
    elif presets.key_of(typed, "") == "" or not all(c.isascii() and (c.isalnum() or c in "._-") for c in typed):
        reader.trouble("key", gettext("Use letters, digits, dot, dash or underscore, 64 at most."))
    return typed


def audience(reader: Reader, document: dict[str, Any], built: Built, known: Known) -> None:
    """Fill in who takes part."""
    fields = reader.fields
    coverage = reader.number("coverage", 0, 100, scale=0.01)
    document["coverage"] = 1.0 if coverage is None else round(coverage, 4)
    text = one(fields, "condition")
    try:
        document["audience"] = json.loads(text) if text else None
    except ValueError:
        document["audience"] = None
        reader.trouble(
            "condition", gettext("This is not JSON. A rule looks like {“city”: “Shanghai”}, with plain quotes.")
        )
    document["holdouts"] = [key for key in fields.get("holdouts", []) if key]
    layer = one(fields, "layer")
    document["layer"] = None
    if layer:
        start, end = (reader.number(name, 0, 100, scale=0.01) for name in ("layer_start", "layer_end"))
        document["layer"] = {"key": layer, "start": start or 0.0, "end": 1.0 if end is None else end}
        if document["layer"]["start"] >= document["layer"]["end"]:
            reader.trouble("layer_start", gettext("Let the range begin below its end."))
    chosen = [key for key in fields.get("segments", []) if key] if one(fields, "who") == "segments" else []
    made = _new_segment(reader, known) if one(fields, "who") == "segments" else None
    if made is not None:
        built.segments.append(made)
        chosen.append(made["key"])
    for key in chosen:
        if key in presets.SEGMENTS and key not in known.segments:
            built.segments.append({"key": key, "name": str(words.SEGMENTS[key]), **presets.SEGMENTS[key]})
    if one(fields, "who") == "segments" and not chosen:
        reader.trouble("segments", gettext("Tick a segment, describe a new one, or choose everyone."))
    before = document.get("strata") or []
    if [stratum["segment"] for stratum in before] != chosen:
        kept = {stratum["segment"]: stratum for stratum in before}
        document["strata"] = [kept.get(key, {"segment": key}) for key in dict.fromkeys(chosen)]


def _new_segment(reader: Reader, known: Known) -> dict[str, Any] | None:
    fields = reader.fields
    name, attribute, value = (one(fields, part) for part in ("seg_name", "seg_attribute", "seg_value"))
    if not (name or attribute or value):
        return None
    for part, given in (("seg_name", name), ("seg_attribute", attribute), ("seg_value", value)):
        if not given:
            reader.trouble(part, gettext("A new segment needs a name, an attribute and a value."))
            return None
    operator = one(fields, "seg_op", "$eq")
    operator = operator if operator in OPERATORS else "$eq"
    operand: object = _typed(value)
    if operator == "$in":
        operand = [_typed(part.strip()) for part in value.replace("，", ",").split(",") if part.strip()]
    fallback = presets.key_of(f"{attribute} {operator[1:]} {value}", "segment")
    key = presets.free_key(presets.key_of(name, fallback), known.segments.__contains__)
    return {"key": key, "name": name[:200], "condition": {attribute: {operator: operand}}}


def _typed(text: str) -> bool | int | float | str:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if value == value and abs(value) < 1e15:
            return value
    return text


def _variants(reader: Reader, document: dict[str, Any]) -> None:
    fields, count = reader.fields, arms(reader.fields)
    before = {variant["key"]: variant for variant in document.get("variants", ())}
    usual = next((channel for variant in before.values() if (channel := _channel(variant))), None)
    variants: list[dict[str, Any]] = []
    weights: list[float | None] = []
    control = one(fields, "control", "0")
    place = int(control) if control.isascii() and control.isdigit() and int(control) < count else 0
    for i in range(count):
        fallback = "control" if i == place else f"variant-{i if i > place else i + 1}"
        key = one(fields, f"v{i}_key") or presets.key_of(one(fields, f"v{i}_name"), fallback)
        taken = {variant["key"] for variant in variants}
        if one(fields, f"v{i}_key") and key in taken:
            reader.trouble(f"v{i}_key", gettext("Give each variant a key of its own."))
        key = presets.free_key(key, taken.__contains__)
        variants.append(_variant(reader, i, key, before.get(one(fields, f"v{i}_from") or key), usual))
        weights.append(reader.number(f"v{i}_weight", 0, 100, scale=0.01))
    if count < 2:
        reader.trouble(
            "arms", gettext("An experiment needs at least two variants: one to compare with, and one to try.")
        )
    document["variants"], document["control"] = variants, variants[place]["key"]
    if all(weight is None for weight in weights):
        document["weights"] = None
    elif any(weight is None for weight in weights) or abs(sum(w or 0 for w in weights) - 1) > 1e-6:
        total = sum(w or 0 for w in weights) * 100
        reader.trouble(
            "v0_weight",
            gettext("Give every variant a share, 100 %% together (now %(total)s %%), or none.", total=f"{total:g}"),
        )
    else:
        document["weights"] = {variant["key"]: weight for variant, weight in zip(variants, weights, strict=True)}


def _channel(variant: Mapping[str, Any]) -> str | None:
    frequency = (variant.get("tactic") or {}).get("frequency") or {}
    return frequency.get("channel") or None


def _variant(reader: Reader, i: int, key: str, before: Mapping[str, Any] | None, usual: str | None) -> dict[str, Any]:
    fields = reader.fields
    made: dict[str, Any] = dict(before or {}) | {"key": key, "name": one(fields, f"v{i}_name")[:200] or None}
    tactic = dict(made.get("tactic") or {})
    tactic["copy"] = one(fields, f"v{i}_copy") or None
    offer = one(fields, f"v{i}_offer")
    if offer.startswith("{"):
        try:
            tactic["offer"] = json.loads(offer)
        except ValueError:
            reader.trouble(f"v{i}_offer", gettext("This is not JSON; write the offer as plain text, or correct it."))
    else:
        tactic["offer"] = {"name": offer} if offer else None
    touches = reader.whole(f"v{i}_touches", 0, 1000)
    per = one(fields, f"v{i}_per", "week")
    tactic["frequency"] = None
    if touches is not None:
        own = (dict(before or {}).get("tactic") or {}).get("frequency")
        channel = one(fields, "channel") or None
        if own is not None and channel == usual:
            channel = own["channel"]
        tactic["frequency"] = {"touches": touches, "per": per, "channel": channel}
    made["tactic"] = tactic if any(value is not None for value in tactic.values()) else None
    cost = reader.number(f"v{i}_cost", 0, 1e9)
    made["costs"] = {"per_user": one(fields, f"v{i}_cost").replace(",", "").replace("，", "") if cost else "0"}
    factors = one(fields, f"v{i}_factors").replace("；", ";").replace("＝", "=")
    made["factors"] = {}
    for part in filter(None, (part.strip() for part in factors.split(";"))):
        name, sign, level = (text.strip() for text in part.partition("="))
        if not sign or not name or not level:
            reader.trouble(f"v{i}_factors", gettext("Write factor=level, such as copy=new; offer=coupon."))
        else:
            made["factors"][name] = level
    return made


def _metrics(reader: Reader, document: dict[str, Any], built: Built, known: Known) -> None:
    fields = reader.fields
    primary = one(fields, "primary")
    if primary == NEW:
        metric = _new_metric(reader, known)
        if metric is not None:
            built.metrics.append(metric)
        primary = "" if metric is None else metric["key"]
    elif not primary:
        reader.trouble("primary", gettext("Choose what shall decide, or describe a new metric."))
    roles = {primary: Role.primary.value} if primary else {}
    for name, role in (("guardrails", Role.guardrail), ("secondary", Role.secondary)):
        for key in fields.get(name, []):
            if key:
                roles.setdefault(key, role.value)
    for key in roles:
        if key in presets.METRICS and key not in known.metrics:
            built.metrics.append({"key": key, "name": str(words.METRICS[key]), **presets.METRICS[key]})
    if roles != roles_of(document, known.metrics):
        before = {use["key"]: use for use in document.get("metrics", ())}
        margins = {key: use["margin"] for key, use in before.items() if use.get("margin")}
        document["metrics"] = [
            {"key": key, "role": role} | ({"margin": margins[key]} if key in margins else {})
            for key, role in roles.items()
        ]
    users = reader.whole("worth_users", 1, 10**12)
    margin = reader.number("worth_margin", 0, 100, scale=0.01)
    value = document.get("value") or {}
    document["value"] = None
    if users is not None and primary:
        kept = value.get("metric") if value.get("metric") in roles else primary
        document["value"] = {"metric": kept, "margin": 1.0 if margin is None else margin, "monthly_users": users}


def _new_metric(reader: Reader, known: Known) -> dict[str, Any] | None:
    fields = reader.fields
    name, event = one(fields, "m_name"), one(fields, "m_event")
    kind = one(fields, "m_kind", "conversion")
    if not name:
        reader.trouble("m_name", gettext("Give the new metric a name."))
    if not event:
        reader.trouble("m_event", gettext("Name the event that the app sends, such as purchase."))
    days = reader.whole("m_window", 1, 365)
    if not name or not event:
        return None
    days = days or 7
    key = presets.key_of(name, presets.key_of(f"{event} {kind} {days}d", f"{kind}-{days}d"))
    metric: dict[str, Any] = {
        "key": presets.free_key(key, known.metrics.__contains__),
        "name": name[:200],
        "kind": kind if kind in ("conversion", "mean", "retention") else "conversion",
        "direction": "down" if one(fields, "m_direction") == "down" else "up",
    }
    if kind == "mean":
        money = one(fields, "m_unit") == "money"
        terms = [{"event": event, "aggregate": "sum" if money else "count"}]
        return metric | {"terms": terms, "unit": "money" if money else "number", "window_days": days}
    if kind == "retention":
        return metric | {"event": event, "day": days}
    return metric | {"event": event, "window_days": days}


def _plan(reader: Reader, document: dict[str, Any], proposed: int | None) -> None:
    plan = dict(document.get("plan") or {})
    method = one(reader.fields, "method", "sequential")
    if plan.get("method", method) != method:
        plan = {"alpha": plan["alpha"]}
    planned = reader.whole("planned", 2, 10**9) or proposed or plan.get("planned_users")
    if planned is None and not any(trouble.field == "planned" for trouble in reader.troubles):
        reader.trouble("planned", gettext("Say how many users to plan for: too little is known to propose a number."))
    document["plan"] = plan | {"method": method, "planned_users": planned}


def _adaptive(reader: Reader, document: dict[str, Any], built: Built, known: Known) -> None:
    """Shares that follow the evidence; what they exclude is refused at its own field."""
    if not one(reader.fields, "adaptive"):
        document["adaptive"] = None
        return
    given = {
        "floor": reader.number("a_floor", 1, 50, scale=0.01),
        "every_hours": reader.whole("a_hours", 1, 8_760),
        "wave": reader.number("a_wave", 0.1, 100, scale=0.01),
    }
    adaptive = dict(document.get("adaptive") or {}) | {name: value for name, value in given.items() if value}
    document["adaptive"] = adaptive
    if document.get("weights"):
        reader.trouble("v0_weight", gettext("Leave the shares of users empty: they follow the evidence (step Plan)."))
    if document["coverage"] != 1:
        reader.trouble(
            "coverage", gettext("Let everyone take part: with shares that follow the evidence, users come in waves.")
        )
    if document.get("strata"):
        reader.trouble(
            "segments",
            gettext("Choose everyone, or write a rule: shares that follow the evidence cannot differ by segment."),
        )
    if document["plan"]["method"] not in ("sequential", "fixed"):
        reader.trouble(
            "method", gettext("With shares that follow the evidence, read it at any time or once at the end.")
        )
    made, count = Adaptive(**adaptive), len(document["variants"])
    if not made.fits(count, made.buckets):
        reader.trouble("a_floor", gettext("Give less: %(count)s variants with it are more than a wave.", count=count))
    metric = primary_of(built, known)
    if metric is not None and not isinstance(metric, ConversionMetric | MeanMetric | RetentionMetric):
        reader.trouble(
            "adaptive", gettext("Shares can only follow a share of users or a number per user: choose another metric.")
        )


def primary_of(built: Built, known: Known) -> Any:
    """The main metric's document, None where none is chosen."""
    roles = roles_of(built.document, known.metrics)
    key = next((key for key, role in roles.items() if role == Role.primary), None)
    made = next((metric for metric in built.metrics if metric["key"] == key), None)
    if made is not None:
        try:
            return parse(Kind.metric, made)
        except InvalidDocument:
            return None
    return None if key is None else known.metrics.get(key)


def is_share(metric: Any) -> bool:
    """Whether a metric's mean is a share of users."""
    return metric.kind in _SHARES
