"""The settings of a store: from the environment and back."""

from pathlib import Path

import pytest

from experiments.errors import InvalidDocument
from experiments.settings import Settings


def test_the_default_is_a_folder_here() -> None:
    settings = Settings.from_env({})
    folder = Path("upturn-store").absolute()
    assert settings == Settings(folder, f"sqlite:///{folder}/upturn.db", folder / "lake", "UTC", "CNY")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"UPTURN_STORE": "/srv/春"},
        {"UPTURN_LAKE": "/data/lake", "UPTURN_TIMEZONE": "Asia/Shanghai", "UPTURN_CURRENCY": "EUR"},
        {"UPTURN_CURRENCY": "CNY", "UPTURN_RATES": "USD=7.1,JPY=0.0485"},
        {"UPTURN_DATABASE_URL": "postgresql://u:p%40@db/upturn"},
    ],
)
def test_the_environment_is_read_and_written_back(environ: dict[str, str]) -> None:
    settings = Settings.from_env(environ)
    written = settings.to_env()
    assert Settings.from_env(written) == settings
    assert written | environ == written


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../etc/passwd", "/etc/localtime"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        Settings.from_env({"UPTURN_TIMEZONE": zone})
    assert [(problem.field, problem.value) for problem in caught.value.problems] == [("timezone", zone)]


@pytest.mark.parametrize("currency", ["", "yuan", "cny", "¥¥¥", "CN1"])
def test_a_currency_is_three_capitals(currency: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        Settings.from_env({"UPTURN_CURRENCY": currency})
    assert [problem.field for problem in caught.value.problems] == ["currency"]


def test_rates_are_numbers_by_currency() -> None:
    settings = Settings.from_env({"UPTURN_RATES": " USD=7.1, JPY=0.0485,VND=2.7e-4 ", "UPTURN_LAKE": "/data/lake"})
    assert settings.rates == {"USD": 7.1, "JPY": 0.0485, "VND": 0.00027}
    assert hash(settings) == hash(Settings.from_env(settings.to_env()))
    assert Settings.from_env({"UPTURN_RATES": ""}).rates == {}


@pytest.mark.parametrize(
    "rates",
    ["USD", "USD=", "USD=7,1", "usd=7.1", "USD=7.1;EUR=7.7", "USD=-1", "USD=nan", "USD=7.1,USD=7.2", "USD=7.1,", "=1"],
)
def test_unreadable_rates_are_refused(rates: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        Settings.from_env({"UPTURN_RATES": rates})
    assert [(problem.field, problem.value) for problem in caught.value.problems] == [("rates", rates)]


@pytest.mark.parametrize("rates", ["USD=0", "USD=1e999", "CNY=1", "EUR=1,USD=0.0"])
def test_a_rate_is_above_zero_and_of_another_currency(rates: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        Settings.from_env({"UPTURN_RATES": rates})
    assert [problem.field for problem in caught.value.problems] == [f"rates.{rates.split(',')[-1][:3]}"]
