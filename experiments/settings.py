"""Where a store keeps its things and how it counts days and money."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from experiments.errors import FieldProblem, InvalidDocument


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one store, read once at start.

    Attributes:
        folder: folder of the embedded store: database, lake, secret (``UPTURN_STORE``, default ``upturn-store``).
        database_url: SQLAlchemy URL of the record (``UPTURN_DATABASE_URL``, default SQLite in ``folder``).
        lake: folder of the Parquet files (``UPTURN_LAKE``, default ``folder/lake``).
        timezone: IANA zone in which days and weeks are cut (``UPTURN_TIMEZONE``, default ``UTC``).
        currency: ISO 4217 code of the store's one currency (``UPTURN_CURRENCY``, default ``CNY``).
    """

    folder: Path
    database_url: str
    lake: Path
    timezone: str = "UTC"
    currency: str = "CNY"

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones, such as America
            raise InvalidDocument(
                [FieldProblem("timezone", self.timezone, "unknown_zone", "give an IANA zone such as Asia/Shanghai")],
                "settings",
            ) from None
        if not (
            len(self.currency) == 3 and self.currency.isascii() and self.currency.isalpha() and self.currency.isupper()
        ):
            raise InvalidDocument(
                [FieldProblem("currency", self.currency, "bad_currency", "give an ISO 4217 code such as CNY")],
                "settings",
            )

    @classmethod
    def in_folder(
        cls,
        folder: Path | str,
        *,
        database_url: str | None = None,
        timezone: str = "UTC",
        currency: str = "CNY",
    ) -> "Settings":
        """Settings of an embedded store in ``folder``."""
        folder = Path(folder).absolute()
        url = database_url or f"sqlite:///{folder / 'upturn.db'}"
        return cls(folder, url, folder / "lake", timezone, currency)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the settings from ``UPTURN_*`` variables."""
        base = cls.in_folder(
            environ.get("UPTURN_STORE", "upturn-store"),
            database_url=environ.get("UPTURN_DATABASE_URL"),
            timezone=environ.get("UPTURN_TIMEZONE", "UTC"),
            currency=environ.get("UPTURN_CURRENCY", "CNY"),
        )
        if "UPTURN_LAKE" not in environ:
            return base
        lake = Path(environ["UPTURN_LAKE"]).absolute()
        return cls(base.folder, base.database_url, lake, base.timezone, base.currency)

    def to_env(self) -> dict[str, str]:
        """Return the variables from which ``from_env`` reads these settings back."""
        return {
            "UPTURN_STORE": str(self.folder),
            "UPTURN_DATABASE_URL": self.database_url,
            "UPTURN_LAKE": str(self.lake),
            "UPTURN_TIMEZONE": self.timezone,
            "UPTURN_CURRENCY": self.currency,
        }
