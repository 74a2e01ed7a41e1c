"""Where a store keeps its things and how it counts days and money."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from experiments.errors import FieldProblem, InvalidDocument

_RATE = re.compile(r"\s*([A-Z]{3})=(\d+\.?\d*(?:e[+-]?\d+)?)\s*", re.ASCII)


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
    """

    folder: Path
    database_url: str
    lake: Path
    timezone: str = "UTC"
    currency: str = "CNY"
    rates: Mapping[str, float] = field(default_factory=dict, hash=False)
    streams: int = 64

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
        return replace(base, lake=lake, streams=_streams(environ.get("UPTURN_STREAMS", "64")))

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
        }


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
