"""The answer to a question about uplift: train, choose, value, and say what to do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from experiments.errors import FieldProblem, InvalidDocument
from experiments.report import Interval
from experiments.uplift import report, rules
from experiments.uplift.choose import Choice, choose, policy
from experiments.uplift.crossfit import Clock, Crossfit, crossfit
from experiments.uplift.frame import Feature, Frame, from_table, read
from experiments.uplift.learners import DEFAULT, FOREST, Fitted
from experiments.uplift.question import Question
from experiments.uplift.report import Uplift, interval
from experiments.uplift.segments import best_in_each, found_in_each
from experiments.uplift.users import drivers, quadrants, spending, targeting
from stats import policy_value, uplift
from stats.errors import Problem, StatError
from stats.policy_tree import Tree

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# A feature or a prediction that knows the variant with less than this p is taken to come from after the treatment.
LEAK = 1e-4


@dataclass(frozen=True, slots=True)
class Answer:
    """The report, and what it says of each user.

    Attributes:
        report: for people and programs.
        frame: the users.
        effects: (n, K-1) predicted by models that have not seen the user, before costs.
        model: (n,) the variant by the model.
        tree: (n,) the variant by the rules; by the best single variant where there are none.
        scores: (n, K) doubly robust, before costs.
        models: of the chosen learner, the one of each fold.
    """

    report: Uplift
    frame: Frame
    effects: Floats
    model: Ints
    tree: Ints
    scores: Floats
    models: Sequence[Fitted]


def answer(
    path: Path, question: Question, *, clock: Clock, progress: Callable[[int], object] = lambda _: None
) -> Answer:
    """Answer a question about a file.

    Args:
        path: a ``.parquet`` file, else CSV, with a header and one row a user.
        question: what to find out.
        clock: seconds, for the time each learner takes.
        progress: called with 1 whenever a learner was trained.

    Raises:
        InvalidDocument: the file cannot be read, holds what it should not, or an option does not fit.
        MissingPackage: a package of the learners is not installed.
    """
    return answer_table(read(path), question, name=path.name.split(".")[0], clock=clock, progress=progress)


def answer_table(
    table: pa.Table,
    question: Question,
    *,
    name: str,
    clock: Clock,
    progress: Callable[[int], object] = lambda _: None,
) -> Answer:
    """Answer a question about a table in memory; see ``answer``."""
    frame = from_table(table, question)
    _check(frame, question)
    learners = [learner for learner in question.learners if frame.binary or learner != FOREST]
    found = crossfit(frame, learners, folds=question.folds, seed=question.seed, clock=clock, progress=progress)
    choice = choose(found, alpha=question.alpha, rng=np.random.default_rng(question.seed))
    return _answer(found, choice, question, name)


def _check(frame: Frame, question: Question) -> None:
    """Refuse features that know the variant, and a forest alone for what it cannot learn."""
    if not frame.binary and set(question.learners) == {FOREST}:
        remedy = f"choose from {', '.join(DEFAULT)}: the forest takes an outcome of 0/1 without a value"
        raise InvalidDocument([FieldProblem("learner", FOREST, "not_binary", remedy)], "command")
    found = []
    for feature in frame.features:
        columns = [np.isnan(feature.values).astype(float), *feature.columns()]
        p_value = min(1.0, len(columns) * len(frame.features) * min(_leak(frame, column) for column in columns))
        if p_value < LEAK:
            remedy = "leave it out: it differs between the variants, so it was known only after the treatment"
            remedy += ", or its groups had shares of their own (then name the groups with --stratum)"
            found.append(FieldProblem(feature.name, f"p = {p_value:.2g}", "known_after_treatment", remedy))
    if found:
        raise InvalidDocument(found, "file")


def _leak(frame: Frame, column: Floats) -> float:
    try:
        values = np.where(np.isnan(column), np.nanmin(column) - 1, column)
        return uplift.balance(values, frame.arm, frame.propensity).p_value
    except StatError:
        return 1.0


def _answer(found: Crossfit, choice: Choice, question: Question, name: str) -> Answer:
    frame, costs = found.frame, found.frame.costs
    net = policy_value.net(found.scores, costs)
    effects = found.effects[choice.learner]
    model = policy(effects, costs)
    best = policy_value.constant_elsewhere(net, found.fold)
    tree = best
    fitted = None
    if choice.usable:
        tree = rules.crossfitted(found.matrix, net, found.fold, question.depth)
        fitted = rules.fit(found.matrix, net, question.depth)
    leakage = _leakage(frame, effects)
    lead = int(net[:, 1:].mean(axis=0).argmax()) + 1
    policies = [
        *(_valued(found, "constant", np.full(len(net), k), best, question.alpha) for k in range(len(frame.names))),
        _valued(found, "model", model, best, question.alpha),
        *([_valued(found, "tree", tree, best, question.alpha)] if fitted is not None else []),
        *([_valued(found, "segments", best_in_each(found, net), best, question.alpha)] if frame.segments else []),
    ]
    verdict, variant = _verdict(found, choice, leakage, policies, question.alpha)
    rng = np.random.default_rng(question.seed)
    said = Uplift(
        name=name,
        users=len(net),
        outcome=question.outcome,
        value=question.value,
        unit="share" if frame.binary else "amount",
        control=frame.names[0],
        arms=[
            report.Arm(arm, int((frame.arm == k).sum()), float(frame.outcome[frame.arm == k].mean()), float(costs[k]))
            for k, arm in enumerate(frame.names)
        ],
        features=[_feature(feature) for feature in frame.features],
        method=report.Method(
            folds=question.folds,
            seed=question.seed,
            alpha=question.alpha,
            learners=list(found.effects),
            propensity=_known_from(question),
        ),
        verdict=verdict,
        variant=variant,
        usable=choice.usable,
        p_value=choice.p_value,
        best=choice.learner,
        learners=[_learned(found, choice, learner, net, best, question.alpha) for learner in found.effects],
        policies=policies,
        calibration=list(_calibrations(found, effects, question.alpha)),
        quadrants=quadrants(found, effects, lead, question.alpha) if choice.usable else [],
        drivers=drivers(found, choice.learner, rng) if choice.usable else [],
        rules=[] if fitted is None else _rules(found, fitted, net, question.alpha),
        leakage=leakage,
        budget=spending(found, effects, question.budget, question.alpha),
        segments=found_in_each(found, net, question.alpha),
        toc=targeting(found, effects, question.alpha),
    )
    given = tree if fitted is None else fitted.predict(found.matrix)
    return Answer(said, frame, effects, model, given, found.scores, found.models[choice.learner])


def _known_from(question: Question) -> report.Shares:
    if question.chances:
        return "chances"
    return "strata" if question.strata else "counts" if question.weights is None else "weights"


def _feature(feature: Feature) -> report.FeatureUsed:
    return report.FeatureUsed(feature.name, feature.kind, float(np.isnan(feature.values).mean()), list(feature.labels))


def _learned(found: Crossfit, choice: Choice, learner: str, net: Floats, best: Ints, alpha: float) -> report.Learned:
    effects = found.effects[learner]
    p_values = {test.variant: test.p_value for test in choice.tests if test.learner == learner}
    rates = []
    for k in range(1, net.shape[1]):
        try:
            rate = interval(uplift.rate(effects[:, k - 1], net[:, k] - net[:, 0], "autoc", found.fold, alpha))
        except StatError:
            rate = None
        rates.append(report.Rate(found.frame.names[k], rate, p_values[k]))
    gain = policy_value.gain(net, policy(effects, found.frame.costs), best, alpha=alpha)
    qini = interval(choice.qini[learner])
    return report.Learned(
        learner, qini, p_values[None], choice.score[learner], rates, interval(gain), found.seconds[learner]
    )


def _valued(found: Crossfit, kind: report.PolicyName, given: Ints, best: Ints, alpha: float) -> report.PolicyValue:
    frame = found.frame
    control = np.zeros_like(given)
    constant = kind == "constant"
    check = policy_value.gap(found.scores, frame.outcome, frame.arm, frame.propensity, given, frame.costs)
    return report.PolicyValue(
        policy=kind,
        variant=frame.names[given[0]] if constant else None,
        shares={name: float((given == k).mean()) for k, name in enumerate(frame.names)},
        value=interval(policy_value.value(found.scores, given, frame.costs, alpha)),
        over_control=interval(policy_value.gain(found.scores, given, control, frame.costs, alpha)),
        gain=None if constant else interval(policy_value.gain(found.scores, given, best, frame.costs, alpha)),
        check=0.0 if check.se == 0 else check.estimate / check.se,
    )


def _verdict(
    found: Crossfit, choice: Choice, leakage: report.Leakage, policies: list[report.PolicyValue], alpha: float
) -> tuple[report.Verdict, str | None]:
    """What to do, and with which variant where it is one for all.

    ``target``: what each gets differs, and that is worth more than the best variant for all. ``rank``: the list is
    better than chance, yet with enough money for all the best variant for all is as good.
    """
    if leakage.found:
        return "invalid", None
    targeted = [each for each in policies if each.gain is not None]
    if choice.usable and any(each.gain is not None and each.gain.lower > 0 for each in targeted):
        return "target", None
    net = policy_value.net(found.scores, found.frame.costs)
    size = net.shape[1] - 1
    gains = [
        policy_value.gain(net, np.full(len(net), k), np.zeros(len(net), dtype=int), alpha=alpha / size)
        for k in range(1, size + 1)
    ]
    best = max(range(size), key=lambda k: gains[k].estimate)
    if choice.usable:
        return "rank", found.frame.names[best + 1]
    if gains[best].lower > 0:
        return "everyone", found.frame.names[best + 1]
    if all(gain.upper < 0 for gain in gains):
        return "nobody", found.frame.names[0]
    return "inconclusive", None


def _leakage(frame: Frame, effects: Floats) -> report.Leakage:
    found = []
    for column in effects.T:
        try:
            found.append(uplift.balance(column, frame.arm, frame.propensity))
        except StatError:
            continue
    if not found:
        return report.Leakage(1.0, frame.names[0], found=False)
    worst = min(found, key=lambda each: each.p_value)
    p_value = min(1.0, worst.p_value * len(found))
    return report.Leakage(p_value, frame.names[worst.arm], found=p_value < LEAK)


def _calibrations(found: Crossfit, effects: Floats, alpha: float) -> list[report.Calibration]:
    made = []
    for k, name in enumerate(found.frame.names[1:], 1):
        try:
            gains = found.scores[:, k] - found.scores[:, 0]
            calibrated = uplift.calibration(effects[:, k - 1], gains, 10, alpha)
        except StatError as error:
            if error.code != Problem.ZERO_VARIANCE:
                raise
            continue
        bins = [
            report.CalibrationBin(each.n, each.predicted, Interval(each.realised, each.lower, each.upper))
            for each in calibrated.bins
        ]
        made.append(report.Calibration(name, bins, interval(calibrated.slope)))
    return made


def _rules(found: Crossfit, tree: Tree, net: Floats, alpha: float) -> list[report.RuleFound]:
    named = rules.columns(found.frame.features)
    made = []
    for rule in tree.leaves:
        here = rules.members(rule, found.matrix)
        given = np.full(int(here.sum()), rule.arm)
        effect = policy_value.gain(net[here], given, np.zeros_like(given), alpha=alpha) if rule.arm else None
        made.append(
            report.RuleFound(
                words=rules.words(rule, named),
                condition=rules.condition(rule, named),
                variant=found.frame.names[rule.arm],
                users=rule.n,
                effect=None if effect is None else interval(effect),
            )
        )
    return made
