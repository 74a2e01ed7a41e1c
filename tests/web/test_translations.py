"""Both languages are complete: every text of pages and code, every code of every enum that a page can show."""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from flask import Flask
from flask_babel import force_locale

import web
from experiments.codes import HealthCode, ReasonCode, Verdict
from experiments.documents import Status
from experiments.fields import Direction, Role
from experiments.plans import Spending
from experiments.report import DoseResponse, Method, MetricReport, Statistic
from stats.errors import Problem
from tests.web.test_formats import EN, ZH
from web import charts, sentences
from web.languages import LANGUAGES

ROOT = Path(web.__file__).parent
FOLDER = ROOT / "translations" / "zh_Hans_CN" / "LC_MESSAGES"
METHODS = [("**.py", "python"), ("**.html", "jinja2")]
KEYWORDS = {"_": None, "gettext": None, "lazy_gettext": None, "ngettext": (1, 2)}
PLACE = re.compile(r"%\((\w+)\)s")


def catalogue() -> Catalog:
    with (FOLDER / "messages.po").open("rb") as file:
        return read_po(file, locale="zh_Hans_CN")


def messages() -> Iterable[Message]:
    return [message for message in catalogue() if message.id]


def texts(value: object) -> list[str]:
    return [str(part) for part in value] if isinstance(value, list | tuple) else [str(value)]


def test_the_catalogue_has_the_texts_of_code_and_pages_and_no_others() -> None:
    found = {
        text if isinstance(text, str) else text[0]
        for _, _, text, _, _ in extract_from_dir(ROOT, METHODS, keywords=KEYWORDS)
    }
    assert len(found) > 200
    assert {texts(message.id)[0] for message in messages()} == found


def test_no_text_is_missing_doubtful_or_left_in_english() -> None:
    same_in_chinese = {"t（Welch）"}
    for message in messages():
        assert not message.fuzzy, message.id
        for text in texts(message.string):
            assert text, message.id
            words = re.search(r"[A-Za-z]", PLACE.sub("", text))
            assert re.search(r"[\u4e00-\u9fff～]", text) or not words or text in same_in_chinese


def test_translations_hold_the_same_facts() -> None:
    for message in messages():
        wanted = set(PLACE.findall(" ".join(texts(message.id))))
        for text in texts(message.string):
            assert set(PLACE.findall(text)) == wanted or message.pluralizable, message.id


def test_the_compiled_catalogue_is_that_of_the_source(tmp_path: Path) -> None:
    with (tmp_path / "x.mo").open("wb") as file:
        write_mo(file, catalogue())
    with (tmp_path / "x.mo").open("rb") as fresh, (FOLDER / "messages.mo").open("rb") as kept:
        assert fresh.read() == kept.read()


@pytest.mark.parametrize(
    ("table", "codes"),
    [
        (sentences.VERDICTS, Verdict),
        (sentences.REASONS, ReasonCode),
        (sentences.PROBLEMS, Problem),
        (sentences.STATUSES, Status),
        (sentences.ROLES, Role),
        (sentences.DIRECTIONS, Direction),
    ],
)
@pytest.mark.parametrize("locale", LANGUAGES.values())
def test_every_code_has_a_sentence_in_both_languages(
    app: Flask, table: Mapping[str, object], codes: type[StrEnum], locale: str
) -> None:
    assert set(table) == set(codes)
    with app.test_request_context(), force_locale(locale):
        for code in codes:
            sentence = sentences.known(table, code)
            assert sentence
            assert code.value not in sentence or code.value.isalpha()
            assert ("zh" in locale) == bool(re.search(r"[\u4e00-\u9fff]", sentence))


@pytest.mark.parametrize(
    ("table", "part", "field"),
    [
        (sentences.METHODS, Method, "name"),
        (sentences.INTERVALS, Method, "interval"),
        (sentences.CORRECTIONS, Method, "correction"),
        (sentences.STATISTICS, Statistic, "name"),
        (sentences.ADJUSTMENTS, MetricReport, "adjustment"),
        (sentences.COMPARISONS, Method, "comparisons"),
        (sentences.KINDS, MetricReport, "kind"),
        (sentences.SHAPES, DoseResponse, "shape"),
        (sentences.SPENDING, Spending, "name"),
    ],
)
def test_every_choice_that_a_report_can_name_has_a_sentence(
    table: Mapping[str, object], part: type[object], field: str
) -> None:
    assert set(table) == set(get_args(get_type_hints(part)[field]))


def test_every_chart_to_download_has_a_name() -> None:
    assert list(sentences.CHARTS) == list(charts.NAMES)


@pytest.mark.parametrize("code", HealthCode)
def test_every_finding_has_a_sentence_and_an_advice_in_both_languages(app: Flask, code: HealthCode) -> None:
    for locale, formats in (("en", EN), ("zh_Hans_CN", ZH)):
        with app.test_request_context(), force_locale(locale):
            neutral = sentences.known({}, "x")
            for text in sentences.health(code, 1_234, 56_789, "VIP", formats):
                assert text
                assert text != neutral
                assert ("zh" in locale) == bool(re.search(r"[\u4e00-\u9fff]", text))


def test_a_code_of_a_newer_program_is_not_shown_raw(app: Flask) -> None:
    with app.test_request_context():
        assert "brand_new" not in sentences.known(sentences.REASONS, "brand_new")
        assert "brand_new" not in "".join(sentences.health("brand_new", 1, 2, None, EN))
