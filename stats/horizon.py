"""When one may look: once, at a fixed horizon, or always. The effects ask a horizon and never branch themselves."""

from dataclasses import dataclass
from typing import Literal, Protocol, Self

from scipy.special import ndtr, ndtri, stdtr, stdtrit

from stats import groupsequential, sequential
from stats.groupsequential import Sides, Spending

__all__ = ["Fixed", "GroupSequential", "Horizon", "Sequential"]


class Horizon(Protocol):
    """Turns a standardised estimate into a critical value and a p value, each the dual of the other.

    `n` is the number of users in the arms compared, `df` the degrees of freedom of the standard error (None: known).
    One-sided means against "not above zero", at level alpha on that side.
    """

    @property
    def alpha(self) -> float:
        """Level of the test, (0, 1)."""

    def statistic_name(self, df: float | None) -> Literal["t", "z"]:
        """The reference distribution of the statistic."""

    def critical(self, n: int, df: float | None) -> float:
        """Half width of the two-sided interval in standard errors."""

    def p_value(self, statistic: float, n: int, df: float | None) -> float:
        """Two-sided p."""

    def critical_one_sided(self, n: int, df: float | None) -> float:
        """Distance of the one-sided bound in standard errors."""

    def p_value_one_sided(self, statistic: float, n: int, df: float | None) -> float:
        """One-sided p."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """One look, at a number of users chosen beforehand: Student's t, the normal where df is None."""

    alpha: float

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def statistic_name(self, df: float | None) -> Literal["t", "z"]:
        return "z" if df is None else "t"

    def critical(self, n: int, df: float | None) -> float:
        return _upper_quantile(self.alpha / 2, df)

    def p_value(self, statistic: float, n: int, df: float | None) -> float:
        return 2 * _upper_tail(abs(statistic), df)

    def critical_one_sided(self, n: int, df: float | None) -> float:
        return _upper_quantile(self.alpha, df)

    def p_value_one_sided(self, statistic: float, n: int, df: float | None) -> float:
        return _upper_tail(statistic, df)


@dataclass(frozen=True, slots=True)
class Sequential:
    """Any number of looks at any time: the asymptotic confidence sequence of `stats.sequential`."""

    alpha: float
    rho_squared: float

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)
        if not self.rho_squared > 0:
            raise ValueError(f"rho_squared must be positive: {self.rho_squared}")

    @classmethod
    def tuned(cls, alpha: float, users: float) -> Self:
        """The sequence that is tightest at `users` in the two arms compared, fixed before the start."""
        return cls(alpha, sequential.rho_squared(alpha, users))

    def statistic_name(self, df: float | None) -> Literal["t", "z"]:
        return "z"

    def critical(self, n: int, df: float | None) -> float:
        return sequential.multiplier(n, self.alpha, self.rho_squared)

    def p_value(self, statistic: float, n: int, df: float | None) -> float:
        return sequential.p_value(statistic, n, self.rho_squared)

    def critical_one_sided(self, n: int, df: float | None) -> float:
        return sequential.multiplier_one_sided(n, self.alpha, self.rho_squared)

    def p_value_one_sided(self, statistic: float, n: int, df: float | None) -> float:
        return sequential.p_value_one_sided(statistic, n, self.rho_squared)


@dataclass(frozen=True, slots=True)
class GroupSequential:
    """The last of a few looks: repeated intervals and p values of `stats.groupsequential`, valid at every look.

    `information` holds the fractions of all looks up to this one; `final` spends what is left at this one although
    its fraction is below 1. The reference is normal: not for looks at a few dozen users.
    """

    alpha: float
    information: tuple[float, ...]
    spending: Spending
    final: bool = False

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)
        groupsequential.check(self.information)

    def statistic_name(self, df: float | None) -> Literal["t", "z"]:
        return "z"

    def critical(self, n: int, df: float | None) -> float:
        return self._bound(2)

    def p_value(self, statistic: float, n: int, df: float | None) -> float:
        return groupsequential.sequential_p(statistic, self.information, self.spending, sides=2, final=self.final)

    def critical_one_sided(self, n: int, df: float | None) -> float:
        return self._bound(1)

    def p_value_one_sided(self, statistic: float, n: int, df: float | None) -> float:
        return groupsequential.sequential_p(statistic, self.information, self.spending, sides=1, final=self.final)

    def _bound(self, sides: Sides) -> float:
        looks = groupsequential.bounds(self.information, self.alpha, self.spending, sides=sides, final=self.final)
        return float(looks[-1])


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")


def _upper_tail(value: float, df: float | None) -> float:
    return float(ndtr(-value) if df is None else stdtr(df, -value))


def _upper_quantile(probability: float, df: float | None) -> float:
    return float(-ndtri(probability) if df is None else -stdtrit(df, probability))
