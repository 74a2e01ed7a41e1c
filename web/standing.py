"""Codes of all experiments together as sentences: what needs a person, what came of it, which tactics worked."""

from collections.abc import Mapping

from flask_babel import lazy_gettext as _

from experiments.programme.attention import Attention, Group
from experiments.programme.library import Evidence, Outcome, TacticKind
from experiments.programme.totals import Agreement, Missing

GROUPS: Mapping[str, tuple[object, object]] = {
    Group.attention: (_("Needs attention"), _("Something is wrong or forgotten: look at these first.")),
    Group.ready: (_("Ready to decide"), _("The answer is there: write down what you choose.")),
    Group.running: (_("Running"), _("Nothing to do: the answer is not there yet.")),
    Group.decided: (_("Decided"), ""),
    Group.draft: (_("Drafts"), ""),
    Group.archived: (_("Archived"), ""),
}

ATTENTION: Mapping[str, object] = {
    Attention.not_trusted: _("The data cannot be trusted: see the health section."),
    Attention.guardrail_harmed: _("A guardrail metric was harmed."),
    Attention.start_refused: _("It should have started by its schedule, and did not."),
    Attention.stop_overdue: _("It should have stopped by its schedule, and did not."),
    Attention.wave_refused: _(
        "The next wave of users was due and did not open: see Health, and the history under Plan."
    ),
    Attention.nobody_came: _("It runs, but no user was ever exposed."),
    Attention.nothing_happened: _("Users come, but not one event of the main metric does."),
    Attention.never_analysed: _("It was never analysed since its start."),
    Attention.numbers_old: _("The numbers are more than three days old."),
    Attention.beyond_plan: _("It is far beyond its planned number of users."),
}

MISSING: Mapping[str, object] = {
    Missing.no_value: _("It was not said what a change is worth."),
    Missing.no_report: _("There is no report to go by."),
    Missing.no_lift: _("There is no lift: the control is too close to zero, or there was nothing to compare."),
    Missing.too_few_experiments: _("Too few experiments are over: it takes three to see how much luck is in them."),
    Missing.nothing_shipped: _("Nothing was rolled out in this period."),
}

AGREEMENTS: Mapping[str, object] = {
    Agreement.agrees: _("The holdout agrees with the sum of the single wins."),
    Agreement.below: _(
        "The holdout shows less than the sum of the single wins: some of them did not last, or overlap."
    ),
    Agreement.above: _(
        "The holdout shows more than the sum of the single wins: something else that it went without helps."
    ),
    Agreement.not_comparable: _("There are no single wins on this metric to compare with."),
}

EVIDENCE: Mapping[str, object] = {
    Evidence.better: _("Better"),
    Evidence.likely_better: _("Probably better"),
    Evidence.unclear: _("Not clear"),
    Evidence.likely_worse: _("Probably worse"),
    Evidence.worse: _("Worse"),
}

OUTCOMES: Mapping[str, object] = {
    Outcome.rolled_out: _("Rolled out"),
    Outcome.not_chosen: _("Not chosen"),
    Outcome.advised: _("Advised"),
    Outcome.not_advised: _("Not advised"),
    Outcome.open: _("Still open"),
}

TACTIC_KINDS: Mapping[str, object] = {
    TacticKind.copy: _("Text of the copy"),
    TacticKind.offer: _("Offer"),
    TacticKind.frequency: _("Frequency"),
}

DRAWN: Mapping[str, object] = {
    "none": _("As measured"),
    "shrunk": _("Luck taken off, by what all experiments showed"),
    "segments": _("Luck taken off, by what the other segments showed"),
    "two": _("Two experiments, by their precision"),
    "random": _("Several experiments, which may differ (random effects)"),
}
