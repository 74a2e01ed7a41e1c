"""Several hypotheses at once: adjusted p values and intervals, family by family.

Families: the main metric's comparisons; all secondary metrics' comparisons; each metric's segments. So neither a
further metric nor a further segment changes the answer to the main question. Guardrails stay as they are: they can
only hold a variant back, and asking them all to pass needs no correction (Schultzberg, Ankargren & Fränberg 2024).
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import structs

from experiments.analysis.comparisons import Compared
from experiments.fields import Role
from experiments.report import Comparison, Interval
from stats import multiplicity

Correction = Literal["holm", "bh", "none"]


def adjust(
    metrics: Sequence[tuple[Role, Sequence[Compared]]], correction: Correction, alpha: float
) -> list[list[Comparison]]:
    """Return each metric's comparisons with adjusted p, significance and the interval that agrees with it.

    Args:
        metrics: the role of each metric, and its comparisons.
        correction: over the members of a family.
        alpha: level of each family.
    """
    families: dict[tuple[str, object], list[tuple[int, int]]] = {}
    for m, (role, compared) in enumerate(metrics):
        for c, entry in enumerate(compared):
            comparison = entry.comparison
            if comparison.p_value is None:
                continue
            if comparison.segment is not None:
                family: tuple[str, object] = ("segments", m)
            elif role is Role.guardrail:
                family = ("guardrail", (m, c))
            else:
                family = ("all", role)
            families.setdefault(family, []).append((m, c))
    result = [[entry.comparison for entry in compared] for _, compared in metrics]
    for family, places in families.items():
        members = [metrics[m][1][c] for m, c in places]
        alone = "none" if family[0] == "guardrail" else correction
        for (m, c), changed in zip(places, _family(members, alone, alpha), strict=True):
            result[m][c] = changed
    return result


def _family(members: Sequence[Compared], correction: Correction, alpha: float) -> list[Comparison]:
    p_values = [member.comparison.p_value or 0.0 for member in members]
    if correction == "holm":
        adjusted = multiplicity.holm(p_values)
        # Bonferroni's intervals cover all at once. Holm may claim more than they do: then none agrees with it.
        levels = [
            alpha / len(members) if (p < alpha) == (raw < alpha / len(members)) else None
            for p, raw in zip(adjusted, p_values, strict=True)
        ]
    elif correction == "bh":
        adjusted = multiplicity.benjamini_hochberg(p_values)
        # A p value that equals alpha is no claim here, as its interval does not leave out zero.
        claimed = [raw if p < alpha else 1.0 for p, raw in zip(adjusted, p_values, strict=True)]
        level = multiplicity.fcr_level(claimed, alpha)
        levels = [level if p < alpha else None for p in adjusted]
    else:
        adjusted, levels = list(p_values), [alpha] * len(members)
    return [
        structs.replace(
            member.comparison,
            p_adjusted=p,
            significant=p < alpha,
            adjusted=_interval(member, level, alpha),
        )
        for member, p, level in zip(members, adjusted, levels, strict=True)
    ]


def _interval(member: Compared, level: float | None, alpha: float) -> Interval | None:
    if level is None:
        return None
    if level == alpha:
        return member.comparison.absolute
    return None if member.at is None else member.at(level)
