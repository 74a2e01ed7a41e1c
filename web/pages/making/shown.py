"""What the steps of the guided form show beside the fields: sizes, previews, metrics to choose, changes of others."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from experiments import presets, registry
from experiments.conflicts import Concern
from experiments.crowd import Crowd, Turnout
from experiments.documents import Experiment, Kind
from web.drafts import Fields
from web.formats import Formats
from web.languages import gettext, ngettext
from web.pages.making import form as forms
from web.pages.making import plan as plans
from web.pages.making import words

# One SMS holds so many characters, and so many each where the text needs several; other alphabets take two bytes.
_SMS: Final = {True: (160, 153), False: (70, 67)}
_GSM: Final = re.compile(
    r"[A-Za-z0-9 \n\r@£$¥èéùìòÇØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ!\"#¤%&'()*+,\-./:;<=>?¡ÄÖÑÜ§¿äöñüà^{}\\\[~\]|€]*"
)
_LONG: Final = {"push": 60, "in_app": 120, "wecom": 600, "email": 5000}


@dataclass(frozen=True, slots=True)
class SizeView:
    """How many users take part, in a sentence; ``hint`` says as of when and how it was counted."""

    sentence: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class ArmView:
    """A variant in the form: how its text looks, and how long it is."""

    number: int
    letter: str
    copy: str
    offer: str
    length: str
    title: str


@dataclass(frozen=True, slots=True)
class SegmentView:
    """A segment to tick, with the users on record that match."""

    key: str
    name: str
    users: str
    new: bool = False


@dataclass(frozen=True, slots=True)
class Changed:
    """What somebody else changed: who and when, the differences, and the fields that both changed (theirs, mine)."""

    by: list[tuple[str, str]]
    diff: list[dict[str, object]]
    clashes: list[tuple[str, str, str]]


def size(found: Turnout, formats: Formats) -> SizeView:
    """Say how many users take part."""
    if found.match is None or found.enrolled is None or found.free is None:
        return SizeView(gettext("How many users that is, is unknown: no users are on record yet."))
    count = formats.count(found.enrolled)
    text = ngettext("%(count)s user would take part", "%(count)s users would take part", found.enrolled, count=count)
    parts = [text if found.exact else gettext("about %(users)s", users=text)]
    if found.match != found.enrolled:
        parts.append(gettext("%(match)s match the audience", match=formats.count(found.match)))
    if found.free != found.enrolled:
        parts.append(gettext("%(free)s of them are in no other running experiment", free=formats.count(found.free)))
    hint = gettext(
        "Of %(total)s users on record, as of %(time)s.",
        total=formats.count(found.on_record),
        time=formats.moment(found.as_of),
    )
    between, stop = ("；", "。") if formats.chinese else ("; ", ".")
    said = between.join(parts) + stop
    return SizeView(said[0].upper() + said[1:], hint)


def segments(known: forms.Known, snapshot: Mapping[str, Any], crowd: Crowd, formats: Formats) -> list[SegmentView]:
    """The segments there are, and those that templates would create."""
    found = []
    offered = {key: segment.to_json() for key, segment in known.segments.items()}
    for key, document in presets.SEGMENTS.items():
        offered.setdefault(key, {"key": key, "name": str(words.SEGMENTS[key]), **document})
    for key, document in offered.items():
        new = key not in known.segments
        shown = ""
        if crowd.ids:
            audience = {"key": "x", "strata": [{"segment": key}], "coverage": 1.0, "holdouts": []}
            rule = plans.draft_rule(audience, snapshot, [document] if new else [])
            shown = formats.count(crowd.scaled(crowd.enrolled(rule)))
        found.append(SegmentView(key, document["name"], shown, new))
    return found


def arms(fields: Fields) -> list[ArmView]:
    """The variants with previews of their texts."""
    channel = forms.one(fields, "channel", "push")
    found = []
    for i in range(forms.arms(fields)):
        copy, offer = forms.one(fields, f"v{i}_copy"), forms.one(fields, f"v{i}_offer")
        name = forms.one(fields, f"v{i}_name") or gettext("Variant %(letter)s", letter=chr(65 + i))
        found.append(ArmView(i, chr(65 + i), copy, "" if offer.startswith("{") else offer, length(copy, channel), name))
    return found


def length(copy: str, channel: str) -> str:
    """Say how long a text is, and where it would be cut or cost more."""
    count = len(copy.encode("utf-16-le")) // 2
    said = ngettext("%(num)s character", "%(num)s characters", count)
    if channel == "sms" and count:
        single, each = _SMS[_GSM.fullmatch(copy) is not None]
        messages = 1 if count <= single else -(-count // each)
        needs = ngettext("%(num)s SMS", "%(num)s SMS", messages)
        return f"{said} · {needs}"
    if count > _LONG.get(channel, 5000):
        cut = gettext("many devices cut it after about %(limit)s", limit=_LONG[channel])
        return f"{said} · {cut}"
    return said


def metrics(known: forms.Known, fields: Fields) -> dict[str, list[tuple[str, str, bool]]]:
    """The metrics to choose: (key, name, whether it would be created)."""
    offered = {key: (metric.name, False, metric.margin) for key, metric in known.metrics.items()}
    chosen = {key for name in ("primary", "guardrails", "secondary") for key in fields.get(name, [])}
    for key, document in presets.METRICS.items():
        if key not in chosen and presets.standing_in(key, known.metrics) != key:
            continue
        offered.setdefault(key, (str(words.METRICS[key]), True, document.get("margin")))
    used = set(fields.get("guardrails", []))
    return {
        "metrics": [(key, name, new) for key, (name, new, _) in offered.items()],
        "rails": [(key, name, new) for key, (name, new, margin) in offered.items() if margin or key in used],
    }


def concerns(found: Iterable[Concern], session: Session, formats: Formats) -> list[tuple[str, str, str]]:
    """Concerns as (weight, its name, sentence)."""
    named = {document.key: document.name for document in registry.all_of(session, Kind.experiment)}
    named |= {document.key: document.name for document in registry.all_of(session, Kind.metric)}
    named |= {key: str(name) for key, name in words.METRICS.items() if key not in named}
    return [(each.weight, str(words.WEIGHTS[each.weight]), words.concern(each, formats, named)) for each in found]


def pretty(experiment: Experiment | None, document: Mapping[str, Any]) -> str:
    """The document as JSON, as the API has it."""
    shown = document if experiment is None else experiment.to_json()
    return json.dumps(shown, ensure_ascii=False, indent=2, default=str)


def label(name: str) -> str:
    """What a field is called, in a list of clashes."""
    match = re.fullmatch(r"v(\d+)_(\w+)", name)
    if match:
        part = str(words.FIELDS.get(match[2], match[2]))
        return gettext("Variant %(letter)s: %(part)s", letter=chr(65 + int(match[1])), part=part)
    return str(words.FIELDS.get(name, words.STEPS[forms.step_of(name)]))
