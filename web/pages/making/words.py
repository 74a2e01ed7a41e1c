"""What the guided form calls things: templates, their variants and metrics, channels, concerns, reasons."""

from collections.abc import Mapping

from flask_babel import lazy_gettext as _

from experiments.conflicts import Concern, ConcernCode, Weight
from experiments.presets import ArmCode, PresetCode
from experiments.sdk.experiment import Reason
from web import sentences
from web.formats import Formats
from web.languages import gettext

STEPS: Mapping[str, object] = {
    "goal": _("Goal"),
    "audience": _("Audience"),
    "variants": _("Variants"),
    "metrics": _("Metrics"),
    "plan": _("Plan"),
    "check": _("Check and start"),
}

PRESETS: Mapping[PresetCode, tuple[object, object]] = {
    PresetCode.copy_test: (_("Copy test"), _("Does another text make more people click and buy?")),
    PresetCode.coupon_test: (_("Coupon test"), _("Does a coupon bring in more than it costs, and which amount?")),
    PresetCode.frequency_test: (_("Frequency test"), _("How often should we write before people leave?")),
    PresetCode.win_back: (
        _("Win-back"),
        _("What brings dormant customers back: a reminder, or a reminder with a coupon?"),
    ),
    PresetCode.factorial: (
        _("Copy × offer"),
        _("Text and offer at once: what does each do, and do they help each other?"),
    ),
    PresetCode.blank: (_("Blank"), _("Start from nothing.")),
}

HYPOTHESES: Mapping[PresetCode, object] = {
    PresetCode.copy_test: _("The new text gets more clicks than the usual one."),
    PresetCode.coupon_test: _("A coupon raises revenue per user by more than it costs."),
    PresetCode.frequency_test: _("More messages a week bring more orders, without more people unsubscribing."),
    PresetCode.win_back: _("A reminder brings dormant customers back, and a coupon brings back more."),
    PresetCode.factorial: _("The new text and the coupon each bring more orders, and more still together."),
    PresetCode.blank: "",
}

_USUAL = _("New arrivals are in. Have a look today!")
_NEW = _("We kept something for you: today only, just for members.")
_MISS = _("It has been a while! Here is what is new since your last order.")

ARMS: Mapping[ArmCode, tuple[object, object, object]] = {
    ArmCode.nothing: (_("No message"), "", ""),
    ArmCode.usual_copy: (_("Usual text"), _USUAL, ""),
    ArmCode.new_copy: (_("New text"), _NEW, ""),
    ArmCode.no_coupon: (_("No coupon"), _USUAL, ""),
    ArmCode.small_coupon: (_("Coupon of 10"), _USUAL, _("Coupon of 10")),
    ArmCode.large_coupon: (_("Coupon of 20"), _USUAL, _("Coupon of 20")),
    ArmCode.weekly: (_("Once a week"), _USUAL, ""),
    ArmCode.twice_weekly: (_("Twice a week"), _USUAL, ""),
    ArmCode.four_weekly: (_("Four times a week"), _USUAL, ""),
    ArmCode.reminder: (_("Reminder"), _MISS, ""),
    ArmCode.reminder_coupon: (_("Reminder with a coupon"), _MISS, _("Coupon of 10")),
    ArmCode.usual_plain: (_("Usual text, no coupon"), _USUAL, ""),
    ArmCode.usual_coupon: (_("Usual text, coupon"), _USUAL, _("Coupon of 10")),
    ArmCode.new_plain: (_("New text, no coupon"), _NEW, ""),
    ArmCode.new_with_coupon: (_("New text, coupon"), _NEW, _("Coupon of 10")),
}

METRICS: Mapping[str, object] = {
    "order_rate": _("Order rate (7 days)"),
    "click_rate": _("Click rate (1 day)"),
    "revenue_per_user": _("Revenue per user (14 days)"),
    "unsubscribe_rate": _("Unsubscribe rate"),
    "complaint_rate": _("Complaint rate"),
}
SEGMENTS: Mapping[str, object] = {"dormant": _("Dormant (no order for 60 days)")}

CHANNELS: Mapping[str, object] = {
    "push": _("Push notification"),
    "sms": _("SMS"),
    "in_app": _("Pop-up card in the app"),
    "wecom": _("WeCom"),
    "email": _("E-mail"),
}
PERIODS: Mapping[str, object] = {
    "day": _("a day"),
    "week": _("a week"),
    "month": _("a month"),
    "quarter": _("a quarter"),
}
OPERATORS: Mapping[str, object] = {
    "$gte": _("is at least"),
    "$lte": _("is at most"),
    "$eq": _("is"),
    "$ne": _("is not"),
    "$gt": _("is more than"),
    "$lt": _("is less than"),
    "$in": _("is one of (separate by commas)"),
}
KINDS: Mapping[str, object] = {
    "conversion": _("Share of users who do it"),
    "mean": _("Number or sum per user"),
    "retention": _("Share of users who come back on that day"),
}
WEIGHTS: Mapping[Weight, object] = {
    Weight.blocks: _("Prevents the start"),
    Weight.warning: _("Please look at this"),
    Weight.note: _("Good to know"),
}
ANSWERS: Mapping[Reason, object] = {
    Reason.assigned: _("Drawn by chance, as planned."),
    Reason.forced: _("A tester: the variant is set by hand."),
    Reason.sticky: _("Saw this variant before, and keeps it."),
    Reason.not_running: _("The experiment is not running."),
    Reason.unknown_experiment: _("There is no such experiment."),
    Reason.no_user_id: _("No user id was given."),
    Reason.not_in_audience: _("The rule of the audience does not hold for this user."),
    Reason.in_holdout: _("In a holdout: kept out of all experiments."),
    Reason.outside_layer: _("In another part of the layer."),
    Reason.no_stratum: _("In none of the segments of the experiment."),
    Reason.not_covered: _("Outside the share of users who take part."),
}


def concern(found: Concern, formats: Formats, names: Mapping[str, str]) -> str:
    """Return a concern as a sentence; ``names`` are those of experiments by key."""
    facts: dict[str, object] = {
        "other": names.get(found.experiment or "", found.experiment),
        "users": "" if found.users is None else formats.count(found.users),
        "share": "" if found.share is None else formats.percent(found.share),
        "event": found.event,
        "metric": names.get(found.metric or "", found.metric),
        "channel": str(CHANNELS.get(found.channel or "", found.channel)),
        "detail": str(sentences.ERRORS.get(found.detail or "", found.detail)),
    }
    if found.code is ConcernCode.same_channel and found.users is None:
        return gettext("“%(other)s” runs on the same channel (%(channel)s).", **facts)
    return str(CONCERNS[found.code]) % facts


CONCERNS: Mapping[ConcernCode, object] = {
    ConcernCode.layer_taken: _(
        "“%(other)s” uses a part of the same range of the layer (%(detail)s): choose a free range."
    ),
    ConcernCode.no_users_match: _("No user on record would take part: check the audience, or send attributes first."),
    ConcernCode.too_few_users: _(
        "Only %(users)s users on record would take part, %(share)s of those planned: it needs new users to come, "
        "or a wider audience."
    ),
    ConcernCode.event_not_seen: _(
        "The event “%(event)s” of “%(metric)s” has not arrived in the last 30 days: check its name with the app’s "
        "developers."
    ),
    ConcernCode.same_channel: _(
        "“%(other)s” writes through the same channel (%(channel)s) to %(users)s of these users (%(share)s): "
        "they would get both messages."
    ),
    ConcernCode.audience_overlap: _(
        "%(users)s of these users (%(share)s) also take part in “%(other)s”. Both results stay right; put both in one "
        "layer if no user should get both."
    ),
    ConcernCode.schedule_refused: _("The scheduled step was refused: %(detail)s. It is tried again every minute."),
}

FIELDS: Mapping[str, object] = {
    "name": _("Name"),
    "hypothesis": _("What do you expect, and why?"),
    "owner": _("Owner"),
    "tags": _("Tags"),
    "segments": _("Segments"),
    "coverage": _("Share of them who take part"),
    "copy": _("Text"),
    "offer": _("Offer"),
    "cost": _("Cost of the offer per user"),
    "touches": _("How often"),
    "weight": _("Share of users"),
    "channel": _("Channel"),
    "primary": _("What decides?"),
    "guardrails": _("What must not get worse?"),
    "secondary": _("Also watch"),
    "planned": _("Users planned"),
    "start_at": _("Start at"),
    "stop_at": _("Stop at"),
    "adaptive": _("Let the shares follow the evidence"),
    "a_floor": _("Least share of each variant"),
    "a_hours": _("Hours between two waves, at least"),
    "a_wave": _("Users of each wave"),
}


def methods(chosen: str) -> list[tuple[str, str]]:
    """The ways of reading an answer that can be chosen, and the one that a document already has."""
    offered = ["sequential", "fixed", *([chosen] if chosen in ("group_sequential", "bayes") else [])]
    return [(code, str(sentences.METHODS[code])) for code in offered]
