"""Shares that followed the evidence: how they moved from wave to wave, and how the result is read from that."""

from experiments.documents import Experiment
from experiments.report import ArmValue, Report
from experiments.waves import Adaptive, label
from web import charts, sentences
from web.formats import Formats
from web.languages import gettext, ngettext
from web.pages.reports.parts import Grid, Part, grid, p_value
from web.pages.reports.verdict import names

# From so many on there is a movement to draw.
_DRAWN = 2


def moved(report: Report, formats: Formats) -> Part | None:
    """Return how the shares moved; None where they were fixed."""
    found = report.adaptive
    if found is None:
        return None
    metric = next((metric.name for metric in report.metrics if metric.metric == found.metric), found.metric)
    said = [
        gettext(
            "Users come in waves. Once enough of them had been compared, each further wave opened with more users for "
            "what did better on %(metric)s, and with %(floor)s at least for every variant. %(open)s of all users are "
            "in a wave.",
            metric=metric,
            floor=formats.percent(found.floor),
            open=formats.percent(found.open),
        ),
        gettext(
            "Within a wave the shares are fixed, so each wave is a fair test of its own: the differences are taken "
            "within waves and combined. The users of all waves thrown together would mislead, and are not compared."
        ),
    ]
    values = [_value(report, arm, formats) for arm in found.arms]
    if any(arm.value is not None for arm in found.arms):
        said.append(
            gettext(
                "%(metric)s, had everyone been given the variant: %(values)s.",
                metric=report.primary().name,
                values=("；" if formats.chinese else "; ").join(values),
            )
        )
    drawn = [charts.waves(report, found, formats)] if len(found.waves) >= _DRAWN else []
    hint = gettext("The broken line is the least share of a variant.") if drawn else ""
    return Part("waves", gettext("How the shares moved"), said, hint, drawn, history(report, formats))


def history(report: Report, formats: Formats) -> Grid | None:
    """Return the waves as a table: when each opened, the shares and users of each variant, and whether they agree."""
    if report.adaptive is None:
        return None
    named = names(report)
    rows = [
        [
            gettext("Wave %(number)s", number=wave.number),
            formats.moment(wave.opened_at),
            formats.percent(wave.size),
            *(_users(wave.shares[variant], wave.observed.get(variant, 0), formats) for variant in named),
            p_value(wave.p_value, formats),
        ]
        for wave in report.adaptive.waves
    ]
    heads = [gettext("Share of all users"), *named.values(), gettext("p of the split")]
    return grid([gettext("Wave"), gettext("Opened")], heads, rows)


def planned(adaptive: Adaptive, metric: str, formats: Formats) -> str:
    """Return what a plan says of its adaptive shares."""
    return gettext(
        "The shares follow the evidence: every %(hours)s hours at the earliest a wave of %(wave)s of all users comes "
        "in, with more of them for what does better on %(metric)s, and %(floor)s at least for every variant. The first "
        "waves are split evenly, until %(users)s users have been compared.",
        hours=formats.count(adaptive.every_hours),
        wave=formats.percent(adaptive.wave),
        floor=formats.percent(adaptive.floor),
        metric=metric,
        users=formats.count(adaptive.burn_in_users),
    )


def named_after(experiment: str, stratum: str) -> str | None:
    """Return what a wave is called; None of a stratum that is none."""
    number = stratum.removeprefix(label(experiment, 0)[:-1])
    return None if number == stratum else gettext("Wave %(number)s", number=number)


def waves_of(experiment: Experiment) -> dict[str, str]:
    """Return the names of an experiment's waves by stratum."""
    keys = [label(experiment.key, number) for number in range(1, len(experiment.waves) + 1)]
    return {key: named_after(experiment.key, key) or key for key in keys}


def _users(share: float, users: int, formats: Formats) -> str:
    count = ngettext("%(count)s user", "%(count)s users", users, count=formats.count(users))
    return f"{formats.share(share)} · {count}"


def _value(report: Report, arm: ArmValue, formats: Formats) -> str:
    name, unit = names(report)[arm.variant], report.primary().unit
    if arm.value is None:
        return f"{name} –" if arm.problem is None else f"{name}: {sentences.known(sentences.PROBLEMS, arm.problem)}"
    value = arm.value
    level, lower, upper = (formats.level(unit, number) for number in (value.estimate, value.lower, value.upper))
    return gettext(
        "%(variant)s %(level)s (%(lower)s to %(upper)s)", variant=name, level=level, lower=lower, upper=upper
    )
