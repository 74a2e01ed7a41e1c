"""Qini and AUUC as causalml 0.18 and scikit-uplift 0.5.1 compute them, to compare with their numbers.

Not for decisions: both are relative to a total that may be near zero (causalml) or to a "perfect" order that no model
can know (scikit-uplift), and say nothing of chance. `stats.uplift` has what a report shows. Arrays (n,) of the users
of one treatment and its control; the sums up to a user are N_T, N_C (users) and Y_T, Y_C (outcomes).
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stats.errors import Problem, StatError
from stats.moments import Floats
from stats.uplift import check_ranking

__all__ = ["auuc_causalml", "auuc_sklift", "qini_causalml", "qini_sklift", "uplift_at_k_sklift"]

Ranking = tuple[Floats, npt.NDArray[np.bool_], Floats]
Points = Callable[[Floats, Floats, Floats, Floats], Floats]


def auuc_causalml(effect_scores: Floats, treated: npt.NDArray[Any], outcome: Floats, normalize: bool = True) -> float:
    """causalml's `auuc_score`: mean of the curve (Y_T / N_T - Y_C / N_C) k, the random line not subtracted.

    A point per user and the 0 before them; tied users one after the other in the order in which NumPy's unstable sort
    leaves them (so ties depend on the processor); interpolated until both groups have come. Normalised by the size of
    the last point. Raises StatError(zero_denominator) when that is 0, StatError(not_enough_data) when a group is empty.
    """
    n_t, n_c, y_t, y_c = _row_by_row(effect_scores, treated, outcome)
    lift = _from_zero(y_t * n_c - y_c * n_t, n_t * n_c)
    return float(_normalized(lift * np.arange(lift.size), normalize).mean())


def qini_causalml(effect_scores: Floats, treated: npt.NDArray[Any], outcome: Floats, normalize: bool = True) -> float:
    """causalml's `qini_score`: mean of the curve Y_T - Y_C N_T / N_C less the random line, as `auuc_causalml`."""
    n_t, n_c, y_t, y_c = _row_by_row(effect_scores, treated, outcome)
    curve = _normalized(_from_zero(y_t * n_c - y_c * n_t, n_c), normalize)
    return float(curve.mean() - curve[-1] / 2)


def auuc_sklift(effect_scores: Floats, treated: npt.NDArray[Any], outcome: npt.NDArray[Any]) -> float:
    """scikit-uplift's `uplift_auc_score`: trapezoid area of (Y_T / N_T - Y_C / N_C) k over the random line, relative.

    A point per distinct score; a group that has not come counts as mean 0. Divided by the area of the order that puts
    treated responders first and control responders last (Devriendt, Guns & Verbeke 2020). Outcomes 0 or 1 only.
    """
    s, t, y = _binary(effect_scores, treated, outcome)
    control_responders, treated_others = int((y * ~t).sum()), int(((1 - y) * t).sum())
    perfect = 2.0 * (y == t) + (y if control_responders > treated_others else t)
    return _relative_area((s, t, y), perfect, _uplift_points)


def qini_sklift(
    effect_scores: Floats, treated: npt.NDArray[Any], outcome: npt.NDArray[Any], negative_effect: bool = True
) -> float:
    """scikit-uplift's `qini_auc_score`: as `auuc_sklift` with Y_T - Y_C N_T / N_C (0 while there is no control user).

    The perfect order is treated responders, those without response, control responders; without `negative_effect` the
    curve that rises by 1 per user to its end and stays there. Raises StatError(zero_denominator) where there is no such
    curve, the treatment being of no use on the whole.
    """
    s, t, y = _binary(effect_scores, treated, outcome)
    if negative_effect:
        return _relative_area((s, t, y), np.where(t, y, -y), _qini_points)
    share, curve = _points((s, t, y), _qini_points)
    if curve[-1] <= 0:
        raise StatError(Problem.ZERO_DENOMINATOR)
    line = share[-1] * curve[-1] / 2
    best = np.trapezoid([0.0, curve[-1], curve[-1]], [0.0, curve[-1], share[-1]]) - line
    return _ratio(float(np.trapezoid(curve, share) - line), float(best))


def uplift_at_k_sklift(
    effect_scores: Floats,
    treated: npt.NDArray[Any],
    outcome: npt.NDArray[Any],
    k: float = 0.3,
    strategy: Literal["overall", "by_group"] = "overall",
) -> float:
    """scikit-uplift's `uplift_at_k`: difference of means among the first share k in (0, 1), cut to whole users.

    "overall" takes the first of all users, "by_group" the first of each group. Tied users come in reverse row order.
    Raises StatError(not_enough_data) when a group has nobody there.
    """
    s, t, y = _binary(effect_scores, treated, outcome)
    if not 0 < k < 1:
        raise ValueError(f"k must lie in (0, 1): {k}")
    if strategy not in ("overall", "by_group"):
        raise ValueError(f"strategy must be 'overall' or 'by_group', got {strategy!r}")
    order = np.argsort(s, kind="stable")[::-1]
    t, y = t[order], y[order]
    first = slice(int(s.size * k))
    if strategy == "overall":
        inside, outside = y[first][t[first]], y[first][~t[first]]
    else:
        inside, outside = y[t][: int(t.sum() * k)], y[~t][: int((~t).sum() * k)]
    if not (inside.size and outside.size):
        raise StatError(Problem.NOT_ENOUGH_DATA, treated=inside.size, control=outside.size)
    return float(inside.mean() - outside.mean())


def _row_by_row(effect_scores: Floats, treated: npt.NDArray[Any], outcome: Floats) -> list[Floats]:
    s, t, y = check_ranking(effect_scores, treated, outcome)
    # What pandas' sort_values(ascending=False) does.
    order = s.size - 1 - np.argsort(s[::-1])[::-1]
    t, y = t[order], y[order]
    return [np.cumsum(each, dtype=np.float64) for each in (t, ~t, y * t, y * ~t)]


def _from_zero(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient with a 0 in front, linear between its defined points."""
    defined = denominator > 0
    positions = np.concatenate([[0], np.flatnonzero(defined) + 1])
    values = np.concatenate([[0.0], numerator[defined] / denominator[defined]])
    filled: Floats = np.interp(np.arange(numerator.size + 1), positions, values)
    return filled


def _normalized(curve: Floats, normalize: bool) -> Floats:
    if not normalize:
        return curve
    if curve[-1] == 0:
        raise StatError(Problem.ZERO_DENOMINATOR)
    relative: Floats = curve / abs(curve[-1])
    return relative


def _binary(effect_scores: Floats, treated: npt.NDArray[Any], outcome: npt.NDArray[Any]) -> Ranking:
    s, t, y = check_ranking(effect_scores, treated, outcome)
    if not ((y == 0) | (y == 1)).all():
        raise ValueError("outcome must be 0 or 1, as scikit-uplift demands")
    return s, t, y


def _qini_points(n_t: Floats, n_c: Floats, y_t: Floats, y_c: Floats) -> Floats:
    incremental: Floats = y_t - y_c * np.divide(n_t, n_c, out=np.zeros_like(n_t), where=n_c > 0)
    return incremental


def _uplift_points(n_t: Floats, n_c: Floats, y_t: Floats, y_c: Floats) -> Floats:
    means = [np.divide(y, n, out=np.zeros_like(y), where=n > 0) for y, n in ((y_t, n_t), (y_c, n_c))]
    return (means[0] - means[1]) * (n_t + n_c)


def _points(ranking: Ranking, points: Points) -> tuple[Floats, Floats]:
    s, t, y = ranking
    order = np.argsort(-s, kind="stable")
    last = np.append(np.flatnonzero(np.diff(s[order])), s.size - 1)
    t, y = t[order], y[order]
    sums = [np.cumsum(each, dtype=np.float64)[last] for each in (t, ~t, y * t, y * ~t)]
    return np.concatenate([[0.0], last + 1.0]), np.concatenate([[0.0], points(*sums)])


def _relative_area(ranking: Ranking, perfect: Floats, points: Points) -> float:
    areas = []
    for scores in (ranking[0], perfect):
        share, curve = _points((scores, *ranking[1:]), points)
        areas.append(float(np.trapezoid(curve, share) - share[-1] * curve[-1] / 2))
    return _ratio(*areas)


def _ratio(area: float, perfect: float) -> float:
    if perfect == 0:
        raise StatError(Problem.ZERO_DENOMINATOR)
    return area / perfect
