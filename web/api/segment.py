"""What Segment's clients send: the write key is a key of ours with the scope ``ingest``."""

from base64 import b64decode
from binascii import Error
from collections.abc import Callable
from typing import get_args
from uuid import uuid4

import msgspec

from experiments import segment
from experiments.access import Scope
from experiments.ingest import Rejected
from experiments.segment import Kind, Noted
from web.api import events
from web.replies import Reply, json_reply
from web.thin import Call, Route, Routes, sent_secret

# A page that is being closed can send text without asking first, and nothing else.
_BEACON = ("text/plain",)


class Taken(msgspec.Struct, frozen=True):
    """What became of the calls; ``accepted`` counts what was stored of them, which may be two items for one call."""

    success: bool
    accepted: int
    duplicates: int
    rejected: list[Rejected]
    noted: list[Noted]


def _answering(kind: Kind) -> Callable[[Call], Reply]:
    def answer(call: Call) -> Reply:
        secret = _write_key(call)
        if secret:
            call.admit(Scope.ingest, secret)
        settings = call.store.settings
        translated = segment.translate(
            kind,
            call.body(also=_BEACON),
            received=call.state.clock(),
            currency=settings.currency,
            rates=settings.rates,
            new_id=lambda: uuid4().hex,
        )
        if not secret:
            call.admit(Scope.ingest, translated.write_key)
        receipt = events.store(call, translated.items, translated.rejected)
        taken = Taken(True, receipt.accepted, receipt.duplicates, receipt.rejected, translated.noted)
        return events.all_rejected(receipt) or json_reply(taken)

    return answer


def _write_key(call: Call) -> str:
    """Return the key from the headers: Segment's clients send it as the user name of Basic authentication."""
    kind, _, pair = (call.header("HTTP_AUTHORIZATION") or "").partition(" ")
    if kind.lower() != "basic":
        return sent_secret(call.environ)
    try:
        return b64decode(pair, validate=True).partition(b":")[0].decode()
    except (Error, UnicodeDecodeError):
        return ""


def add(routes: Routes) -> None:
    """Add the routes of Segment's HTTP API, and the short ones that its browser client asks."""
    for kind in get_args(Kind):
        route = Route(_answering(kind))
        routes.add("POST", f"/v1/{kind}", route)
        routes.add("POST", f"/v1/{kind[0]}", route)
