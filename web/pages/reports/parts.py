"""A part of the results page: some sentences, charts, and the table with the same numbers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from experiments.report import Interval
from stats.errors import Problem
from web import sentences
from web.charts import Chart
from web.formats import Formats, known_to
from web.languages import gettext


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a column; ``number``: of numbers, which stand to the right."""

    text: str
    number: bool = True


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of texts; the first cell of each row names it."""

    heads: list[Head]
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class Part:
    """What is said, drawn and listed on one question; ``key`` names it in the page, ``hint`` explains how to read."""

    key: str
    title: str
    sentences: list[str]
    hint: str = ""
    charts: list[Chart] = field(default_factory=list)
    grid: Grid | None = None


def grid(named: Sequence[str], numbers: Sequence[str], rows: Iterable[list[str]]) -> Grid:
    """Return a table whose first columns hold names, and the others numbers."""
    heads = [*(Head(text, number=False) for text in named), *(Head(text) for text in numbers)]
    return Grid(heads, list(rows))


def effect(unit: str, interval: Interval, formats: Formats, precision: float | None = None) -> str:
    """Return an effect with its interval as a text."""
    estimate, lower, upper = formats.interval(unit, interval, precision or known_to([interval]))
    return gettext("%(estimate)s (%(lower)s to %(upper)s)", estimate=estimate, lower=lower, upper=upper)


def effect_or_problem(
    unit: str, interval: Interval | None, problem: Problem | None, formats: Formats, precision: float | None = None
) -> str:
    """Return an effect, or the sentence on why there is none."""
    if interval is not None:
        return effect(unit, interval, formats, precision)
    return sentences.known(sentences.PROBLEMS, problem) if problem else "–"


def p_value(p: float | None, formats: Formats) -> str:
    """Return a p value for a table."""
    return "–" if p is None else formats.p_value(p)


def p_is(p: float, formats: Formats) -> str:
    """Return a p value for a sentence."""
    text = formats.p_value(p)
    return f"p\N{NO-BREAK SPACE}{text}" if text.startswith("<") else f"p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{text}"
