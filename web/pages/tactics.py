"""The library of tactics: what each copy, offer and frequency did, for whom, in all experiments."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, render_template, request
from flask.typing import ResponseReturnValue

from experiments import export
from experiments.programme import library
from experiments.programme.library import EVERYONE, Evidence, Filter, Library, TacticEntry, TacticKind
from web import sentences, standing
from web.formats import Formats
from web.languages import gettext, ngettext
from web.pages.reader import formats
from web.security import login_required
from web.state import state

blueprint = Blueprint("tactics", __name__)

PAGE = 50
_SOURCES = 10
COLUMNS = (
    *("id", "copy", "offer", "touches", "per", "channel", "extra", "variant", "control", "control_copy"),
    *("control_offer", "control_touches", "control_per", "segment", "segment_name", "metric", "metric_name"),
    *("lift", "lift_lower", "lift_upper", "drawn", "evidence", "outcome", "users", "value", "value_lower"),
    *("value_upper", "currency", "experiments"),
)
_READINGS: Mapping[str, str] = {Evidence.better: "better", Evidence.worse: "worse"}


@dataclass(frozen=True, slots=True)
class Row:
    """One tactic in the list."""

    id: str
    name: str
    copy: str
    offer: str
    frequency: str
    control: str
    segment: str
    metric: str
    lift: str
    limits: str
    drawn: str
    evidence: str
    reading: str
    users: str
    money: str
    money_limits: str
    outcome: str
    tried: int
    sources: list[tuple[str, str, str, str]]


def wanted(given: Mapping[str, str]) -> Filter:
    """Read what is looked for from an address."""
    kind = given.get("kind", "")
    return Filter(
        text=given.get("q", "").strip()[:200],
        kind=kind if kind in set(TacticKind) else "",
        channel=given.get("channel", ""),
        segment=given.get("segment", ""),
        tag=given.get("tag", ""),
    )


def _find(filter_: Filter) -> Library:
    held = state()
    with held.store.read() as session:
        return library.find(session, held.store.settings.currency, filter_)


@blueprint.get("/tactics")
@login_required
def show() -> ResponseReturnValue:
    """Show what is known of tactics."""
    asked, reader = wanted(request.args), formats()
    found = _find(asked)
    given = request.args.get("page", "1")
    pages = max(-(-len(found.entries) // PAGE), 1)
    page = min(max(int(given), 1), pages) if given.isascii() and given.isdigit() and len(given) < 7 else 1
    query = {"q": asked.text, "kind": asked.kind, "channel": asked.channel, "segment": asked.segment, "tag": asked.tag}
    return render_template(
        "tactics.html",
        wanted=asked,
        found=found,
        rows=[_row(entry, reader) for entry in found.entries[(page - 1) * PAGE : page * PAGE]],
        kinds=[(kind.value, sentences.known(standing.TACTIC_KINDS, kind)) for kind in TacticKind],
        channels=[(channel, _channel(channel)) for channel in found.channels],
        everyone=EVERYONE,
        query={name: value for name, value in query.items() if value},
        page=page,
        pages=pages,
    )


@blueprint.get("/tactics.csv")
@login_required
def download() -> Response:
    """Return the tactics found as a file."""
    rows = list(table(_find(wanted(request.args)).entries))
    response = Response(export.csv_bytes(COLUMNS, rows, bom=request.args.get("bom") == "1"), mimetype="text/csv")
    response.headers.set("Content-Disposition", "attachment", filename="tactics.csv")
    return response


def table(entries: list[TacticEntry]) -> Iterator[dict[str, Any]]:
    """Yield the entries as rows of plain values."""
    for e in entries:
        value = e.value
        yield {
            "id": e.id,
            "copy": e.copy,
            "offer": _json(e.offer),
            "touches": e.touches,
            "per": e.per,
            "channel": e.channel,
            "extra": _json(e.extra),
            "variant": e.name,
            "control": e.control,
            "control_copy": e.control_copy,
            "control_offer": _json(e.control_offer),
            "control_touches": e.control_touches,
            "control_per": e.control_per,
            "segment": e.segment,
            "segment_name": e.segment_name,
            "metric": e.metric,
            "metric_name": e.metric_name,
            "lift": e.lift.estimate,
            "lift_lower": e.lift.lower,
            "lift_upper": e.lift.upper,
            "drawn": e.drawn,
            "evidence": e.evidence.value,
            "outcome": e.outcome.value,
            "users": e.users,
            "value": value.estimate if value else None,
            "value_lower": value.lower if value else None,
            "value_upper": value.upper if value else None,
            "currency": value.currency if value else None,
            "experiments": " ".join(source.experiment for source in e.sources),
        }


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _channel(code: str) -> str:
    """A channel's name; those of a company's own are shown as they are written."""
    return str(sentences.CHANNELS[code]) if code in sentences.CHANNELS else code


def _frequency(touches: int | None, per: str | None, channel: str | None = None) -> str:
    if touches is None or per is None:
        return _channel(channel) if channel else ""
    times = ngettext("%(num)s time %(per)s", "%(num)s times %(per)s", touches, per=sentences.known(sentences.PER, per))
    return f"{times} · {_channel(channel)}" if channel else times


def _offer(offer: Mapping[str, Any] | None) -> str:
    """An offer as written: ``coupon: 10, days: 7``."""
    if not offer:
        return ""
    return ", ".join(f"{name}: {_plain(value)}" for name, value in offer.items())


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _row(entry: TacticEntry, reader: Formats) -> Row:
    estimate, lower, upper = reader.relative(entry.lift)
    against = [
        entry.control_copy or "",
        _offer(entry.control_offer),
        _frequency(entry.control_touches, entry.control_per),
    ]
    money = limits = ""
    if entry.value is not None:
        value = entry.value
        money = reader.money(value.estimate, value.currency)
        ends = reader.money(value.lower, value.currency), reader.money(value.upper, value.currency)
        limits = gettext("%(lower)s to %(upper)s", lower=ends[0], upper=ends[1])
    return Row(
        id=entry.id,
        name=entry.name,
        copy=entry.copy or "",
        offer=_offer(entry.offer),
        frequency=_frequency(entry.touches, entry.per, entry.channel),
        control=" · ".join([entry.control, *filter(None, against)]),
        segment=entry.segment_name or gettext("All users"),
        metric=entry.metric_name,
        lift=estimate,
        limits=gettext("%(lower)s to %(upper)s", lower=lower, upper=upper),
        drawn=sentences.known(standing.DRAWN, entry.drawn),
        evidence=sentences.known(standing.EVIDENCE, entry.evidence),
        reading=_READINGS.get(entry.evidence, "unclear"),
        users=reader.count(entry.users),
        money=money,
        money_limits=limits,
        outcome=sentences.known(standing.OUTCOMES, entry.outcome),
        tried=len(entry.sources),
        sources=[
            (s.experiment, s.name, reader.relative(s.lift)[0], reader.count(s.users)) for s in entry.sources[:_SOURCES]
        ],
    )
