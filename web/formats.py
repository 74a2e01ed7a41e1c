"""Numbers, money and times as people read them, in a locale, in the store's currency and time zone."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from math import floor, log10
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_datetime
from babel.lists import format_list
from babel.numbers import format_currency, format_decimal, format_percent

from experiments.report import Interval, MetricReport

MINUS = "−"
_MOST_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Formats:
    """How one reader reads numbers."""

    locale: Locale
    currency: str
    zone: ZoneInfo

    @property
    def chinese(self) -> bool:
        return str(self.locale.language) == "zh"

    def _measure(self, unit: str, *, signed: bool) -> str:
        """Return what follows a number: of shares only changes have a measure of their own."""
        if unit == "share" and signed:
            if str(self.locale.script) == "Hant":
                return " 個百分點"
            return " 个百分点" if self.chinese else " pp"
        if unit == "days":
            return " 天" if self.chinese else " days"
        return ""

    def count(self, value: int) -> str:
        """Return a whole number."""
        return format_decimal(value, locale=self.locale)

    def level(self, unit: str, value: float, precision: float | None = None) -> str:
        """Return a metric's own value: 10.6%, $1.42, 3.2; ``precision`` is about its standard error."""
        return self._text(unit, value, precision or abs(value), signed=False)

    def change(self, unit: str, value: float, precision: float) -> str:
        """Return an absolute effect with its sign: +7.66 pp, −$0.12, +3.2."""
        return self._text(unit, value, precision, signed=True)

    def interval(self, unit: str, interval: Interval, precision: float) -> tuple[str, str, str]:
        """Return an absolute effect and the limits of its interval; a unit of measure follows the last number only."""
        lower = self.change(unit, interval.lower, precision).removesuffix(self._measure(unit, signed=True))
        return self.change(unit, interval.estimate, precision), lower, self.change(unit, interval.upper, precision)

    def relative(self, interval: Interval) -> tuple[str, str, str]:
        """Return a relative effect and its limits, in percent."""
        known = (interval.upper - interval.lower) / 4
        estimate, lower, upper = (
            self._percent(value, _decimals(known * 100), signed=True)
            for value in (interval.estimate, interval.lower, interval.upper)
        )
        return estimate, lower, upper

    def money(self, amount: float, currency: str | None = None, *, signed: bool = True) -> str:
        """Return an amount of money; large amounts without cents."""
        return self._money(amount, 0 if abs(amount) >= 100 else 2, signed=signed, currency=currency)

    def share(self, share: float) -> str:
        """Return a share as a percentage with one decimal."""
        return self._percent(share, 1, signed=False)

    def percent(self, share: float) -> str:
        """Return a share that was set by hand as a percentage, without needless decimals."""
        return format_percent(share, "#,##0.#%", locale=self.locale)

    def chance(self, probability: float) -> str:
        """Return a probability as a percentage that never claims certainty."""
        if probability > 0.999:
            return f">{self._percent(0.999, 1, signed=False)}"
        if probability < 0.001:
            return f"<{self._percent(0.001, 1, signed=False)}"
        return self._percent(probability, 1, signed=False)

    def p_value(self, p: float) -> str:
        """Return a p value with three decimals."""
        return "<0.001" if p < 0.0005 else format_decimal(p, "0.000", locale=self.locale)

    def plain(self, value: float, digits: int = 4) -> str:
        """Return a number with so many significant digits, for checking against other programs."""
        decimals = max(0, digits - 1 - floor(log10(abs(value)))) if value else 0
        return format_decimal(value, f"#,##0.{'#' * min(decimals, 12)}", locale=self.locale).replace("-", MINUS)

    def moment(self, instant: datetime | str) -> str:
        """Return date and time in the store's zone."""
        instant = datetime.fromisoformat(instant) if isinstance(instant, str) else instant
        pattern = "y年M月d日 HH:mm" if self.chinese else "d MMM y, HH:mm"
        return format_datetime(instant, pattern, tzinfo=self.zone, locale=self.locale)

    def day(self, day: str) -> str:
        """Return a day given as YYYY-MM-DD."""
        return format_date(date.fromisoformat(day), "y年M月d日" if self.chinese else "d MMM y", locale=self.locale)

    def names(self, names: Iterable[str]) -> str:
        """Return names as a list in a sentence."""
        return format_list(list(names), locale=self.locale)

    def _text(self, unit: str, value: float, precision: float, *, signed: bool) -> str:
        if unit == "share":
            decimals = _decimals(precision * 100)
            if not signed:
                return self._percent(value, max(decimals, 1), signed=False)
            return self._number(value * 100, decimals, signed=True) + self._measure(unit, signed=True)
        if unit == "money":
            return self._money(value, max(_decimals(precision), 0 if abs(value) >= 100 else 2), signed=signed)
        return self._number(value, _decimals(precision), signed=signed) + self._measure(unit, signed=signed)

    def _number(self, value: float, decimals: int, *, signed: bool) -> str:
        rounded = round(value, decimals)
        return _sign(rounded, signed) + format_decimal(abs(rounded), _pattern(decimals), locale=self.locale)

    def _percent(self, share: float, decimals: int, *, signed: bool) -> str:
        rounded = round(share, decimals + 2)
        text = format_percent(abs(rounded), f"{_pattern(decimals)}%", locale=self.locale, decimal_quantization=True)
        return _sign(rounded, signed) + text

    def _money(self, amount: float, decimals: int, *, signed: bool, currency: str | None = None) -> str:
        rounded = round(amount, decimals)
        text = format_currency(
            abs(rounded),
            currency or self.currency,
            f"¤{_pattern(decimals)}",
            locale=self.locale,
            currency_digits=False,
        )
        return _sign(rounded, signed) + text


def precision(metric: MetricReport) -> float:
    """Return to what the effects on a metric are known: about the standard error of the least certain one.

    One for the whole metric, so that its numbers line up.
    """
    return known_to(c.absolute for c in metric.comparisons if c.segment is None and c.absolute)


def known_to(intervals: Iterable[Interval]) -> float:
    """Return the same for any intervals that stand together."""
    return max((interval.upper - interval.lower for interval in intervals), default=0.0) / 4


def _decimals(precision: float) -> int:
    """Return how many decimals show two digits of ``precision``."""
    if precision <= 0:
        return 2
    return min(max(1 - floor(log10(precision)), 0), _MOST_DECIMALS)


def _pattern(decimals: int) -> str:
    return f"#,##0.{'0' * decimals}" if decimals else "#,##0"


def _sign(value: float, signed: bool) -> str:
    if value < 0:
        return MINUS
    return "+" if signed and value > 0 else ""
