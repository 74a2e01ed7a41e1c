"""Numbers as people read them; the texts wanted are written by hand."""

from zoneinfo import ZoneInfo

import pytest
from babel import Locale
from hypothesis import given
from hypothesis import strategies as st

from experiments.report import Interval
from tests.web import made
from web.formats import Formats, precision

EN = Formats(Locale.parse("en"), "CNY", ZoneInfo("Asia/Shanghai"))
ZH = Formats(Locale.parse("zh_Hans_CN"), "CNY", ZoneInfo("Asia/Shanghai"))
TW = Formats(Locale.parse("zh_Hant_TW"), "CNY", ZoneInfo("Asia/Shanghai"))


def test_a_share_changes_by_percentage_points() -> None:
    interval = Interval(0.0766, 0.0663, 0.0869)
    assert EN.interval("share", interval, 0.005) == ("+7.66 pp", "+6.63", "+8.69 pp")
    assert ZH.interval("share", interval, 0.005) == ("+7.66 个百分点", "+6.63", "+8.69 个百分点")
    assert TW.interval("share", interval, 0.005) == ("+7.66 個百分點", "+6.63", "+8.69 個百分點")


def test_days_are_named_once_in_an_interval() -> None:
    interval = Interval(-1.5, -2.25, -0.75)
    assert EN.interval("days", interval, 0.4) == ("−1.50 days", "−2.25", "−0.75 days")
    assert ZH.interval("days", interval, 0.4) == ("−1.50 天", "−2.25", "−0.75 天")
    assert EN.level("days", 3.14, 0.4) == "3.14 days"


def test_a_day_is_written_as_the_reader_writes_it() -> None:
    assert (EN.day("2026-11-02"), ZH.day("2026-11-02")) == ("2 Nov 2026", "2026年11月2日")


def test_money_has_the_stores_currency_and_the_readers_form() -> None:
    assert EN.money(49_269.27) == "+CN¥49,269"
    assert ZH.money(-49_269.27) == "−¥49,269"
    assert EN.money(1_234_567.8, "USD") == "+$1,234,568"
    assert EN.money(12.344, "USD", signed=False) == "$12.34"
    assert EN.interval("money", Interval(0.7698, -0.4851, 1.0545), 0.14) == ("+CN¥0.77", "−CN¥0.49", "+CN¥1.05")
    assert ZH.change("money", 0.00123, 0.0001) == "+¥0.00123"


@pytest.mark.parametrize(
    ("value", "known_to", "text"),
    [(3.14159, 0.5, "+3.14"), (-3.14159, 50, "−3"), (0.0, 0.5, "0.00"), (1234.5, 12, "+1,234"), (-0.001, 0.5, "0.00")],
)
def test_a_number_shows_two_digits_of_what_is_known(value: float, known_to: float, text: str) -> None:
    assert EN.change("number", value, known_to) == text


def test_relative_effects_are_percentages() -> None:
    assert EN.relative(Interval(0.7215, 0.599, 0.857)) == ("+72.2%", "+59.9%", "+85.7%")
    assert ZH.relative(Interval(-0.05, -0.5, 5.5)) == ("−5%", "−50%", "+550%")


def test_certainty_is_never_claimed() -> None:
    assert [EN.chance(p) for p in (1.0, 0.9995, 0.975, 0.0)] == [">99.9%", ">99.9%", "97.5%", "<0.1%"]
    assert [EN.p_value(p) for p in (1.0, 0.0214, 0.0004, 0.0)] == ["1.000", "0.021", "<0.001", "<0.001"]


def test_times_are_in_the_stores_zone() -> None:
    assert EN.moment("2026-11-22T18:30:00+00:00") == "23 Nov 2026, 02:30"
    assert ZH.moment("2026-11-22T18:30:00+00:00") == "2026年11月23日 02:30"


def test_names_are_joined_as_in_a_sentence() -> None:
    assert EN.names(["A", "B", "C"]) == "A, B, and C"
    assert ZH.names(["甲", "乙", "丙"]) == "甲、乙和丙"


def test_plain_numbers_have_four_digits() -> None:
    assert [EN.plain(x) for x in (7.385114, -0.0001234, 36_671.158, 0.0)] == ["7.385", "−0.0001234", "36,671", "0"]


def test_the_numbers_of_a_metric_line_up() -> None:
    metric = made.metric("x", "primary", [made.comparison("ten", 0.1, 0.01), made.comparison("twenty", 0.1, 0.2)])
    assert precision(metric) == pytest.approx(0.1)
    assert precision(made.metric("x", "primary", [made.no_comparison("ten")])) == 0.0


@given(st.floats(-1e9, 1e9), st.floats(1e-9, 1e9), st.sampled_from(["share", "money", "number"]))
def test_any_number_reads_back_to_what_is_known(value: float, known_to: float, unit: str) -> None:
    text = EN.change(unit, value, known_to)
    digits = text.removesuffix(" pp").replace("CN¥", "").replace(",", "").replace("−", "-")
    read = float(digits) / (100 if unit == "share" else 1)
    # Half of the last decimal shown, and six decimals at most.
    assert read == pytest.approx(value, rel=1e-12, abs=max(known_to, 1e-6))
