"""Codes of studies of uplift and of policies as sentences, in the reader's language."""

from collections.abc import Mapping

from flask_babel import lazy_gettext as _

from experiments import audit
from experiments.policy import PolicyStatus
from experiments.promises import Delivery
from experiments.uplift.studies import StudyStatus
from web import sentences
from web.languages import gettext

STUDY_VERDICTS: Mapping[str, object] = {
    "target": _("It pays to treat users differently"),
    "rank": _("The list helps when not all can be reached"),
    "everyone": _("No usable difference between users"),
    "nobody": _("It pays for nobody"),
    "inconclusive": _("No clear answer"),
    "invalid": _("Cannot be trusted"),
}

STUDY_STATUSES: Mapping[str, object] = {
    StudyStatus.queued: _("Waiting to start"),
    StudyStatus.running: _("At work"),
    StudyStatus.done: _("Done"),
    StudyStatus.failed: _("Failed"),
}

QUADRANTS: Mapping[str, object] = {
    "persuadable": _("Persuadables"),
    "sure_thing": _("Sure things"),
    "lost_cause": _("Lost causes"),
    "do_not_disturb": _("Do not disturb"),
}

QUADRANT_MEANINGS: Mapping[str, object] = {
    "persuadable": _("Gain most by it: reach these first."),
    "sure_thing": _("Come anyway, and gain less by it than most."),
    "lost_cause": _("Rarely come, with it or without."),
    "do_not_disturb": _("Are predicted to do worse with it: leave them alone."),
}

POLICIES: Mapping[str, object] = {
    "model": _("Each what the model says"),
    "tree": _("Each what the rules say"),
    "segments": _("Each segment its best variant"),
}

TESTS: Mapping[str, object] = {
    "$lt": _("is below"),
    "$lte": _("is at most"),
    "$gte": _("is at least"),
    "$gt": _("is above"),
    "$eq": _("is"),
    "$ne": _("is not"),
}

LEARNERS: Mapping[str, object] = {
    "s": _("S: one model of all users"),
    "t": _("T: a model of each variant"),
    "x": _("X: models of the differences"),
    "r": _("R: what is left after the mean"),
    "dr": _("DR: doubly robust differences"),
    "forest": _("Uplift forest"),
}

SHARES: Mapping[str, object] = {
    "weights": _("The designed split"),
    "counts": _("The split as counted"),
    "strata": _("The split within each group"),
    "chances": _("The chance of each user, known from the assignment"),
}

FEATURES: Mapping[str, object] = {
    "all": _("All that was known of users before (for understanding)"),
    "attributes": _("Only attributes that the app sends (can be rolled out)"),
}

LEFT_OUT: Mapping[str, object] = {
    "not_wanted": _("left out as you asked"),
    "not_an_attribute": _("no attribute that an app sends, so no rule could ask for it"),
    "nearly_empty": _("known of hardly anybody"),
    "constant": _("the same for everybody"),
    "too_many": _("too many different values"),
    "not_a_feature": _("neither a number nor a text"),
    "not_finite": _("holds values that are no numbers"),
    "empty": _("known of nobody"),
}

FIELDS: Mapping[str, object] = {
    "who": _("Whom to score"),
    "features": _("The attributes"),
    "budget": _("The budget"),
    "variant": _("A variant"),
    "outcome": _("The metric"),
    "metric": _("The metric"),
    "learner": _("The way of learning"),
}

REFUSALS: Mapping[str, object] = {
    "known_after_treatment": _(
        "differs between the variants, so it was known only after the treatment and would give away who got what. "
        "Leave it out and study again, or send what was known before."
    ),
    "too_few": _("too few users whose observation window has closed. Wait until each variant has enough."),
    "none_usable": _("no attribute tells users apart. Send attributes with the exposures."),
    "constant": _("is the same for everybody, so there is nothing to gain."),
    "not_one_number": _("has not one number for each user. Choose a metric that is a share or a mean."),
    "not_binary": _("takes only a metric that is yes or no. Choose another way of learning."),
    "inconsistent": _(
        "does not go with the rest: a budget needs variants with costs, on the metric that money is about."
    ),
    "out_of_range": _("is out of range."),
    "nobody": _("holds nobody of whom anything is known. Send attributes of users, or choose the users studied."),
    "missing_feature": _("was known of the users studied, and is not known here."),
    "unknown_reference": _("is not a metric of this experiment."),
}

STUDY_ERRORS: Mapping[str, object] = {
    "process_died": _(
        "The study ended without an answer, perhaps with a restart of the server. Please start it again."
    ),
    "internal_error": _("A fault of ours; it was logged. Please start the study again, or tell your administrator."),
    "study_running": _("Another study is at work. Please wait until it is done."),
    "not_started": _("The experiment has not been started yet, so there is nobody to study."),
    "missing_package": _("The packages that learn are not installed on this server. Ask your administrator for them."),
    "not_usable": _("This study gives no reason to treat users differently, so there are no rules to roll out."),
    "not_servable": _(
        "The rules ask for what the app does not send. Study again with “only attributes that the app sends”."
    ),
    "study_not_done": _("The study is not done yet."),
    "report_unreadable": _("This study was made by another version of the program. Please start it again."),
    "already_exists": _("There is a policy for this experiment already. Change or archive that one."),
    "list_running": _("Another list is being made. Please wait until it is done."),
    "list_not_done": _("The list is not done yet."),
    "list_not_written": _("This list was not written to the users, so no policy can ask for it."),
    "list_replaced": _("A later list took the place of this one. Roll out that one."),
    "no_model": _("The models of this study were not kept. Please start the study again."),
    "model_outdated": _("The models of this study were made by other versions of the packages. Please start it again."),
    "policy_closed": _("The policy of this experiment has ended, so nothing can be added to it."),
    "no_matured_users": _("No user's observation window has closed yet, so there is nothing to study."),
}

DELIVERIES: Mapping[str, object] = {
    Delivery.kept: _("Promise kept"),
    Delivery.above: _("Better than promised"),
    Delivery.below: _("Less than promised"),
    Delivery.open: _("Too early to tell"),
    Delivery.no_holdback: _("Nobody is held back"),
    Delivery.not_measured: _("Not measured yet"),
    Delivery.invalid: _("Cannot be trusted"),
}

DELIVERY_SENTENCES: Mapping[str, object] = {
    Delivery.kept: _("The gain is real, and the promise lies within what is measured. Nothing to do."),
    Delivery.above: _("The gain lies above the promise. Think of reaching more users."),
    Delivery.below: _("The gain lies below the promise. Look at the rules below, and think of rolling back."),
    Delivery.open: _("The range holds both the promise and no gain at all. Let it run on, or hold back more users."),
    Delivery.no_holdback: _("Without users held back nothing can be compared, so the gain is not known."),
    Delivery.not_measured: _("There is no number yet."),
    Delivery.invalid: _("The data cannot be trusted, so no gain is shown. Look for the cause before anything else."),
}

POLICY_STATUSES: Mapping[str, object] = {
    PolicyStatus.draft: _("Draft"),
    PolicyStatus.running: _("Running"),
    PolicyStatus.paused: _("Paused"),
    PolicyStatus.stopped: _("Stopped"),
    PolicyStatus.archived: _("Archived"),
}

POLICY_ACTIONS: Mapping[str, object] = {
    "create": _("Created"),
    "revise": _("Changed"),
    "roll_back": _("Rolled back"),
    audit.ASK: _("Asked for a second person"),
    PolicyStatus.running: _("Started"),
    PolicyStatus.paused: _("Paused"),
    PolicyStatus.stopped: _("Stopped"),
    PolicyStatus.archived: _("Archived"),
}

SOURCES: Mapping[str, object] = {
    "segments": _("From the decision of an experiment"),
    "tree": _("From the rules of a study of uplift"),
    "scores": _("From a list of scored users"),
    "model": _("From a model"),
}

POLICY_ERRORS: Mapping[str, object] = {
    "bad_transition": _("Someone changed the policy meanwhile. Please look at it again."),
    "stale_revision": _("Someone changed the policy meanwhile. Please look at it again."),
    "experiment_open": _(
        "The experiment still has this flag. Stop it and record the decision first; then start the policy."
    ),
    "nothing_earlier": _("It has served nothing else yet. Give the control to all, or pause it."),
    "policy_closed": _("The policy has ended. Create a new one."),
    "not_started": _("The policy has not been started yet, so there is nothing to measure."),
    "second_person": _("You wrote this, so another person takes this step. It is noted that you asked."),
}


def refused(field: str, problem: str, name: str) -> str:
    """Return why something asked for was refused; ``name`` of the field, where it is none of ours."""
    named = str(FIELDS[field]) if field in FIELDS else name
    return f"“{named}” {sentences.known(REFUSALS, problem)}"


def failed(code: str, detail: str) -> str:
    """Return why a study or a list failed, or was refused."""
    known = STUDY_ERRORS.get(code)
    return str(known) if known else gettext("That is not possible now: %(detail)s", detail=detail)
