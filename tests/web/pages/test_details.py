"""The parts of the results page that only some plans and metrics have; what is said is checked against the report."""

import csv
import html
import io
import json
import re
from typing import Any

import pytest
from flask import Flask
from msgspec import structs

from experiments.codes import HealthCode, ReasonCode, Verdict
from experiments.report import Check, Finding, Heterogeneity, Influence, Interval, Novelty, Report, SlicePoint
from experiments.store import Store
from stats.errors import Problem
from tests.web import made, rich
from tests.web.browser import Browser
from tests.web.pages.test_results import CODES, PATH, page, visible
from tests.web.test_formats import EN
from web import charts
from web.formats import precision
from web.pages.reports import details, parts
from web.pages.reports.results import Results, results

ENGLISH_IN_CHINESE = (
    "Upturn English id main CSV JSON Parquet Holm Welch CUPED JavaScript z t p setup made O Brien Fleming "
    "The spend path wait leave Recall coupon No message One a week Two Four New customers Regulars Loyal "
    "Plain Urgent copy Coupon and open click buy offer urgent Ten yuan visit "
    "XLSX SVG PNG SHA Visit Unsubscribe rate wang New Loyal"
)


@pytest.fixture
def started(store: Store) -> Store:
    made.documents(store)
    return store


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", rich.REPORTS)
def test_every_part_is_in_words_and_in_one_language(app: Flask, started: Store, name: str, language: str) -> None:
    seen = visible(page(app, rich.REPORTS[name](), language, started).split("<main", 1)[1])
    raw = {code.value for codes in CODES for code in codes if "_" in code.value}
    assert not {word for word in re.findall(r"\w+", seen) if word in raw}
    assert "%(" not in seen
    assert "Not explained by this version" not in seen
    assert not re.search(r"\b(nan|inf)\b", seen, re.I)
    if language == "zh":
        assert set(re.findall(r"[A-Za-z]+", seen)) <= set(ENGLISH_IN_CHINESE.split())


EVERY = {"choices", "pairs-spend", "pairs-leave", "funnel-path", "survival-wait", "segments", "timeline", "slices"} | {
    "frequency",
    "factors",
    "compliers",
    "triggered",
    "waves",
}


def parts_of(report: Report) -> set[str]:
    """The parts that a report has something for."""
    primary = report.primary()
    single = {
        "choices": primary.choices,
        "segments": report.segments,
        "timeline": len({point.day for point in primary.timeline}) > 1,
        "slices": primary.slices,
        "frequency": primary.frequency,
        "factors": primary.factorial,
        "compliers": report.compliers,
        "triggered": report.triggered,
        "waves": report.adaptive,
    }
    kinds = {"pairs": "pairs", "funnel": "funnel", "survival": "survival"}
    of_metrics = {f"{part}-{m.metric}" for m in report.metrics for part, name in kinds.items() if getattr(m, name)}
    return {part for part, found in single.items() if found} | of_metrics


def test_the_reports_made_here_have_every_part() -> None:
    assert set().union(*(parts_of(make()) for make in rich.REPORTS.values())) == EVERY


@pytest.mark.parametrize("name", rich.REPORTS)
def test_a_part_is_shown_when_the_report_has_it_and_only_then(app: Flask, started: Store, name: str) -> None:
    text = page(app, rich.REPORTS[name](), "en", started)
    assert set(re.findall(r'id="([\w-]+)"', text)) & EVERY == parts_of(rich.REPORTS[name]())
    drawn = set(re.findall(r'data-chart="([\w-]+)"', text))
    downloads = set(re.findall(r"/chart/(\w+)\.csv", text))
    assert {chart.partition("-")[0] for chart in drawn} == downloads


@pytest.mark.parametrize("name", rich.REPORTS)
def test_every_chart_is_downloaded_as_it_is_drawn(app: Flask, started: Store, name: str) -> None:
    text = page(app, rich.REPORTS[name](), "en", started)
    specs = dict(re.findall(r'data-spec="([^"]+)">(.*?)</script>', text, flags=re.S))
    browser = Browser(app.test_client(), logged_in=True)
    for kind in {chart.partition("-")[0] for chart in specs}:
        drawn = [
            {key: "" if value is None else str(value) for key, value in row.items()}
            for chart, spec in specs.items()
            if chart.partition("-")[0] == kind
            for row in json.loads(spec)["datasets"]["rows"]
        ]
        rows = csv.DictReader(io.StringIO(browser.get(f"{PATH}/chart/{kind}.csv").text))
        # Spreadsheets are kept from reading a text that begins with a sign as a formula.
        assert [{key: value.lstrip("'") for key, value in row.items()} for row in rows] == drawn


def shown(app: Flask, report: Report, started: Store, part: str = "") -> str:
    """What an English reader sees of one section, or of the whole page."""
    text = page(app, report, "en", started)
    if part:
        text = next(s for s in re.findall(r"<section.*?</section>", text, flags=re.S) if f'id="{part}"' in s)
    return visible(text)


def test_the_best_frequency_and_the_harm_stand_on_one_axis(app: Flask, started: Store) -> None:
    report = rich.frequency()
    found = report.primary().frequency
    assert found is not None
    assert found.best is not None
    seen = shown(app, report, started, "frequency")
    best, low, high = (EN.plain(x, 3) for x in (found.best.estimate, found.best.lower, found.best.upper))
    assert f"The spend: best at about {best} touches a week, between {low} and {high}." in seen
    tested = EN.names(EN.plain(dose, 3) for dose in found.best_tested)
    assert f"The spend: of those tested, the best may be {tested} a week." in seen
    assert "taken to gain less with every further touch" in seen
    gain, harm = (charts.frequency(report.metrics[i], EN).spec["layer"][-1]["encoding"]["x"] for i in (0, 3))
    assert gain["scale"] == harm["scale"] == {"domain": [0, 4], "nice": False}


def test_without_a_best_frequency_the_reason_is_given(app: Flask, started: Store) -> None:
    report = rich.frequency()
    primary = report.primary()
    assert primary.frequency is not None
    flat = structs.replace(primary.frequency, best=None, best_problem=Problem.NO_OPTIMUM)
    changed = structs.replace(report, metrics=[structs.replace(primary, frequency=flat), *report.metrics[1:]])
    seen = shown(app, changed, started, "frequency")
    assert "The spend: There is no best point within the frequencies tested." in seen
    assert "best at about" not in seen


def test_the_looks_of_a_plan_are_listed_with_the_next_one(app: Flask, started: Store) -> None:
    report = rich.factors()
    first, second, third, _ = report.method.looks
    seen = shown(app, report, started, "method")
    for look in (first, second):
        assert look.day is not None
        assert f"{look.number} {EN.day(look.day)} {EN.count(look.users)} {EN.plain(look.bound, 3)}" in seen
    assert f"{EN.plain(second.statistic['both'], 3)}, crossed" in seen
    assert f"{EN.plain(first.statistic['both'], 3)}, crossed" not in seen
    assert f"Next look: number {third.number}, when {EN.count(third.users)} users have been compared." in seen
    ended = structs.replace(report.method, looks=[first, second])
    assert "No further look is planned." in shown(app, structs.replace(report, method=ended), started, "method")


def test_before_the_first_look_the_page_says_so_and_shows_no_number(app: Flask, started: Store) -> None:
    report = rich.factors()
    comparison = made.no_comparison("both", problem=Problem.BEFORE_FIRST_LOOK)
    primary = structs.replace(report.primary(), comparisons=[comparison], pairs=[], choices=[], slices=[], novelty=[])
    early = structs.replace(
        report,
        metrics=[primary],
        decision=structs.replace(
            report.decision,
            verdict=Verdict.keep_running,
            variant=None,
            reasons=[ReasonCode.before_first_look],
            corrected=None,
        ),
    )
    seen = shown(app, early, started)
    assert "The first planned look has not been reached yet." in seen
    assert "Not shown before the first planned look." in seen


def test_the_winner_is_told_without_the_luck_of_having_been_picked(app: Flask, started: Store) -> None:
    report = rich.factors()
    assert report.decision.corrected is not None
    seen = shown(app, report, started)
    texts = EN.interval("money", report.decision.corrected, precision(report.primary()))
    assert "as the best of 3: The spend {}, between {} and {}.".format(*texts) in seen
    assert "Without the luck" not in shown(app, made.full_report(), started)


def test_a_prior_is_named_and_no_p_value_is_shown(app: Flask, started: Store) -> None:
    seen = shown(app, rich.belief(), started)
    assert "normal around 0% with a standard deviation of 10%" in seen
    assert "p, adjusted" not in seen
    flat = structs.replace(rich.belief().method, prior=None)
    assert "Flat: before the data" in shown(app, structs.replace(rich.belief(), method=flat), started)


def test_the_interval_of_the_whole_family_stands_beside_the_plain_one_where_it_differs(
    app: Flask, started: Store
) -> None:
    report = rich.frequency()
    comparison = report.primary().comparisons[0]
    assert comparison.adjusted is not None
    row = results_of(app, report).metrics[0].overall.rows[0]
    assert row.together is not None
    assert row.absolute is not None
    assert (row.together.lower, row.together.upper) != (row.absolute.lower, row.absolute.upper)
    assert f"together {row.together.lower} to {row.together.upper}" in shown(app, report, started)
    same = structs.replace(comparison, adjusted=comparison.absolute)
    metric = structs.replace(report.primary(), comparisons=[same])
    assert results_of(app, structs.replace(report, metrics=[metric])).metrics[0].overall.rows[0].together is None


def results_of(app: Flask, report: Report) -> Results:
    with app.test_request_context():
        return results(report, EN)


@pytest.mark.parametrize(
    ("test", "sentence"),
    [
        ((9.0, 1, 0.003, 0.012, None), "The segments differ (p = 0.003); the effect varies by about ±1.20 pp"),
        ((0.7, 1, 0.4, 0.0, None), "No evidence that the segments differ (p = 0.400)."),
        ((None, None, None, None, Problem.NOT_ENOUGH_DATA), "cannot be told: Too few users to compare."),
    ],
)
def test_segments_differ_or_not_in_words(app: Flask, started: Store, test: tuple[Any, ...], sentence: str) -> None:
    report = made.full_report()
    found = [Heterogeneity("segment", "ten", 2, *test)]
    primary = structs.replace(report.metrics[0], heterogeneity=found)
    changed = structs.replace(report, metrics=[primary, *report.metrics[1:]])
    seen = shown(app, changed, started, "segments")
    assert sentence in seen
    assert "Clear gains in: New customers and Loyal customers." in seen
    assert "Twenty yuan Clear gains in: New customers." in seen
    assert "Clear losses" not in seen


def test_shrunk_effects_are_drawn_strong_and_the_raw_ones_behind(app: Flask) -> None:
    with app.test_request_context():
        chart = charts.segments(rich.frequency(), rich.frequency().primary(), EN)
        plain = charts.segments(made.full_report(), made.full_report().primary(), EN)
    wanted = [c.shrunk for c in rich.frequency().primary().comparisons if c.segment]
    assert [row["shrunk_estimate"] for row in chart.rows] == [interval.estimate for interval in wanted if interval]
    strong = [layer for layer in chart.spec["layer"] if "transform" in layer]
    assert {layer["encoding"]["x"]["field"] for layer in strong} >= {"strong_lower", "strong_estimate"}
    assert not any("transform" in layer for layer in plain.spec["layer"])


def test_all_checks_are_listed_with_what_became_of_them(app: Flask, started: Store) -> None:
    found = [c for c in rich.frequency().checks if c.code is not HealthCode.novelty]
    found.append(Check(HealthCode.novelty, "two", 0.0001, passed=False))
    report = structs.replace(rich.frequency(), checks=found)
    seen = shown(app, report, started, "health")
    failed = [check for check in report.checks if not check.passed]
    assert f"Checks made: {len(report.checks)}, striking: {len(failed)}" in seen
    assert seen.count("striking") == 1 + len(failed)
    assert re.search(r"Split within a segment Loyal customers [^?]+\? fine p\s=\s1\.000", seen)
    assert re.search(r"Effect steady since exposure Two a week [^?]+\? striking p\s<0\.001", seen)
    assert len(failed) == 1
    assert "however often it is looked at" in seen


def test_an_effect_that_fades_is_told_from_one_that_grows(app: Flask) -> None:
    report = rich.frequency()
    metric = report.primary()
    slopes = [Interval(-0.05, -0.08, -0.02), Interval(0.05, 0.02, 0.08), Interval(0.0, -1.0, 1.0)]
    trends = [Novelty("two", slope, 0.01) for slope in slopes]
    points = [SlicePoint("two", 0, 7, Interval(1.0, 0.5, 1.5))]
    metric = structs.replace(metric, novelty=trends, slices=points, placebo=[])
    striking = structs.replace(report, health=[Finding(HealthCode.novelty, 1, 1, fatal=False, subject="two")])
    with app.test_request_context():
        part = details.slices(striking, metric, EN)
        doubtful = details.slices(structs.replace(report, health=[]), metric, EN)
    assert part is not None
    assert doubtful is not None
    assert "the effect may fade, which chance can still explain" in doubtful.sentences[0]
    assert "the effect may grow, which chance can still explain" in doubtful.sentences[1]
    fading, growing, unclear = part.sentences
    # exp(-0.05) is 0.9512, exp(-0.08) 0.923, exp(-0.02) 0.980.
    assert "Two a week: the effect fades; its ratio to control changes by −4.9% (−7.7% to −2.0%) a day" in fading
    assert growing.startswith("Two a week: the effect grows")
    assert unclear.startswith("Two a week: no sign that the effect fades or grows")


def test_what_a_cut_removed_and_one_user_weighs_is_told(app: Flask) -> None:
    report = rich.frequency()
    metric = report.primary()
    only = Influence("one", None, Interval(1.0, 0.5, 1.5), Interval(0.2, -0.3, 0.7))
    with app.test_request_context():
        notes = details.notes(report, metric, EN)
        bare = details.notes(report, structs.replace(metric, influence=[only], capping=[]), EN)
    assert notes[0] == "Users' numbers are cut at CN¥120."
    removed = metric.capping[0].removed
    assert removed is not None
    assert notes[1].startswith(f"That removed {EN.share(removed)} of No message, ")
    assert any(note.startswith("Two a week without the cut: +CN¥") for note in notes)
    assert "would be +CN¥0.20 (−CN¥0.30 to +CN¥0.70) instead of +CN¥1.00" in bare[0]


def test_who_was_reached_and_who_triggered_or_why_nothing_is_shown(app: Flask, started: Store) -> None:
    report = rich.frequency()
    complier, trigger = report.compliers[0], report.triggered[0]
    assert complier.received is not None
    assert complier.effect is not None
    assert EN.share(complier.received) in shown(app, report, started, "compliers")
    assert EN.interval("money", complier.effect, 20)[0] in shown(app, report, started, "compliers")
    refused = structs.replace(trigger, effect=None, p_value=None, problem=Problem.TRIGGER_UNBALANCED)
    seen = shown(app, structs.replace(report, triggered=[refused]), started, "triggered")
    assert "The variant changes who triggers, so those who did cannot be compared." in seen
    assert "Too few more were reached" in shown(app, rich.factors(), started, "compliers")


def test_funnel_and_curves_are_those_of_the_report(app: Flask, started: Store) -> None:
    report = rich.frequency()
    path, wait = report.metrics[1], report.metrics[2]
    seen = shown(app, report, started, "effects")
    for step in path.funnel:
        assert f"{step.position} · {step.step}" in seen
        assert step.rate is not None
        assert f"{EN.count(step.entered)} {EN.count(step.reached)} {EN.share(step.rate)}" in seen
    with app.test_request_context():
        curves = charts.survival(report, wait).rows
    last = wait.survival[-1]
    assert curves[-1]["estimate"] == pytest.approx(100 * (1 - last.share[-1]))
    assert all(row["lower"] <= row["estimate"] <= row["upper"] for row in curves)  # type: ignore[operator]
    assert [row["estimate"] for row in curves if row["day"] == 0] == [0, 0, 0, 0]


def test_pairs_and_factors_stand_in_tables(app: Flask, started: Store) -> None:
    report = rich.factors()
    seen = shown(app, report, started)
    assert "Urgent copy and coupon against Coupon not clear" in seen
    assert "copy: urgent × offer: coupon interaction" in seen
    assert "No evidence that the factors work on each other" in seen
    factorial = report.primary().factorial
    assert factorial is not None
    assert factorial.interactions is not None
    sure = structs.replace(factorial, interactions=structs.replace(factorial.interactions, p_value=0.001))
    primary = structs.replace(report.primary(), factorial=sure)
    changed = structs.replace(report, metrics=[primary, *report.metrics[1:]])
    assert "The factors work on each other (p = 0.001)" in shown(app, changed, started)


def test_untrusted_data_blank_every_part(app: Flask, started: Store) -> None:
    for make in rich.REPORTS.values():
        report = make()
        decision = structs.replace(report.decision, verdict=Verdict.invalid, value_per_month=None, corrected=None)
        untrusted = structs.replace(report, decision=decision)
        text = page(app, untrusted, "en", started)
        assert results_of(app, untrusted).sections == []
        assert "data-chart" not in text
        assert not set(re.findall(r'id="([\w-]+)"', text)) & EVERY
        assert "Planned looks" not in html.unescape(text)


def test_p_values_in_sentences_never_claim_zero() -> None:
    assert parts.p_is(0.0001, EN).split() == ["p", "<0.001"]
    assert parts.p_is(0.03, EN).split() == ["p", "=", "0.030"]
