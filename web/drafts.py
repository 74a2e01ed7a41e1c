"""What a person has typed into a form of several steps and not finished: kept on the server, for him alone.

A file each, so that two tabs never mix and a restart loses nothing; what was not touched for a month is dropped.
"""

import re
import secrets
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from experiments.errors import NotFound

KEPT: Final = timedelta(days=30)
_ID: Final = re.compile(r"[0-9a-f]{24}")

Fields = dict[str, list[str]]


@dataclass(slots=True)
class Unfinished:
    """A form under way.

    Attributes:
        id: names it in addresses.
        login: whose it is.
        preset: the template it began with.
        fields: every field's values, as typed.
        base: the document that is being changed, None for a new one.
        began: the fields as that document gives them.
        measured: what was last measured for the plan.
    """

    id: str
    login: str
    preset: str
    fields: Fields
    base: dict[str, Any] | None = None
    began: Fields = field(default_factory=dict)
    measured: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Drafts:
    """The unfinished forms in a folder."""

    folder: Path

    def begin(
        self, login: str, preset: str, fields: Fields, *, now: datetime, base: dict[str, Any] | None = None
    ) -> Unfinished:
        """Keep a new form, and drop the ones long forgotten."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("*.json"):
            if path.stat().st_mtime < (now - KEPT).timestamp():
                path.unlink(missing_ok=True)
        began = {name: list(values) for name, values in fields.items()}
        made = Unfinished(secrets.token_hex(12), login, preset, fields, base, began if base else {})
        self.keep(made)
        return made

    def keep(self, form: Unfinished) -> None:
        """Write a form down as it now is."""
        path = self._path(form.id)
        part = path.with_suffix(f".{secrets.token_hex(4)}")
        part.write_bytes(msgspec.json.encode(asdict(form)))
        part.replace(path)

    def get(self, name: str, login: str) -> Unfinished:
        """Return a form of this person; raise NotFound."""
        if _ID.fullmatch(name):
            try:
                found = msgspec.json.decode(self._path(name).read_bytes(), type=Unfinished)
            except FileNotFoundError:
                pass
            else:
                if found.login == login:
                    return found
        raise NotFound("not_found", f"{login!r} has no form {name!r} under way")

    def drop(self, form: Unfinished) -> None:
        """Forget a form that was finished."""
        self._path(form.id).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"
