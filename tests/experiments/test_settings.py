"""The settings of a store: from the environment and back."""

from pathlib import Path

import pytest

from experiments.access import Role
from experiments.errors import InvalidDocument
from experiments.settings import ROLES, Settings

OIDC = {
    "UPTURN_OIDC_ISSUER": "https://login.shop.example",
    "UPTURN_OIDC_CLIENT_ID": "upturn",
    "UPTURN_OIDC_CLIENT_SECRET": "s,e=c ret",
}


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
        {"UPTURN_TWO_PERSONS": "1"},
        {**OIDC, "UPTURN_PASSWORD_LOGIN": "0"},
        {**OIDC, "UPTURN_OIDC_DOMAINS": "shop.cn,shop.example", "UPTURN_OIDC_ROLE": "groups: a=b=admin, crm=editor"},
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


@pytest.mark.parametrize(
    ("environ", "field"),
    [
        ({"UPTURN_TWO_PERSONS": "yes"}, "two_persons"),
        ({"UPTURN_PASSWORD_LOGIN": "0"}, "password_login"),
        ({"UPTURN_OIDC_ISSUER": "https://login.shop.example"}, "oidc_client_id"),
        (OIDC | {"UPTURN_OIDC_ISSUER": "http://login.shop.example"}, "oidc_issuer"),
        (OIDC | {"UPTURN_OIDC_ISSUER": "http://127.0.0.1.evil.example"}, "oidc_issuer"),
        (OIDC | {"UPTURN_OIDC_ROLE": "groups"}, "oidc_role"),
        (OIDC | {"UPTURN_OIDC_ROLE": "groups: crm=king"}, "oidc_role"),
    ],
)
def test_settings_of_logging_in_are_checked(environ: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        Settings.from_env(environ)
    assert caught.value.problems[0].field == field


def test_a_mapping_of_roles_is_read_and_the_secret_never_shown() -> None:
    settings = Settings.from_env(OIDC | {"UPTURN_OIDC_ROLE": "groups: cn=crm=editor, a b=admin"})
    assert settings.oidc is not None
    assert settings.oidc.role == ("groups", (("cn=crm", "editor"), ("a b", "admin")))
    assert "s,e=c ret" not in repr(settings)


def test_the_roles_of_the_settings_are_those_there_are() -> None:
    assert tuple(Role) == ROLES
