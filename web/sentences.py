"""Codes as sentences: every code that a page can show, in the reader's language. Pages never show a raw code."""

from collections.abc import Mapping

from flask_babel import lazy_gettext as _

from experiments import audit, schedule, waves
from experiments.codes import HealthCode, ReasonCode, Verdict
from experiments.documents import Status
from experiments.fields import Direction, Role
from stats.errors import Problem
from web.formats import Formats
from web.languages import gettext, ngettext

VERDICTS: Mapping[str, object] = {
    Verdict.ship: _("Roll it out"),
    Verdict.stop: _("Stop"),
    Verdict.keep_running: _("Keep running"),
    Verdict.inconclusive: _("No clear answer"),
    Verdict.invalid: _("Cannot be trusted"),
}

REASONS: Mapping[str, object] = {
    ReasonCode.primary_better: _("The main metric is better than control, beyond chance."),
    ReasonCode.primary_worse: _("Every variant does worse than control on the main metric, beyond chance."),
    ReasonCode.primary_not_significant: _("The difference on the main metric could still be chance."),
    ReasonCode.planned_size_not_reached: _("The planned number of users has not been reached yet."),
    ReasonCode.no_matured_users: _("No user's observation window has closed yet, so there is nothing to compare."),
    ReasonCode.sample_ratio_mismatch: _("Users did not arrive in the planned proportions."),
    ReasonCode.too_many_crossovers: _("Too many users saw more than one variant."),
    ReasonCode.guardrail_harmed: _("A guardrail metric was harmed."),
    ReasonCode.guardrail_not_proven: _("A guardrail metric has not been shown to be safe yet."),
    ReasonCode.segment_harmed: _("Some segments do worse with it; they are left out."),
    ReasonCode.value_uncertain: _("It may still lose money: the range includes a loss."),
    ReasonCode.value_negative: _("It costs more than it brings in."),
    ReasonCode.before_first_look: _("The first planned look has not been reached yet."),
    ReasonCode.futile: _("Even the rest of the plan would hardly show the effect that was planned for."),
}

PROBLEMS: Mapping[str, object] = {
    Problem.NOT_ENOUGH_DATA: _("Too few users to compare."),
    Problem.ZERO_VARIANCE: _("All users have the same value, so there is nothing to compare."),
    Problem.ZERO_DENOMINATOR: _("The denominator is zero, so there is no ratio."),
    Problem.LIFT_NOT_IDENTIFIED: _("Control is too close to zero for a percentage."),
    Problem.NO_CONTROL: _("There are no control users to compare with."),
    Problem.SAMPLE_RATIO_MISMATCH: _("Users did not arrive in the planned proportions."),
    Problem.UNEXPECTED_USERS: _("There are users in a variant that should have none."),
    Problem.HORIZON_NOT_REACHED: _("The users have not been watched long enough yet."),
    Problem.WEAK_INSTRUMENT: _("Too few more were reached than in control to tell the effect on them."),
    Problem.TRIGGER_UNBALANCED: _("The variant changes who triggers, so those who did cannot be compared."),
    Problem.NO_OPTIMUM: _("There is no best point within the frequencies tested."),
    Problem.BEFORE_FIRST_LOOK: _("Not shown before the first planned look."),
    Problem.SHAPE_REJECTED: _("The data contradict the shape that was assumed."),
    Problem.TIED: _("Several are exactly equal."),
}

STATUSES: Mapping[str, object] = {
    Status.draft: _("Draft"),
    Status.running: _("Running"),
    Status.paused: _("Paused"),
    Status.stopped: _("Stopped"),
    Status.decided: _("Decided"),
    Status.archived: _("Archived"),
}

MOVES: Mapping[str, object] = {
    Status.running: _("Start"),
    Status.paused: _("Pause"),
    Status.stopped: _("Stop"),
    Status.archived: _("Archive"),
}

ACTIONS: Mapping[str, object] = {
    "create": _("Created"),
    "revise": _("Changed"),
    waves.OPENED: _("Next wave opened"),
    waves.REFUSED: _("Next wave refused"),
    Status.running: _("Started"),
    Status.paused: _("Paused"),
    Status.stopped: _("Stopped"),
    Status.decided: _("Decision recorded"),
    Status.archived: _("Archived"),
    "roll_back": _("Rolled back"),
    audit.ASK: _("Asked for a second person"),
    schedule.REFUSED: _("Refused at its scheduled time"),
    "password": _("New password"),
    "role": _("New role"),
    "disable": _("Disabled"),
    "enable": _("Let in again"),
    "revoke": _("Revoked"),
}

PER: Mapping[str, object] = {
    "day": _("a day"),
    "week": _("a week"),
    "month": _("a month"),
    "quarter": _("a quarter"),
}

CHANNELS: Mapping[str, object] = {
    "push": _("Push"),
    "sms": _("SMS"),
    "email": _("E-mail"),
    "wecom": _("WeCom"),
    "in_app": _("In the app"),
}

ROLES: Mapping[str, object] = {
    Role.primary: _("Main metric"),
    Role.secondary: _("Secondary metric"),
    Role.guardrail: _("Guardrail"),
}

DIRECTIONS: Mapping[str, object] = {
    Direction.up: _("higher is better"),
    Direction.down: _("lower is better"),
}

METHODS: Mapping[str, object] = {
    "sequential": _("Safe to look at any time (confidence sequence)"),
    "fixed": _("Read once, at the planned size (fixed horizon)"),
    "group_sequential": _("Read at the planned looks only (group-sequential)"),
    "bayes": _("What to believe after these data (Bayes)"),
}

INTERVALS: Mapping[str, object] = {
    "asymptotic_confidence_sequence": _("Asymptotic confidence sequence, tuned to the planned size"),
    "classical": _("Classical interval (score interval for shares, Welch's for means)"),
    "repeated": _("Repeated confidence interval: holds at every planned look"),
    "credible": _("Credible interval: the truth lies in it with this probability, given the prior"),
}

CORRECTIONS: Mapping[str, object] = {
    "holm": _("Holm: the chance of any false alarm in a family is kept"),
    "bh": _("Benjamini–Hochberg: the share of false alarms is kept"),
    "none": _("None"),
}

COMPARISONS: Mapping[str, object] = {
    "control": _("Every variant with control"),
    "all_pairs": _("All pairs of variants"),
}

SPENDING: Mapping[str, object] = {
    "obrien_fleming": _("O'Brien–Fleming: strict at the first looks, almost the plain test at the last"),
    "pocock": _("Pocock: about equally strict at every look"),
    "hwang_shih_decani": _("Hwang–Shih–DeCani"),
    "power": _("A power of the share of users"),
}

STATISTICS: Mapping[str, object] = {
    "pooled_z": _("z, pooled proportions"),
    "exact": _("exact test (few conversions)"),
    "welch_t": _("t, Welch"),
    "adjusted_t": _("t, adjusted means"),
    "wald_z": _("z, Wald"),
}

KINDS: Mapping[str, object] = {
    "conversion": _("share of users"),
    "mean": _("mean per user"),
    "ratio": _("ratio of two sums"),
    "retention": _("share of users who came back"),
    "time_to_event": _("mean days until it happens"),
    "quantile": _("quantile"),
    "funnel": _("share of users who went all the way"),
}

SHAPES: Mapping[str, object] = {
    "free": _("no shape was assumed"),
    "increasing": _("taken never to fall with more touches"),
    "decreasing": _("taken never to rise with more touches"),
    "concave": _("taken to gain less with every further touch"),
}

CHECKS: Mapping[str, object] = {
    HealthCode.sample_ratio_mismatch: _("Split between the variants"),
    HealthCode.segment_sample_ratio_mismatch: _("Split within a segment"),
    HealthCode.daily_sample_ratio_mismatch: _("Split on the most unusual day"),
    HealthCode.different_before: _("Same behaviour before the experiment"),
    HealthCode.novelty: _("Effect steady since exposure"),
    HealthCode.outlier_influence: _("Same answer without the largest users"),
    HealthCode.trigger_depends_on_variant: _("Trigger fires alike with and without the treatment"),
    HealthCode.crossovers: _("Users who saw two variants"),
    HealthCode.identity_crossovers: _("People who saw two variants under two ids"),
    HealthCode.immature_users: _("Users still being observed"),
    HealthCode.forced_users: _("Test users"),
    HealthCode.thin_segment: _("Segment with too few users"),
    HealthCode.openers_only: _("Receivers without a counterpart"),
    HealthCode.effect_drifted: _("Effect on the last days"),
}

QUESTIONS: Mapping[str, object] = {
    HealthCode.sample_ratio_mismatch: _("Did the variants get the planned shares of all users?"),
    HealthCode.segment_sample_ratio_mismatch: _("Did they within this segment, where the total could hide it?"),
    HealthCode.daily_sample_ratio_mismatch: _("Was there a day on which users were let in unevenly?"),
    HealthCode.different_before: _("Did the variants' users behave alike before they saw anything?"),
    HealthCode.novelty: _("Does the effect fade or grow as users grow used to it?"),
    HealthCode.outlier_influence: _("Does the answer hang on one very large user?"),
    HealthCode.trigger_depends_on_variant: _("Is the treatment due equally often in every variant?"),
}

SEGMENT_KINDS: Mapping[str, object] = {
    "tier": _("value tier"),
    "lifecycle": _("lifecycle stage"),
    "group": _("group"),
}

ADJUSTMENTS: Mapping[str, object] = {
    "none": _("None"),
    "cuped": _("Earlier behaviour of the same users (CUPED)"),
}

CHARTS: Mapping[str, object] = {
    "effects": _("Effects chart (CSV)"),
    "segments": _("Segments chart (CSV)"),
    "timeline": _("Time chart (CSV)"),
    "slices": _("Chart by days since exposure (CSV)"),
    "factors": _("Factors chart (CSV)"),
    "frequency": _("Frequency chart (CSV)"),
    "funnel": _("Funnel chart (CSV)"),
    "survival": _("Curves (CSV)"),
    "waves": _("Shares chart (CSV)"),
}

ERRORS: Mapping[str, object] = {
    "bad_transition": _("Someone changed the experiment meanwhile. Please look at it again."),
    "stale_revision": _("Someone changed the experiment meanwhile. Please look at it again."),
    "layer_taken": _(
        "Another running experiment uses the same part of the layer. Stop that one, or choose another part."
    ),
    "not_started": _("The experiment has not been started yet, so there is nothing to analyse."),
    "decision_needed": _("Choose a variant and give a reason."),
    "nobody_known": _("Nobody was known before this period, so there is no one to compare. Choose a later first day."),
    "not_found": _("There is nothing here."),
    "not_decided": _("Record the decision first: a policy carries out what was decided."),
    "control_chosen": _("The decision keeps the control: there is nothing to roll out."),
    "already_exists": _("There is one with this key already. Look at it on the page of policies."),
    "last_admin": _("This is the last admin. Make someone else an admin first."),
    "second_person": _("You wrote this, so another person takes this step. It is noted that you asked."),
}


def known(table: Mapping[str, object], code: str) -> str:
    """Return the sentence of a code; one unknown here (from a newer program) gets a neutral sentence, not itself."""
    return str(table[code]) if code in table else gettext("Not explained by this version of the program.")


def health(code: str, count: int, of: int, subject: str | None, formats: Formats) -> tuple[str, str]:
    """Return what was found about the data, and what to do about it."""
    facts = {"count": formats.count(count), "of": formats.count(of), "segment": subject or "", "subject": subject or ""}
    match code:
        case HealthCode.sample_ratio_mismatch:
            return (
                gettext(
                    "The split between variants is not the planned one: off by %(count)s of %(of)s users.", **facts
                ),
                gettext(
                    "Something lets users in or loses them unevenly. Check redirects, filters, bots and where the "
                    "exposure is recorded; then start again. No effect is shown until then."
                ),
            )
        case HealthCode.segment_sample_ratio_mismatch:
            return (
                gettext("In the segment %(segment)s the split between variants is not the planned one.", **facts),
                gettext("Check how users of this segment are let in and recorded; the total can hide it."),
            )
        case HealthCode.crossovers:
            return (
                ngettext(
                    "%(count)s of %(of)s users saw more than one variant.",
                    "%(count)s of %(of)s users saw more than one variant.",
                    count,
                    **facts,
                ),
                gettext(
                    "They are left out of the effects. Check that user ids stay the same across devices and log-ins."
                ),
            )
        case HealthCode.identity_crossovers:
            return (
                ngettext(
                    "%(count)s of %(of)s people saw another variant under another id.",
                    "%(count)s of %(of)s people saw another variant under another id.",
                    count,
                    **facts,
                ),
                gettext(
                    "Each counts in the variant seen first, so effects look smaller than they are. Assign by an id "
                    "that stays the same when people log in."
                ),
            )
        case HealthCode.immature_users:
            return (
                gettext("%(count)s of %(of)s users are still inside their observation window.", **facts),
                gettext("Nothing to do: each counts once, when the window has closed."),
            )
        case HealthCode.forced_users:
            return (
                gettext("%(count)s test users were given a variant by hand.", **facts),
                gettext("Nothing to do: they are left out of the effects."),
            )
        case HealthCode.thin_segment:
            return (
                gettext("The segment %(segment)s has too few users in some variant (%(count)s in all).", **facts),
                gettext("Its users are left out of the overall effect until every variant has some."),
            )
        case HealthCode.daily_sample_ratio_mismatch:
            return (
                gettext("%(subject)s: the %(count)s users of this day were not split as planned.", **facts),
                gettext("Look for a release, an outage or a campaign on that day. The total can hide it."),
            )
        case HealthCode.different_before:
            return (
                gettext("%(subject)s: the variants' users differed already before the experiment.", **facts),
                gettext(
                    "The effects are adjusted for it. If it comes back in other experiments, check how users are "
                    "assigned."
                ),
            )
        case HealthCode.novelty:
            return (
                gettext("%(subject)s: the effect changes with the days since exposure.", **facts),
                gettext("Do not carry it far into the future: let the experiment run on until it has settled."),
            )
        case HealthCode.outlier_influence:
            return (
                gettext("%(subject)s: the answer changes without the largest user of each variant.", **facts),
                gettext("Check these users for test orders, resellers or errors, and think of a cap on the metric."),
            )
        case HealthCode.trigger_depends_on_variant:
            return (
                gettext("%(subject)s: the trigger fires more often or less often than with control.", **facts),
                gettext(
                    "Those who triggered differ between the variants, so no effect among them is shown. The effect on "
                    "all users stands."
                ),
            )
        case HealthCode.openers_only:
            return (
                gettext("It is recorded who received the treatment, but not who of control would have received it."),
                gettext(
                    "Do not compare receivers with everyone else: they differ anyhow. Record a ghost for control users "
                    "at the moment at which they would have been treated."
                ),
            )
        case HealthCode.effect_drifted:
            return (
                gettext("%(subject)s: today's effect lies outside the range that earlier days had left.", **facts),
                gettext("The effect has changed over time: look at its course before deciding."),
            )
    return known({}, code), ""
