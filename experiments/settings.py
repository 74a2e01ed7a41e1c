"""Where a store keeps its things and how it counts days and money."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from experiments.errors import FieldProblem, InvalidDocument

ROLES = ("viewer", "editor", "approver", "admin")
"""What a person may do, each including the ones before it; ``access.Role`` explains them."""
_LOOPBACK = re.compile(r"http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/|$)")
_RATE = re.compile(r"\s*([A-Z]{3})=(\d+\.?\d*(?:e[+-]?\d+)?)\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Oidc:
    """The OpenID provider by which people log in.

    Attributes:
        issuer: its address (``UPTURN_OIDC_ISSUER``).
        client_id: who this server is to it (``UPTURN_OIDC_CLIENT_ID``).
        client_secret: (``UPTURN_OIDC_CLIENT_SECRET``).
        role: the claim that holds roles or groups, and which of its values gives which role
            (``UPTURN_OIDC_ROLE``, such as ``groups: crm-leads=approver, crm=editor``); None: new accounts are viewers.
        domains: of e-mail addresses that may log in (``UPTURN_OIDC_DOMAINS``, such as ``shop.example,shop.cn``);
            empty: whoever the provider lets in.
    """

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    role: tuple[str, tuple[tuple[str, str], ...]] | None = None
    domains: frozenset[str] = frozenset()

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Oidc | None":
        """Read the settings; None when no issuer is named."""
        issuer = environ.get("UPTURN_OIDC_ISSUER", "").rstrip("/")
        if not issuer:
            return None
        values = {name: environ.get(f"UPTURN_OIDC_{name.upper()}", "") for name in ("client_id", "client_secret")}
        problems = [
            FieldProblem(f"oidc_{name}", "", "missing", f"set UPTURN_OIDC_{name.upper()} to what the provider gave you")
            for name, value in values.items()
            if not value
        ]
        if not issuer.startswith("https://") and not _LOOPBACK.match(issuer):
            problems.append(FieldProblem("oidc_issuer", issuer, "bad_address", "give an https:// address"))
        if problems:
            raise InvalidDocument(problems, "settings")
        domains = frozenset(part.strip().lower() for part in environ.get("UPTURN_OIDC_DOMAINS", "").split(","))
        return cls(issuer, **values, role=_mapping(environ.get("UPTURN_OIDC_ROLE", "")), domains=domains - {""})

    @staticmethod
    def require_library() -> None:
        """Refuse to serve when the library is missing that the login through a provider needs."""
        if find_spec("authlib") is None or find_spec("requests") is None:
            remedy = "install what it needs, pip install '.[oidc]', or do not set it"
            raise InvalidDocument([FieldProblem("oidc_issuer", None, "library_missing", remedy)], "settings")

    def to_env(self) -> dict[str, str]:
        """Return the variables from which ``from_env`` reads these settings back."""
        written = {
            "UPTURN_OIDC_ISSUER": self.issuer,
            "UPTURN_OIDC_CLIENT_ID": self.client_id,
            "UPTURN_OIDC_CLIENT_SECRET": self.client_secret,
            "UPTURN_OIDC_DOMAINS": ",".join(sorted(self.domains)),
        }
        if self.role:
            claim, values = self.role
            written["UPTURN_OIDC_ROLE"] = f"{claim}: " + ", ".join(f"{value}={role}" for value, role in values)
        return written


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one store, read once at start.

    Attributes:
        folder: folder of the embedded store: database, lake, secret (``UPTURN_STORE``, default ``upturn-store``).
        database_url: SQLAlchemy URL of the record (``UPTURN_DATABASE_URL``, default SQLite in ``folder``).
        lake: folder of the Parquet files (``UPTURN_LAKE``, default ``folder/lake``).
        timezone: IANA zone in which days and weeks are cut (``UPTURN_TIMEZONE``, default ``UTC``).
        currency: ISO 4217 code of the store's one currency (``UPTURN_CURRENCY``, default ``CNY``).
        rates: what one unit of another currency is worth in it (``UPTURN_RATES``, such as ``USD=7.1,EUR=7.7``).
        streams: clients of one worker that may listen for changes at once (``UPTURN_STREAMS``, default 64; 0: none).
        two_persons: whether who wrote an experiment or a policy may not start it or decide
            (``UPTURN_TWO_PERSONS=1``).
        oidc: the OpenID provider (``UPTURN_OIDC_*``).
        passwords: whether people may log in by a password (``UPTURN_PASSWORD_LOGIN``, default 1; 0 needs ``oidc``).
    """

    folder: Path
    database_url: str
    lake: Path
    timezone: str = "UTC"
    currency: str = "CNY"
    rates: Mapping[str, float] = field(default_factory=dict, hash=False)
    streams: int = 64
    two_persons: bool = False
    oidc: Oidc | None = None
    passwords: bool = True

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones, such as America
            raise InvalidDocument(
                [FieldProblem("timezone", self.timezone, "unknown_zone", "give an IANA zone such as Asia/Shanghai")],
                "settings",
            ) from None
        if not _is_code(self.currency):
            raise InvalidDocument(
                [FieldProblem("currency", self.currency, "bad_currency", "give an ISO 4217 code such as CNY")],
                "settings",
            )
        for code, rate in self.rates.items():
            if not (_is_code(code) and code != self.currency and math.isfinite(rate) and rate > 0):
                remedy = f"give a rate above 0 for ISO 4217 codes other than {self.currency}"
                raise InvalidDocument([FieldProblem(f"rates.{code}", rate, "bad_rate", remedy)], "settings")
        if not self.passwords and self.oidc is None:
            problem = FieldProblem("password_login", "0", "no_login", "leave it on, or set UPTURN_OIDC_ISSUER")
            raise InvalidDocument([problem], "settings")

    @classmethod
    def in_folder(
        cls,
        folder: Path | str,
        *,
        database_url: str | None = None,
        timezone: str = "UTC",
        currency: str = "CNY",
        rates: Mapping[str, float] | None = None,
    ) -> "Settings":
        """Settings of an embedded store in ``folder``."""
        folder = Path(folder).absolute()
        url = database_url or f"sqlite:///{folder / 'upturn.db'}"
        return cls(folder, url, folder / "lake", timezone, currency, rates or {})

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the settings from ``UPTURN_*`` variables."""
        base = cls.in_folder(
            environ.get("UPTURN_STORE", "upturn-store"),
            database_url=environ.get("UPTURN_DATABASE_URL"),
            timezone=environ.get("UPTURN_TIMEZONE", "UTC"),
            currency=environ.get("UPTURN_CURRENCY", "CNY"),
            rates=_rates(environ.get("UPTURN_RATES", "")),
        )
        lake = Path(environ["UPTURN_LAKE"]).absolute() if "UPTURN_LAKE" in environ else base.lake
        return replace(
            base,
            lake=lake,
            streams=_streams(environ.get("UPTURN_STREAMS", "64")),
            two_persons=_switch(environ, "two_persons", default=False),
            oidc=Oidc.from_env(environ),
            passwords=_switch(environ, "password_login", default=True),
        )

    def to_env(self) -> dict[str, str]:
        """Return the variables from which ``from_env`` reads these settings back."""
        return {
            "UPTURN_STORE": str(self.folder),
            "UPTURN_DATABASE_URL": self.database_url,
            "UPTURN_LAKE": str(self.lake),
            "UPTURN_TIMEZONE": self.timezone,
            "UPTURN_CURRENCY": self.currency,
            "UPTURN_RATES": ",".join(f"{code}={rate}" for code, rate in self.rates.items()),
            "UPTURN_STREAMS": str(self.streams),
            "UPTURN_TWO_PERSONS": str(int(self.two_persons)),
            "UPTURN_PASSWORD_LOGIN": str(int(self.passwords)),
            **(self.oidc.to_env() if self.oidc else {}),
        }


def _switch(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = environ.get(f"UPTURN_{name.upper()}", str(int(default)))
    if text not in ("0", "1"):
        raise InvalidDocument([FieldProblem(name, text, "bad_switch", "give 1 (on) or 0 (off)")], "settings")
    return text == "1"


def _mapping(text: str) -> tuple[str, tuple[tuple[str, str], ...]] | None:
    if not text.strip():
        return None
    claim, _, rest = text.partition(":")
    pairs = [tuple(part.strip() for part in pair.rpartition("=")[::2]) for pair in rest.split(",")]
    if not claim.strip() or not all(value and role in ROLES for value, role in pairs):
        remedy = f"give CLAIM: VALUE=ROLE, VALUE=ROLE; roles are {', '.join(ROLES)}"
        raise InvalidDocument([FieldProblem("oidc_role", text, "bad_mapping", remedy)], "settings")
    return claim.strip(), tuple((value, role) for value, role in pairs)


def _streams(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 10_000):
        problem = FieldProblem("streams", text, "bad_number", "give a whole number from 0 to 10000")
        raise InvalidDocument([problem], "settings")
    return int(text)


def _is_code(currency: str) -> bool:
    return len(currency) == 3 and currency.isascii() and currency.isalpha() and currency.isupper()


def _rates(text: str) -> dict[str, float]:
    rates: dict[str, float] = {}
    for part in text.split(",") if text.strip() else ():
        found = _RATE.fullmatch(part)
        if found is None or found[1] in rates:
            remedy = "give each currency once, such as USD=7.1,EUR=7.7"
            raise InvalidDocument([FieldProblem("rates", text, "bad_rate", remedy)], "settings")
        rates[found[1]] = float(found[2])
    return rates
