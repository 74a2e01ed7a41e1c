"""What is asked of a file, and whether the parts of the question agree: everything that needs no data."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from experiments.documents import Experiment, Kind, parse
from experiments.errors import FieldProblem, InvalidDocument
from experiments.fields import distinct
from experiments.plans import Plan

FileKind = Literal["conversion", "mean", "ratio", "quantile", "time_to_event", "funnel"]

_METRIC = re.compile(r"(?P<name>[^=]+)=(?P<kind>[a-z_]+)(\((?P<number>[\d.]+)\))?:(?P<columns>.+)")
# Columns that each kind takes, at least and at most.
_COLUMNS: Mapping[str, tuple[int, int]] = {
    "conversion": (1, 1),
    "mean": (1, 1),
    "ratio": (2, 2),
    "quantile": (1, 1),
    "time_to_event": (2, 2),
    "funnel": (2, 10),
}
FORMS = "conversion:COL, mean:COL, ratio:COL/COL, quantile(0.9):COL, time_to_event:DAYS/HAPPENED or funnel:STEP/STEP…"
# The number that a kind takes, in brackets.
_TAKES_QUANTILE = re.compile(r"0?\.\d*[1-9]\d*")
_TAKES_DAYS = re.compile(r"[1-9]\d{0,3}")


@dataclass(frozen=True, slots=True)
class FileMetric:
    """A metric of a file.

    ``columns``: one; numerator and denominator; days and whether the event happened; or the steps of a funnel.
    ``window_days``: up to when times to an event are counted; if not given, as far as all variants were watched.
    """

    name: str
    kind: FileKind
    columns: tuple[str, ...]
    quantile: float | None = None
    window_days: int | None = None

    @classmethod
    def parse(cls, text: str) -> "FileMetric":
        """Read ``NAME=KIND:COL[/COL]``, such as ``spend=mean:spend`` or ``large=quantile(0.9):spend``."""
        match = _METRIC.fullmatch(text)
        if match is not None and match["kind"] in get_args(FileKind):
            kind, number, columns = match["kind"], match["number"], tuple(match["columns"].split("/"))
            fewest, most = _COLUMNS[kind]
            if fewest <= len(columns) <= most and all(columns) and distinct(columns):
                found = cls(match["name"], kind, columns)  # type: ignore[arg-type]
                if kind == "quantile" and number is not None and _TAKES_QUANTILE.fullmatch(number):
                    return replace(found, quantile=float(number))
                if kind == "time_to_event" and number is not None and _TAKES_DAYS.fullmatch(number):
                    return replace(found, window_days=int(number))
                if kind != "quantile" and number is None:
                    return found
        raise InvalidDocument([FieldProblem("metric", text, "bad_metric", f"write NAME={FORMS}")], "command")


@dataclass(frozen=True, slots=True)
class Question:
    """What to compute from a file.

    Args:
        variant: column that tells each user's variant; None with ``factors``.
        control: its value for the control; None with ``factors``.
        metrics: the first is the primary one, the others are secondary, or guardrails.
        unit: column of the user, where a user has several rows.
        cluster: column of what was randomised, where that was not the user: a household, a store.
        factors: columns of a factorial design, each with its baseline level; a variant is a combination of levels.
        covariates: columns known before exposure, of numbers; where some are empty, that is a covariate too.
        segments: columns whose values are segments.
        weights: the designed split, equal if not given.
        doses: the dose (touches a week) of each variant.
        received: 0/1 column, whether the user received the treatment.
        triggered: 0/1 column, whether what would have sent the treatment happened, in the control too.
        guardrails: the margin of each metric that is a guardrail.
        lower_is_better: metrics that should go down, as times to an event should anyway,
        higher_is_better: unless they are named here.
        caps: where means cut heavy tails.
        cap_percentiles: the same, as a percentile of the users' numbers above zero.
        method: how the answer is read; see ``documents.Plan`` for this and what follows.
        planned_users: the planned size; where the method is sequential, the file's if not given.
        looks: of a group-sequential plan.
        spending: of a group-sequential plan, O'Brien and Fleming's if not given.
        spending_parameter: of the spending.
        prior: mean and standard deviation of a Bayesian plan's lift.
        alpha: level of the plan.
        correction: for several comparisons; Holm's if not given, none with posteriors.
        all_pairs: compare all pairs of variants.
    """

    variant: str | None
    control: str | None
    metrics: Sequence[FileMetric]
    unit: str | None = None
    cluster: str | None = None
    factors: Mapping[str, str] = field(default_factory=dict)
    covariates: Sequence[str] = ()
    segments: Sequence[str] = ()
    weights: Mapping[str, float] | None = None
    doses: Mapping[str, float] = field(default_factory=dict)
    received: str | None = None
    triggered: str | None = None
    guardrails: Mapping[str, float] = field(default_factory=dict)
    lower_is_better: Sequence[str] = ()
    higher_is_better: Sequence[str] = ()
    caps: Mapping[str, float] = field(default_factory=dict)
    cap_percentiles: Mapping[str, float] = field(default_factory=dict)
    method: Literal["fixed", "sequential", "group_sequential", "bayes"] = "fixed"
    planned_users: int | None = None
    looks: Sequence[float] | None = None
    spending: str | None = None
    spending_parameter: float | None = None
    prior: tuple[float, float] | None = None
    alpha: float = 0.05
    correction: Literal["holm", "bh", "none"] | None = None
    all_pairs: bool = False

    @property
    def arms(self) -> tuple[str, ...]:
        """The columns that tell the variant."""
        return tuple(self.factors) or ((self.variant,) if self.variant is not None else ())

    def plan(self) -> Plan:
        """Return the plan as a document. Raises InvalidDocument where its parts do not agree."""
        # A file that is read once needs no planned size; two is the least that a document may have.
        planned = 2 if self.planned_users is None and self.method != "group_sequential" else self.planned_users
        spending = {"name": self.spending, "parameter": self.spending_parameter}
        spending = {name: value for name, value in spending.items() if value is not None}
        fields = {
            "planned_users": planned,
            "method": self.method,
            "alpha": self.alpha,
            "correction": self.correction,
            "comparisons": "all_pairs" if self.all_pairs else "control",
            "looks": None if self.looks is None else list(self.looks),
            "spending": spending or None,
            "prior": None if self.prior is None else {"mean": self.prior[0], "sd": self.prior[1]},
        }
        body = {
            "key": "file",
            "name": "file",
            "variants": [{"key": "a"}, {"key": "b"}],
            "control": "a",
            "metrics": [{"key": "m"}],
            "plan": {name: value for name, value in fields.items() if value is not None},
        }
        try:
            document: Experiment = parse(Kind.experiment, body)
        except InvalidDocument as error:
            raise InvalidDocument(
                [
                    FieldProblem(_option(p.field.removeprefix("plan.")), p.value, p.problem, p.remedy)
                    for p in error.problems
                ],
                "command",
            ) from None
        return document.plan


def problems(question: Question) -> Iterator[FieldProblem]:
    """What in the question contradicts the rest of it."""
    if question.factors and (question.variant is not None or question.control is not None):
        remedy = "leave variant and control out: with factors, a variant is a combination of levels"
        yield FieldProblem("factor", list(question.factors), "inconsistent", remedy)
    elif not question.factors and (question.variant is None or question.control is None):
        missing = "variant" if question.variant is None else "control"
        yield FieldProblem(missing, None, "missing", "name the column of the variant and its value for the control")
    names = [metric.name for metric in question.metrics]
    if not names:
        yield FieldProblem("metric", None, "missing", f"give at least one metric: NAME={FORMS}")
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield FieldProblem("metric", name, "not_unique", "give each metric a name of its own")
    named: Mapping[str, Sequence[str]] = {
        "guardrail": list(question.guardrails),
        "lower-is-better": question.lower_is_better,
        "higher-is-better": question.higher_is_better,
        "cap": list(question.caps),
        "cap-percentile": list(question.cap_percentiles),
    }
    for option, given in named.items():
        for name in given:
            if name not in names:
                yield FieldProblem(option, name, "unknown_metric", f"name a metric: {', '.join(names)}")
    if names and names[0] in question.guardrails:
        yield FieldProblem("guardrail", names[0], "primary", "the first metric is the primary one")
    for name in set(question.lower_is_better) & set(question.higher_is_better):
        yield FieldProblem("higher-is-better", name, "inconsistent", "say lower or higher, not both")
    numbers = {"guardrail": question.guardrails, "dose": question.doses}
    for option, values in numbers.items():
        for name, value in values.items():
            if not 0 <= value < math.inf:
                yield FieldProblem(option, {name: value}, "out_of_range", "give a number of 0 or more")
    yield from _cap_problems(question)
    yield from _kind_problems(question)
    if question.doses and len(question.doses) < 3:
        remedy = "give the dose of three variants or more: two doses have no curve"
        yield FieldProblem("dose", dict(question.doses), "too_few", remedy)


def _cap_problems(question: Question) -> Iterator[FieldProblem]:
    kinds = {metric.name: metric.kind for metric in question.metrics}
    for option, given in (("cap", question.caps), ("cap-percentile", question.cap_percentiles)):
        for name, value in given.items():
            if kinds.get(name, "mean") != "mean":
                yield FieldProblem(option, name, "not_a_mean", "cap means only")
            elif option == "cap" and not 0 < value < math.inf:
                yield FieldProblem(option, value, "out_of_range", "give a number above 0")
            elif option == "cap-percentile" and not 50 <= value < 100:
                yield FieldProblem(option, value, "out_of_range", "give a percentile from 50 to below 100")
    for name in set(question.caps) & set(question.cap_percentiles):
        yield FieldProblem("cap-percentile", name, "inconsistent", "give a cap or a percentile, not both")


def _kind_problems(question: Question) -> Iterator[FieldProblem]:
    kinds = {metric.kind for metric in question.metrics}
    if "time_to_event" in kinds and question.method != "fixed":
        remedy = "use fixed: who had the event says nothing of how long he would have been watched without it"
        yield FieldProblem("method", question.method, "inconsistent", remedy)
    if question.cluster is not None:
        for metric in question.metrics:
            if metric.kind in ("time_to_event", "funnel"):
                remedy = "use conversion, mean, ratio or quantile: only these are known by cluster"
                yield FieldProblem("metric", metric.name, "not_by_cluster", remedy)
    for option, column in (("received", question.received), ("triggered", question.triggered)):
        if column is None:
            continue
        if question.cluster is not None:
            yield FieldProblem(option, column, "not_by_cluster", "leave it out: low reach is not known by cluster")
        if question.metrics and question.metrics[0].kind in ("quantile", "time_to_event"):
            remedy = "make the first metric a conversion, mean, ratio or funnel: those reached are compared by means"
            yield FieldProblem(option, column, "inconsistent", remedy)


def _option(name: str) -> str:
    return name.replace("_", "-")
