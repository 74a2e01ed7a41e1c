"""Errors of the domain: each has a stable code and the facts; sentences for people are made at the edges."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing that is wrong in a document or a request: where, what was found, and what would be right."""

    field: str
    value: object
    problem: str
    remedy: str

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values; a value that JSON cannot hold, such as NaN, is shown as text."""
        return asdict(self) | {"value": _plain(self.value)}


class UpturnError(Exception):
    """Base of all errors that a caller may show; ``code`` is stable, ``status`` is its HTTP status."""

    status = 500

    def __init__(self, code: str, detail: str, **facts: object) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.facts = facts


class InvalidDocument(UpturnError):
    """A document or request was refused; ``problems`` lists everything that is wrong with it at once."""

    status = 422

    def __init__(self, problems: Sequence[FieldProblem], what: str = "document") -> None:
        lines = "; ".join(f"{p.field} = {_short(p.value)}: {p.remedy}" for p in problems)
        super().__init__("invalid_document", f"the {what} was refused: {lines}")
        self.problems = tuple(problems)
        self.what = what


class NotFound(UpturnError):
    """The named thing does not exist."""

    status = 404


class Conflict(UpturnError):
    """The request is well formed but the present state does not allow it."""

    status = 409


class Forbidden(UpturnError):
    """The key or account may not do this."""

    status = 403


def _plain(value: object) -> object:
    try:
        json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError):
        return _short(value)
    return value


def _short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
