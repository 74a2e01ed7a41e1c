"""What a study of uplift answers, in words: for whom it pays, why, and what that brings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from experiments.report import Interval
from experiments.uplift.report import PolicyValue, Uplift
from web import sentences, targeting
from web.formats import Formats
from web.languages import gettext
from web.pages.reports.parts import p_is

_TONES: Mapping[str, str] = {"target": "ship", "rank": "ship", "everyone": "ship", "nobody": "stop"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the study was about, in the names of the page: a metric, whether its unit is money, variants, segments.

    ``monthly_users``: 0 where the experiment says nothing of money a month on this metric.
    """

    metric: str
    money: bool
    names: tuple[tuple[str, str], ...]
    monthly_users: int
    segments: tuple[tuple[str, str], ...] = ()

    def name(self, variant: str) -> str:
        return dict(self.names).get(variant, variant)

    def segment(self, key: str) -> str:
        return dict(self.segments).get(key, key)


@dataclass(frozen=True, slots=True)
class Amounts:
    """How the amounts of one study are written: to the precision that its errors allow, so that they line up."""

    formats: Formats
    unit: str
    known: float

    def effect(self, interval: Interval) -> str:
        estimate, lower, upper = self.formats.interval(self.unit, interval, self.known)
        return gettext("%(estimate)s (%(lower)s to %(upper)s)", estimate=estimate, lower=lower, upper=upper)

    def level(self, value: float) -> str:
        return self.formats.level(self.unit, value, self.known)

    def sum(self, value: float, *, signed: bool = True) -> str:
        """Return an amount over many users."""
        if self.unit == "money":
            return self.formats.money(value, signed=signed)
        precision = 10.0 if abs(value) >= 100 else 1.0
        text = self.formats.change("amount", value, precision)
        return text if signed else text.lstrip("+")

    def total(self, interval: Interval) -> str:
        lower, upper = self.sum(interval.lower), self.sum(interval.upper)
        return gettext(
            "%(estimate)s (%(lower)s to %(upper)s)", estimate=self.sum(interval.estimate), lower=lower, upper=upper
        )


@dataclass(frozen=True, slots=True)
class Said:
    """The answer in words: ``tone`` chooses shape and colour, ``worth`` is what it brings."""

    verdict: str
    tone: str
    label: str
    sentence: str
    worth: str
    reasons: list[str]


def amounts(report: Uplift, asked: Asked, formats: Formats) -> Amounts:
    """Return how the amounts of a report are written."""
    unit = "money" if asked.money else report.unit
    return Amounts(
        formats, unit, max(each.over_control.upper - each.over_control.lower for each in report.policies) / 4
    )


def said(report: Uplift, asked: Asked, money: Amounts) -> Said:
    """Return the answer of a report in words."""
    best = _best(report)
    return Said(
        verdict=report.verdict,
        tone=_TONES.get(report.verdict, report.verdict),
        label=sentences.known(targeting.STUDY_VERDICTS, report.verdict),
        sentence=_sentence(report, asked),
        worth=_worth(report, best, asked, money),
        reasons=list(_reasons(report, asked, money)),
    )


def _best(report: Uplift) -> PolicyValue:
    """What is advised: the targeting with the surest gain, or one variant for all."""
    if report.verdict == "target":
        return max((each for each in report.policies if each.gain is not None), key=_surest)
    wanted = report.variant or report.control
    return next(each for each in report.policies if each.policy == "constant" and each.variant == wanted)


def _surest(policy: PolicyValue) -> float:
    assert policy.gain is not None
    return policy.gain.lower


def _sentence(report: Uplift, asked: Asked) -> str:
    variant = asked.name(report.variant or report.control)
    match report.verdict:
        case "target":
            return gettext("Give different users different variants.")
        case "rank":
            return gettext(
                "Give all “%(variant)s”; if you cannot reach all, take the top of the list.", variant=variant
            )
        case "everyone":
            return gettext("No usable difference between users: give everyone “%(variant)s”.", variant=variant)
        case "nobody":
            return gettext(
                "No usable difference between users, and it loses for all: keep “%(variant)s”.", variant=variant
            )
        case "invalid":
            return gettext("Do not use this: the predictions know who got what.")
    return gettext("No usable difference between users, and no variant is shown to be better for all.")


def _worth(report: Uplift, best: PolicyValue, asked: Asked, money: Amounts) -> str:
    if report.verdict in ("invalid", "inconclusive", "nobody"):
        return ""
    gain = best.gain if report.verdict == "target" and best.gain is not None else best.over_control
    if asked.monthly_users:
        month = money.total(_times(gain, asked.monthly_users))
        if report.verdict == "target":
            return gettext("%(money)s a month more than the best variant for all", money=month)
        return gettext("%(money)s a month more than “%(control)s”", money=month, control=asked.name(report.control))
    each = money.effect(gain)
    if report.verdict == "target":
        return gettext("%(effect)s per user more than the best variant for all", effect=each)
    return gettext("%(effect)s per user more than “%(control)s”", effect=each, control=asked.name(report.control))


def _times(interval: Interval, count: float) -> Interval:
    return Interval(interval.estimate * count, interval.lower * count, interval.upper * count)


def _reasons(report: Uplift, asked: Asked, money: Amounts) -> Iterator[str]:
    if report.verdict == "invalid":
        yield gettext(
            "Who got “%(variant)s” can be told from what should have been known before (%(p)s). An attribute was "
            "written only after the treatment, or the split was not the planned one. Leave that attribute out "
            "and study again.",
            variant=asked.name(report.leakage.variant),
            p=p_is(report.leakage.p_value, money.formats),
        )
        return
    p = p_is(report.p_value, money.formats)
    if report.usable:
        yield gettext("Users do differ in what they gain: the list is better than chance (%(p)s).", p=p)
    else:
        yield gettext("No list of users is better than a random one (%(p)s).", p=p)
    if report.verdict == "rank":
        yield gettext("No choice by user is shown to beat one variant for all.")
    if report.verdict == "target":
        best = _best(report)
        shares = [
            gettext("%(share)s get “%(variant)s”", share=money.formats.share(share), variant=asked.name(variant))
            for variant, share in best.shares.items()
            if share > 0
        ]
        yield gettext("So %(shares)s.", shares=money.formats.names(shares))


def policy_name(policy: PolicyValue, asked: Asked) -> str:
    """Return what a way of treating all users is called."""
    if policy.policy == "constant":
        return gettext("Everyone “%(variant)s”", variant=asked.name(policy.variant or ""))
    return sentences.known(targeting.POLICIES, policy.policy)
