"""The guided form and the document: what was typed becomes the document, and a document becomes what would be typed.

Of a document that is changed, whatever the form does not ask for stays as it is.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from experiments import presets
from experiments.documents import Experiment, Segment
from experiments.fields import Role
from experiments.waves import Adaptive
from web.drafts import Fields
from web.languages import gettext
from web.pages.making import words

# Of shares that follow the evidence: whether, the least share, the hours between waves, the users of one.
ADAPTIVE: Final = ("adaptive", "a_floor", "a_hours", "a_wave")
STEPS: Final = ("goal", "audience", "variants", "metrics", "plan", "check")
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "goal": ("name", "hypothesis", "owner", "tags"),
    "audience": (
        *("who", "segments", "seg_name", "seg_attribute", "seg_op", "seg_value"),
        *("condition", "coverage", "layer", "layer_start", "layer_end", "holdouts"),
    ),
    "variants": ("channel", "control", "arms"),
    "metrics": (
        *("primary", "m_name", "m_kind", "m_event", "m_window", "m_unit", "m_direction"),
        *("guardrails", "secondary", "worth_users", "worth_margin"),
    ),
    "plan": ("lift", "baseline", "spread", "weeks", "method", "planned", *ADAPTIVE),
    "check": ("key", "start_at", "stop_at"),
}
ARM_FIELDS: Final = ("name", "copy", "offer", "cost", "touches", "per", "weight", "key", "factors", "from")
MOST_ARMS: Final = 12
NEW: Final = "new:"
OPERATORS: Final = ("$gte", "$lte", "$eq", "$ne", "$gt", "$lt", "$in")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a field, and what would be right."""

    field: str
    step: str
    text: str


@dataclass(frozen=True)
class Known:
    """What the store has that a form can name."""

    metrics: Mapping[str, Any]
    segments: Mapping[str, Segment]
    layers: Sequence[Any]
    holdouts: Sequence[Any]
    taken: frozenset[str]
    zone: ZoneInfo


def one(fields: Fields, name: str, default: str = "") -> str:
    """Return the only value of a field."""
    values = fields.get(name)
    return values[0].strip() if values else default


def arms(fields: Fields) -> int:
    """How many variants the form has."""
    text = one(fields, "arms", "2")
    return min(max(int(text), 1), MOST_ARMS) if text.isascii() and text.isdigit() and len(text) < 4 else 2


def names_of(step: str, fields: Fields) -> list[str]:
    """The names of all fields of a step."""
    found = list(FIELDS[step])
    if step == "variants":
        found += [f"v{i}_{part}" for i in range(arms(fields)) for part in ARM_FIELDS]
    return found


def step_of(name: str) -> str:
    """The step that a field belongs to."""
    return next((step for step, names in FIELDS.items() if name in names), "variants")


def of_preset(code: presets.PresetCode, owner: str, metrics: Mapping[str, Any], seen: Collection[str]) -> Fields:
    """The form as a template fills it in, in the reader's language.

    ``metrics`` are those that there are, ``seen`` the events that came lately. A second guardrail of which nothing ever
    comes is not ticked: it takes thousands of users to show that it holds.
    """
    preset = presets.PRESETS[code]
    first, *more = preset.guardrails
    guardrails = [first, *(key for key in more if not seen or presets.METRICS[key]["event"] in seen)]
    values: dict[str, str] = {
        "fallback": "experiment" if code is presets.PresetCode.blank else code.replace("_", "-"),
        "owner": owner,
        "who": "segments" if preset.segment else "everyone",
        "coverage": "100",
        "channel": preset.channel,
        "control": "0",
        "arms": str(len(preset.arms)),
        "primary": presets.standing_in(preset.primary, metrics),
        "m_kind": "conversion",
        "m_window": "7",
        "lift": preset.lift,
        "weeks": str(preset.weeks),
        "method": "sequential",
        **_adaptive(None),
    }
    if code is not presets.PresetCode.blank:
        values |= {"name": str(words.PRESETS[code][0]), "hypothesis": str(words.HYPOTHESES[code])}
    for i, arm in enumerate(preset.arms):
        name, copy, offer = words.ARMS[arm.code]
        factors = "; ".join(f"{factor}={level}" for factor, level in (arm.factors or {}).items())
        parts = {"name": name, "copy": copy, "offer": offer, "cost": arm.cost, "touches": arm.touches, "per": "week"}
        values |= {f"v{i}_{part}": str(text) for part, text in (parts | {"factors": factors}).items()}
    fields = {name: [value] for name, value in values.items()}
    lists = {
        name: [presets.standing_in(key, metrics) for key in keys]
        for name, keys in (("guardrails", guardrails), ("secondary", preset.secondary))
    }
    return fields | lists | {"segments": [preset.segment] if preset.segment else []}


def of_document(experiment: Experiment, known: Known) -> Fields:
    """The form as it would be typed to give this document."""
    keys = [variant.key for variant in experiment.variants]
    strata, layer, plan = experiment.strata, experiment.layer, experiment.plan
    values: dict[str, object] = {
        "name": experiment.name,
        "hypothesis": experiment.hypothesis,
        "owner": experiment.owner,
        "tags": ", ".join(experiment.tags),
        "who": "segments" if strata else "everyone",
        "condition": "" if experiment.audience is None else json.dumps(experiment.audience, ensure_ascii=False),
        "coverage": _percent(experiment.coverage),
        "control": keys.index(experiment.control),
        "arms": len(keys),
        "method": plan.method,
        "planned": plan.planned_users,
        "lift": "10",
        "weeks": "4",
        "m_kind": "conversion",
        "m_window": "7",
        "key": experiment.key,
        **_adaptive(experiment.adaptive),
    }
    if layer is not None:
        values |= {"layer": layer.key, "layer_start": _percent(layer.start), "layer_end": _percent(layer.end)}
    if experiment.schedule is not None:
        values["start_at"] = _local(experiment.schedule.start_at, known.zone)
        values["stop_at"] = _local(experiment.schedule.stop_at, known.zone)
    if experiment.value is not None:
        values |= {"worth_users": experiment.value.monthly_users, "worth_margin": _percent(experiment.value.margin)}
    for i, variant in enumerate(experiment.variants):
        tactic = variant.tactic
        frequency = tactic.frequency if tactic else None
        if frequency is not None and frequency.channel:
            values.setdefault("channel", frequency.channel)
        weight = None if experiment.weights is None else experiment.weights.get(variant.key)
        parts = {
            "name": variant.name or "",
            "copy": (tactic.copy_ if tactic else None) or "",
            "offer": _offer(tactic.offer if tactic else None),
            "cost": f"{variant.costs.per_user:f}" if variant.costs.per_user else "",
            "touches": "" if frequency is None else frequency.touches,
            "per": "week" if frequency is None else frequency.per,
            "weight": "" if weight is None else _percent(weight),
            "key": variant.key,
            "from": variant.key,
            "factors": "; ".join(f"{name}={level}" for name, level in variant.factors.items()),
        }
        values |= {f"v{i}_{part}": text for part, text in parts.items()}
    fields = {name: [str(value)] for name, value in values.items()}
    roles = roles_of(experiment.to_json(), known.metrics)
    fields["primary"] = [key for key, role in roles.items() if role == Role.primary][:1]
    fields["guardrails"] = [key for key, role in roles.items() if role == Role.guardrail]
    fields["secondary"] = [key for key, role in roles.items() if role == Role.secondary]
    fields["segments"] = [stratum.segment for stratum in strata]
    return fields | {"holdouts": list(experiment.holdouts)}


def _adaptive(found: Adaptive | None) -> dict[str, str]:
    """What the form says of shares that follow the evidence; the usual numbers where they do not."""
    shown = found or Adaptive()
    values = "" if found is None else "1", _percent(shown.floor), str(shown.every_hours), _percent(shown.wave)
    return dict(zip(ADAPTIVE, values, strict=True))


def merged(mine: Fields, began: Fields, theirs: Fields) -> tuple[Fields, list[str]]:
    """Bring together two persons' changes of one form, and name the fields that both changed: there mine stay."""
    result, clashes = {}, []
    for name in mine.keys() | theirs.keys():
        own, old, new = ([v for v in each.get(name, []) if v] for each in (mine, began, theirs))
        result[name] = mine.get(name, []) if own != old else theirs.get(name, [])
        if own != old and new not in (old, own):
            clashes.append(name)
    return result, sorted(clashes)


class Reader:
    """Reads fields and notes what is wrong with them."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self.troubles: list[Trouble] = []

    def trouble(self, name: str, text: str) -> None:
        """Note what is wrong with a field."""
        self.troubles.append(Trouble(name, step_of(name), text))

    def number(self, name: str, low: float, high: float, *, scale: float = 1.0) -> float | None:
        """Return a number within limits, None where the field is empty or wrong."""
        text = one(self.fields, name).rstrip("%％")
        if not text:
            return None
        try:
            value = float(text.replace(",", "").replace("，", ""))
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            facts = {"low": f"{low:,g}", "high": f"{high:,g}", "found": text}
            self.trouble(name, gettext("“%(found)s” will not do: give a number from %(low)s to %(high)s.", **facts))
            return None
        return value if scale == 1.0 else round(value * scale, 6)

    def whole(self, name: str, low: int, high: int) -> int | None:
        """Return a whole number within limits, None where the field is empty or wrong."""
        value = self.number(name, low, high)
        if value is not None and value != int(value):
            self.trouble(name, gettext("Give a whole number."))
            return None
        return None if value is None else int(value)

    def moment(self, name: str, zone: ZoneInfo) -> str | None:
        """Return a moment typed in the store's time zone."""
        text = one(self.fields, name)
        if not text:
            return None
        try:
            return datetime.fromisoformat(text).replace(tzinfo=zone).isoformat()
        except (ValueError, OverflowError):
            self.trouble(name, gettext("Give date and time, such as 2026-12-01 09:00."))
            return None


def _percent(share: float) -> str:
    return f"{share * 100:.4f}".rstrip("0").rstrip(".")


def _local(moment: datetime | None, zone: ZoneInfo) -> str:
    return "" if moment is None else moment.astimezone(zone).replace(tzinfo=None).isoformat(timespec="minutes")


def _offer(offer: Mapping[str, Any] | None) -> str:
    if not offer:
        return ""
    if offer.keys() == {"name"} and isinstance(offer["name"], str) and not offer["name"].startswith("{"):
        return str(offer["name"])
    return json.dumps(offer, ensure_ascii=False)


def roles_of(document: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, str]:
    """What each metric of a document decides there."""
    return {
        use["key"]: use["role"] or (metrics[use["key"]].role if use["key"] in metrics else Role.secondary)
        for use in document.get("metrics", ())
    }
