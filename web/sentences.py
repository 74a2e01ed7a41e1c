"""Codes as sentences: every code that a page can show, in the reader's language. Pages never show a raw code."""

from collections.abc import Mapping

from flask_babel import lazy_gettext as _

from experiments.documents import Direction, Role, Status
from experiments.report import HealthCode, ReasonCode, Verdict
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
}

PROBLEMS: Mapping[str, object] = {
    Problem.NOT_ENOUGH_DATA: _("Too few users to compare."),
    Problem.ZERO_VARIANCE: _("All users have the same value, so there is nothing to compare."),
    Problem.ZERO_DENOMINATOR: _("The denominator is zero, so there is no ratio."),
    Problem.LIFT_NOT_IDENTIFIED: _("Control is too close to zero for a percentage."),
    Problem.NO_CONTROL: _("There are no control users to compare with."),
    Problem.SAMPLE_RATIO_MISMATCH: _("Users did not arrive in the planned proportions."),
    Problem.UNEXPECTED_USERS: _("There are users in a variant that should have none."),
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
    Status.running: _("Started"),
    Status.paused: _("Paused"),
    Status.stopped: _("Stopped"),
    Status.decided: _("Decision recorded"),
    Status.archived: _("Archived"),
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
}

INTERVALS: Mapping[str, object] = {
    "asymptotic_confidence_sequence": _("Asymptotic confidence sequence, tuned to the planned size"),
    "classical": _("Classical interval (score interval for shares, Welch's for means)"),
}

CORRECTIONS: Mapping[str, object] = {
    "holm": _("Holm: the chance of any false alarm in a family is kept"),
    "bh": _("Benjamini–Hochberg: the share of false alarms is kept"),
    "none": _("None"),
}

STATISTICS: Mapping[str, object] = {
    "pooled_z": _("z, pooled proportions"),
    "welch_t": _("t, Welch"),
    "adjusted_t": _("t, adjusted means"),
}

ADJUSTMENTS: Mapping[str, object] = {
    "none": _("None"),
    "cuped": _("Earlier behaviour of the same users (CUPED)"),
}

ERRORS: Mapping[str, object] = {
    "bad_transition": _("Someone changed the experiment meanwhile. Please look at it again."),
    "stale_revision": _("Someone changed the experiment meanwhile. Please look at it again."),
    "layer_taken": _(
        "Another running experiment uses the same part of the layer. Stop that one, or choose another part."
    ),
    "not_started": _("The experiment has not been started yet, so there is nothing to analyse."),
    "decision_needed": _("Choose a variant and give a reason."),
    "not_found": _("There is nothing here."),
}


def known(table: Mapping[str, object], code: str) -> str:
    """Return the sentence of a code; one unknown here (from a newer program) gets a neutral sentence, not itself."""
    return str(table[code]) if code in table else gettext("Not explained by this version of the program.")


def health(code: str, count: int, of: int, subject: str | None, formats: Formats) -> tuple[str, str]:
    """Return what was found about the data, and what to do about it."""
    facts = {"count": formats.count(count), "of": formats.count(of), "segment": subject or ""}
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
    return known({}, code), ""
