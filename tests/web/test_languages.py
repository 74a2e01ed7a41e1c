"""Which language a reader gets, and that the traditional catalogue is the simplified one converted."""

import pytest
from flask.testing import FlaskClient

from tests.web import traditional


@pytest.mark.parametrize(
    ("header", "lang"),
    [
        ("", "en"),
        ("fr, de;q=0.9", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-Hans-CN"),
        ("zh", "zh-Hans-CN"),
        ("zh-TW,en;q=0.5", "zh-Hant-TW"),
        ("zh-Hant-HK", "zh-Hant-TW"),
        ("fr, zh-HK;q=0.8, en;q=0.5", "zh-Hant-TW"),
        ("en-GB, zh-CN;q=0.9", "en"),
    ],
)
def test_the_browser_is_asked(client: FlaskClient, header: str, lang: str) -> None:
    assert f'<html lang="{lang}"' in client.get("/login", headers={"Accept-Language": header}).text


def test_an_address_may_name_the_language_and_it_is_kept(client: FlaskClient) -> None:
    assert '<html lang="zh-Hant-TW"' in client.get("/login?lang=zh-hant").text
    assert '<html lang="zh-Hant-TW"' in client.get("/login").text
    assert '<html lang="zh-Hant-TW"' in client.get("/login?lang=klingon").text
    assert '<html lang="en"' in client.get("/login?lang=en").text


def test_the_switch_comes_back_to_the_page_and_not_to_the_language_of_its_address(client: FlaskClient) -> None:
    assert 'name="next" value="/login?next=%2Faudit"' in client.get("/login?lang=zh&next=/audit").text


def test_the_traditional_catalogue_is_the_simplified_one_converted() -> None:
    assert traditional.TRADITIONAL.read_bytes() == traditional.traditional(), "run python -m tests.web.traditional"
