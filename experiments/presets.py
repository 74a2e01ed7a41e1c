"""Templates of experiments that are run again and again: their variants, metrics, guardrails, audience and plan.

Here are keys, numbers and codes; names and texts come from the caller, in the reader's language.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy.orm import Session

from experiments import registry
from experiments.documents import Experiment, Kind
from experiments.fields import Role


class PresetCode(StrEnum):
    """The templates."""

    copy_test = "copy_test"
    coupon_test = "coupon_test"
    frequency_test = "frequency_test"
    win_back = "win_back"
    factorial = "factorial"
    blank = "blank"


class ArmCode(StrEnum):
    """What a variant of a template is, for its name and its texts."""

    nothing = "nothing"
    usual_copy = "usual_copy"
    new_copy = "new_copy"
    no_coupon = "no_coupon"
    small_coupon = "small_coupon"
    large_coupon = "large_coupon"
    weekly = "weekly"
    twice_weekly = "twice_weekly"
    four_weekly = "four_weekly"
    reminder = "reminder"
    reminder_coupon = "reminder_coupon"
    usual_plain = "usual_plain"
    usual_coupon = "usual_coupon"
    new_plain = "new_plain"
    new_with_coupon = "new_with_coupon"


@dataclass(frozen=True, slots=True)
class Arm:
    """A variant: touches a week, unit cost of the offer, and its levels in a factorial design."""

    code: ArmCode
    touches: int = 1
    cost: str = ""
    factors: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Preset:
    """A template; metrics and segment are keys of ``METRICS`` and ``SEGMENTS``."""

    code: PresetCode
    arms: Sequence[Arm]
    primary: str
    guardrails: Sequence[str] = ("unsubscribe_rate", "complaint_rate")
    secondary: Sequence[str] = ()
    segment: str | None = None
    channel: str = "push"
    lift: str = "10"
    weeks: int = 4


METRICS: Final[Mapping[str, Mapping[str, Any]]] = {
    "order_rate": {"kind": "conversion", "event": "purchase", "window_days": 7},
    "click_rate": {"kind": "conversion", "event": "click", "window_days": 1},
    "revenue_per_user": {
        "kind": "mean",
        "terms": [{"event": "purchase", "aggregate": "sum"}],
        "unit": "money",
        "window_days": 14,
    },
    "unsubscribe_rate": {
        "kind": "conversion",
        "event": "unsubscribe",
        "window_days": 7,
        "direction": "down",
        "role": "guardrail",
        "margin": 0.005,
    },
    "complaint_rate": {
        "kind": "conversion",
        "event": "complaint",
        "window_days": 7,
        "direction": "down",
        "role": "guardrail",
        "margin": 0.002,
    },
}
"""Metrics that templates create where the store has none of that key; without names."""

SEGMENTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "dormant": {"kind": "lifecycle", "condition": {"days_since_purchase": {"$gte": 60}}},
}

PRESETS: Final[Mapping[PresetCode, Preset]] = {
    preset.code: preset
    for preset in (
        Preset(
            PresetCode.copy_test,
            (Arm(ArmCode.usual_copy), Arm(ArmCode.new_copy)),
            "click_rate",
            secondary=("order_rate",),
        ),
        Preset(
            PresetCode.coupon_test,
            (Arm(ArmCode.no_coupon), Arm(ArmCode.small_coupon, cost="1"), Arm(ArmCode.large_coupon, cost="2")),
            "revenue_per_user",
            secondary=("order_rate",),
        ),
        Preset(
            PresetCode.frequency_test,
            (Arm(ArmCode.weekly), Arm(ArmCode.twice_weekly, 2), Arm(ArmCode.four_weekly, 4)),
            "order_rate",
            secondary=("revenue_per_user",),
        ),
        Preset(
            PresetCode.win_back,
            (Arm(ArmCode.nothing, 0), Arm(ArmCode.reminder), Arm(ArmCode.reminder_coupon, cost="1")),
            "order_rate",
            secondary=("revenue_per_user",),
            segment="dormant",
            channel="sms",
            lift="20",
        ),
        Preset(
            PresetCode.factorial,
            (
                Arm(ArmCode.usual_plain, factors={"copy": "usual", "offer": "none"}),
                Arm(ArmCode.new_plain, factors={"copy": "new", "offer": "none"}),
                Arm(ArmCode.usual_coupon, cost="1", factors={"copy": "usual", "offer": "coupon"}),
                Arm(ArmCode.new_with_coupon, cost="1", factors={"copy": "new", "offer": "coupon"}),
            ),
            "order_rate",
            secondary=("revenue_per_user",),
        ),
        Preset(PresetCode.blank, (Arm(ArmCode.nothing, 0), Arm(ArmCode.new_copy)), "order_rate"),
    )
}


def standing_in(key: str, metrics: Mapping[str, Any]) -> str:
    """Return the key of a metric there is that counts what a template's metric would, or the template's own."""
    wanted = METRICS.get(key)
    if wanted is None or key in metrics:
        return key
    for other in metrics.values():
        document = other.to_json()
        named = all(document.get(field) == wanted.get(field) for field in ("kind", "event"))
        if named and (wanted.get("role") != Role.guardrail or other.margin) and "event" in wanted:
            return str(other.key)
    return key


def create(
    session: Session,
    experiment: Mapping[str, Any],
    *,
    metrics: Iterable[Mapping[str, Any]] = (),
    segments: Iterable[Mapping[str, Any]] = (),
    revision: int | None = None,
    actor: str,
    now: datetime,
) -> Experiment:
    """Store an experiment together with the metrics and segments it needs that are not there yet.

    Args:
        session: of one transaction: all is stored, or nothing.
        experiment: the document.
        metrics: documents of metrics; one whose key exists is left as it is.
        segments: the same of segments.
        revision: of the draft that this changes; None: it is new.
        actor: for the audit.
        now: the present.

    Raises:
        InvalidDocument: a document is wrong.
        Conflict: the key is taken, or the draft was changed meanwhile.
    """
    for kind, documents in ((Kind.metric, metrics), (Kind.segment, segments)):
        known = {document.key for document in registry.all_of(session, kind)}
        for document in documents:
            if document["key"] not in known:
                registry.create(session, kind, document, actor=actor, now=now)
    made: Experiment
    if revision is None:
        made = registry.create(session, Kind.experiment, experiment, actor=actor, now=now)
    else:
        sent = {**experiment, "revision": revision}
        made = registry.revise(session, Kind.experiment, str(experiment["key"]), sent, actor=actor, now=now)
    return made


_OF_ITS_OWN: Final = ("status", "phase", "salt", "revision", "decision", "schedule", "waves")


def duplicate(session: Session, key: str, *, name: str, actor: str, now: datetime) -> Experiment:
    """Store a copy of an experiment as a draft: a new key, a salt of its own, no schedule, nothing decided."""
    document = registry.get(session, Kind.experiment, key).to_json()
    taken = {each.key for kind in (Kind.experiment, Kind.policy) for each in registry.all_of(session, kind)}
    for field in _OF_ITS_OWN:
        document.pop(field, None)
    document |= {"key": free_key(key, taken.__contains__), "name": name}
    made: Experiment = registry.create(session, Kind.experiment, document, actor=actor, now=now)
    return made


def key_of(name: str, fallback: str) -> str:
    """Return a key made of a name; ``fallback`` where the name has no letters that keys can have."""
    words = re.findall(r"[A-Za-z0-9]+", name)
    made = "-".join(words).lower()[:48].strip("-")
    # A lone letter or number out of a Chinese name ("第2批") says nothing.
    return made if len(made) >= 3 else fallback


def free_key(wanted: str, taken: Callable[[str], bool]) -> str:
    """Return the key wanted, with a number where it is taken."""
    stem = re.sub(r"-\d{1,3}$", "", wanted)[:58] if taken(wanted) else wanted
    number = 2
    found = wanted
    while taken(found):
        found, number = f"{stem}-{number}", number + 1
    return found
