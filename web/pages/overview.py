"""What the list of experiments shows: in groups, first what waits for a person; searched, filtered, page by page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from babel.dates import format_timedelta
from sqlalchemy.orm import Session

from experiments.codes import Verdict
from experiments.documents import Status
from experiments.programme import attention, summaries
from experiments.programme.attention import Attention, Group
from experiments.programme.summaries import Summary
from experiments.report import Comparison, Interval, MetricReport, Report
from web import sentences, standing
from web.formats import Formats, precision
from web.languages import gettext
from web.pages.reports import verdict

BAR_WIDTH = 120
_FIRST = {Group.attention: 30, Group.ready: 30, Group.running: 30}
_OTHERS = 15
PAGE = 100
_FOLDED = frozenset({Group.draft, Group.archived})


@dataclass(frozen=True, slots=True)
class Bar:
    """A small picture of an interval: positions in a box ``BAR_WIDTH`` wide."""

    lower: float
    upper: float
    estimate: float
    zero: float
    reading: str


@dataclass(frozen=True, slots=True)
class Line:
    """One experiment in the list; without a report the later fields are empty."""

    key: str
    name: str
    owner: str
    tags: list[str]
    status: str
    status_label: str
    attention: list[str]
    verdict: str = ""
    sentence: str = ""
    metric: str = ""
    effect: str = ""
    limits: tuple[str, str] | None = None
    bar: Bar | None = None
    money: str = ""
    money_limits: tuple[str, str] | None = None
    users: str = ""
    age: str = ""
    as_of: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A group of the list: the lines of this page, of so many in all."""

    key: str
    title: str
    hint: str
    lines: list[Line]
    count: int
    folded: bool
    more: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for; empty means anything. ``group`` shows one group alone, page by page."""

    text: str = ""
    tag: str = ""
    owner: str = ""
    status: str = ""
    group: str = ""
    page: int = 1

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> "Wanted":
        """Read an address; what makes no sense in it is left out."""
        page = given.get("page", "")
        group = given.get("group", "")
        return cls(
            text=given.get("q", "").strip()[:200],
            tag=given.get("tag", ""),
            owner=given.get("owner", ""),
            status=given.get("status", ""),
            group=group if group in set(Group) else "",
            page=int(page) if page.isascii() and page.isdigit() and 1 <= len(page) <= 6 and int(page) else 1,
        )

    def query(self, **changed: object) -> dict[str, object]:
        """Return the address' parameters, some of them changed."""
        own: dict[str, object] = {"q": self.text, "tag": self.tag, "owner": self.owner, "status": self.status}
        return {name: value for name, value in (own | changed).items() if value}

    @property
    def filtered(self) -> bool:
        """Whether anything is looked for."""
        return bool(self.text or self.tag or self.owner or self.status)


@dataclass(frozen=True, slots=True)
class Overview:
    """The page: its groups, and what there is to filter by; ``found`` of ``total`` experiments."""

    wanted: Wanted
    sections: list[Section]
    found: int
    total: int
    tags: list[str]
    owners: list[str]
    statuses: list[tuple[str, str]]
    pages: int


def overview(session: Session, wanted: Wanted, now: datetime, formats: Formats) -> Overview:
    """Return the list as asked for."""
    everything = summaries.of_all(session)
    found = [summary for summary in everything if _matches(summary, wanted)]
    groups: dict[Group, list[tuple[Summary, list[Attention]]]] = {group: [] for group in Group}
    for summary in found:
        group, reasons = attention.group(summary, now)
        groups[group].append((summary, reasons))
    sections = [
        _section(group, sorted(entries, key=lambda entry: _place(group, *entry)), wanted, now, formats)
        for group, entries in groups.items()
        if entries and wanted.group in ("", group)
    ]
    longest = max((section.count for section in sections), default=0) if wanted.group else 0
    return Overview(
        wanted=wanted,
        sections=sections,
        found=len(found),
        total=len(everything),
        tags=sorted({tag for summary in everything for tag in summary.experiment.tags}),
        owners=sorted({summary.experiment.owner for summary in everything} - {""}),
        statuses=[(status.value, sentences.known(sentences.STATUSES, status)) for status in Status],
        pages=-(-longest // PAGE),
    )


def _matches(summary: Summary, wanted: Wanted) -> bool:
    experiment = summary.experiment
    if wanted.tag and wanted.tag not in experiment.tags:
        return False
    if wanted.owner and wanted.owner != experiment.owner:
        return False
    if wanted.status and wanted.status != experiment.status:
        return False
    if not wanted.text:
        return True
    parts = (experiment.key, experiment.name, experiment.hypothesis, experiment.owner, *experiment.tags)
    searched = "\n".join(parts).casefold()
    return all(word in searched for word in wanted.text.casefold().split())


def _place(group: Group, summary: Summary, reasons: Sequence[Attention]) -> tuple[float, float, str]:
    """What is most urgent, worth most, or newest stands first."""
    report, dates, name = summary.report, summary.dates, summary.experiment.name
    value = report.decision.value_per_month if report is not None else None
    money = -abs(value.estimate) if value is not None else 0.0
    if group is Group.attention:
        return float(list(Attention).index(reasons[0])), money, name
    if group is Group.ready:
        return 0.0, money, name
    at = dates.decided if group is Group.decided else dates.started
    return 0.0, -at.timestamp() if at is not None else 0.0, name


def _section(
    group: Group,
    entries: Sequence[tuple[Summary, list[Attention]]],
    wanted: Wanted,
    now: datetime,
    formats: Formats,
) -> Section:
    first, size = (0, _FIRST.get(group, _OTHERS))
    if wanted.group:
        first, size = (wanted.page - 1) * PAGE, PAGE
    chosen = entries[first : first + size]
    title, hint = standing.GROUPS[group]
    return Section(
        key=group.value,
        title=str(title),
        hint=str(hint),
        lines=[_line(summary, reasons, now, formats) for summary, reasons in chosen],
        count=len(entries),
        folded=group in _FOLDED and not wanted.filtered and not wanted.group,
        more=0 if wanted.group else len(entries) - len(chosen),
    )


def _line(summary: Summary, reasons: Sequence[Attention], now: datetime, formats: Formats) -> Line:
    experiment, report = summary.experiment, summary.report
    start = Line(
        key=experiment.key,
        name=experiment.name,
        owner=experiment.owner,
        tags=list(experiment.tags),
        status=experiment.status.value,
        status_label=sentences.known(sentences.STATUSES, experiment.status),
        attention=[sentences.known(standing.ATTENTION, reason) for reason in reasons],
    )
    if report is None:
        return start
    if Attention.guardrail_harmed in reasons:
        harm = gettext("A guardrail metric was harmed by %(variants)s.", variants=formats.names(_harming(report)))
        general = sentences.known(standing.ATTENTION, Attention.guardrail_harmed)
        start = replace(start, attention=[harm if text == general else text for text in start.attention])
    primary, best = report.primary(), verdict.leader(report)
    effect, limits, bar = "", None, None
    trusted = report.decision.verdict != Verdict.invalid
    if best is not None and best.absolute is not None and trusted:
        effect, *ends = formats.interval(primary.unit, best.absolute, precision(primary))
        limits = (ends[0], ends[1])
        bar = _bar(best.absolute, _reading(primary, best))
    money, money_limits = _money(report, formats)
    as_of = datetime.fromisoformat(report.as_of)
    return replace(
        start,
        verdict=report.decision.verdict,
        sentence=verdict.headline(report, formats).sentence,
        metric=primary.name,
        effect=effect,
        limits=limits,
        bar=bar,
        money=money,
        money_limits=money_limits,
        users=formats.count(sum(arm.exposed for arm in report.arms)),
        age=_age(now - as_of, formats),
        as_of=formats.moment(as_of),
    )


def _age(age: timedelta, formats: Formats) -> str:
    if age < timedelta(minutes=1):
        return gettext("just now")
    return format_timedelta(-age, add_direction=True, locale=formats.locale)


def _harming(report: Report) -> list[str]:
    guilty = attention.harming(report)
    return [arm.name for arm in report.arms if arm.variant in guilty]


def _money(report: Report, formats: Formats) -> tuple[str, tuple[str, str] | None]:
    value = report.decision.value_per_month
    if value is None or report.decision.verdict == Verdict.invalid:
        return "", None
    limits = (formats.money(value.lower, value.currency), formats.money(value.upper, value.currency))
    return formats.money(value.estimate, value.currency), limits


def _reading(metric: MetricReport, comparison: Comparison) -> str:
    if not comparison.significant or comparison.absolute is None:
        return "unclear"
    return "better" if (comparison.absolute.estimate > 0) == (metric.direction == "up") else "worse"


def _bar(interval: Interval, reading: str) -> Bar:
    low, high = min(interval.lower, 0.0), max(interval.upper, 0.0)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return round(6 + (value - low) / span * (BAR_WIDTH - 12), 1)

    return Bar(place(interval.lower), place(interval.upper), place(interval.estimate), place(0.0), reading)
