"""The page of health: every check and every finding with a picture, a sentence and an advice."""

import re

import pytest
from flask import Flask
from flask_babel import force_locale
from msgspec import structs

from experiments.codes import HealthCode, Verdict
from experiments.report import Check, Finding, Report
from experiments.store import Store
from tests.web import made, rich
from tests.web.browser import Browser
from tests.web.test_formats import EN, ZH
from web.pages.reports.bars import Bar
from web.pages.reports.checks import Made, Share, checks

SUBJECTS = {
    HealthCode.segment_sample_ratio_mismatch: "new",
    HealthCode.daily_sample_ratio_mismatch: "2024-05-02",
    HealthCode.different_before: "spend",
    HealthCode.outlier_influence: "spend",
    HealthCode.novelty: "two",
    HealthCode.trigger_depends_on_variant: "two",
    HealthCode.thin_segment: "new",
    HealthCode.effect_drifted: "two",
}
# Who would have received the treatment is not known: there is nothing to draw.
UNDRAWN = {HealthCode.openers_only}


def all_found(*, fatal: bool = False) -> Report:
    """A report in which everything is found that can be."""
    report = rich.frequency()
    found = [Finding(code, 120, 6_000, fatal=fatal, subject=SUBJECTS.get(code)) for code in HealthCode]
    made_of = {check.code for check in report.checks}
    failed = [Check(code, SUBJECTS.get(code), 0.00001, passed=False) for code in HealthCode if code in made_of]
    return structs.replace(report, health=found, checks=failed)


def of(report: Report, code: HealthCode, app: Flask) -> list[Made]:
    """Return what the page says of a code."""
    alone = structs.replace(
        report,
        checks=[check for check in report.checks if check.code == code],
        health=[finding for finding in report.health if finding.code == code],
    )
    with app.test_request_context():
        return checks(alone, EN)


@pytest.mark.parametrize("locale", ["en", "zh_Hans_CN"])
@pytest.mark.parametrize("name", [*rich.REPORTS, "found"])
def test_each_has_a_picture_a_sentence_and_an_advice(app: Flask, name: str, locale: str) -> None:
    report = all_found() if name == "found" else rich.REPORTS[name]()
    with app.test_request_context(), force_locale(locale):
        shown = checks(report, ZH if "zh" in locale else EN)
    keys = {(part.code, part.subject) for part in (*report.checks, *report.health)}
    assert len(shown) == len(keys)
    assert sum(check.picture is None for check in shown) == sum(code in UNDRAWN for code, _ in keys)
    for check in shown:
        assert check.sentence
        assert check.advice
        assert ("zh" in locale) == all(re.search(r"[\u4e00-\u9fff]", text) for text in (check.name, check.advice))
        if check.picture:
            assert all(line.number in check.picture.told for line in check.picture.lines)
            for line in check.picture.lines:
                drawn = line.picture
                ends = (drawn.part, 100) if isinstance(drawn, Share) else (drawn.lower, 220)
                assert 0 <= ends[0] <= ends[1]


def test_what_calls_for_something_stands_first(app: Flask) -> None:
    report = rich.frequency()
    found = [
        Finding(HealthCode.immature_users, 1, 9, fatal=False),
        Finding(HealthCode.novelty, 9, 9, fatal=False, subject="two"),
        Finding(HealthCode.crossovers, 5, 9, fatal=True),
    ]
    with app.test_request_context():
        shown = checks(structs.replace(report, health=found), EN)
    assert [check.state for check in shown][:4] == ["harmed", "harmed", "unproven", "safe"]
    assert shown[0].name == "Users who saw two variants"
    assert shown[1].subject == "Two a week"
    assert len(shown) == len(report.checks) + 2


def test_the_split_is_drawn_against_the_plan(app: Flask) -> None:
    (check,) = of(made.invalid_report(), HealthCode.sample_ratio_mismatch, app)
    assert check.picture
    assert [line.label for line in check.picture.lines] == ["No coupon", "Ten yuan", "Twenty yuan"]
    # 15,000 of 55,020 where a third was planned.
    last = check.picture.lines[-1]
    assert last.number == "27.3%, planned 33.3%"
    assert isinstance(last.picture, Share)
    assert last.picture.part == pytest.approx(100 * 15_000 / 55_020)
    assert last.picture.mark == pytest.approx(100 / 3)


@pytest.mark.parametrize(("p", "alarming"), [(0.9, False), (0.0005, False), (0.0003, True), (1e-12, True)])
def test_how_rare_a_split_is_stands_on_the_side_of_the_alarm_that_it_is_on(
    app: Flask, p: float, alarming: bool
) -> None:
    # Three segments share the alarm at 0.001.
    one = Check(HealthCode.segment_sample_ratio_mismatch, "new", p, passed=not alarming)
    (check,) = of(structs.replace(rich.frequency(), checks=[one]), one.code, app)
    assert check.picture
    drawn = check.picture.lines[0].picture
    assert isinstance(drawn, Bar)
    assert drawn.zone
    assert (drawn.estimate < drawn.zone[1]) == alarming


def test_the_weight_of_one_user_is_a_part_of_the_whole(app: Flask) -> None:
    report = rich.frequency()
    (check,) = of(report, HealthCode.outlier_influence, app)
    assert check.picture
    shares = [entry.share for entry in report.primary().influence]
    assert [line.number for line in check.picture.lines] == [EN.share(share) for share in shares if share]
    assert EN.share(max(share for share in shares if share)) in check.sentence


def test_the_trigger_is_drawn_for_the_variant_beside_control(app: Flask) -> None:
    report = rich.frequency()
    two = of(report, HealthCode.trigger_depends_on_variant, app)[1]
    assert two.picture
    fired = report.triggered[1]
    assert [line.label for line in two.picture.lines] == ["Two a week", "No message"]
    assert two.picture.lines[0].number == f"{EN.share(fired.users / 1_500)}, {fired.users} users"


def test_no_effect_is_drawn_of_data_that_cannot_be_trusted(app: Flask) -> None:
    report = all_found(fatal=True)
    invalid = structs.replace(report, decision=structs.replace(report.decision, verdict=Verdict.invalid))
    for code in (HealthCode.novelty, HealthCode.effect_drifted):
        assert of(report, code, app)[0].picture
        assert of(invalid, code, app)[0].picture is None


def test_what_was_not_measured_is_not_drawn(app: Flask) -> None:
    report = rich.frequency()
    metric = structs.replace(report.primary(), placebo=[], slices=[], influence=[])
    bare = structs.replace(report, metrics=[metric, *report.metrics[1:]], triggered=[])
    for code in (
        HealthCode.different_before,
        HealthCode.novelty,
        HealthCode.outlier_influence,
        HealthCode.trigger_depends_on_variant,
    ):
        for check in of(bare, code, app):
            assert check.picture is None
            assert check.sentence


def test_too_few_users_to_judge_is_said(app: Flask) -> None:
    one = Check(HealthCode.sample_ratio_mismatch, None, None, passed=True)
    (check,) = of(structs.replace(rich.frequency(), checks=[one]), one.code, app)
    assert (check.sentence, check.p_value) == ("Too few users to judge the split.", "")


def test_pictures_stand_in_the_page_with_their_numbers_in_words(app: Flask, store: Store) -> None:
    made.documents(store)
    made.save(store, all_found())
    text = Browser(app.test_client(), logged_in=True).get(f"/experiments/{made.KEY}/health").text
    told = re.findall(r'role="img" aria-label="([^"]+)"', text)
    assert len(told) == len(HealthCode) - len(UNDRAWN)
    assert "Users who saw two variants: 2.0%: 120 of 6,000" in told
    assert len(re.findall(r'id="hatch"', text)) == 1
    assert not re.search(r"<svg[^>]* style=|<div[^>]* style=", text.split("<main", 1)[1])
