"""Keys and accounts: only hashes are stored, and an unknown login takes the same path as a known one."""

from datetime import datetime
from typing import Any

import pytest
from argon2.exceptions import VerifyMismatchError

from experiments import access
from experiments.access import Scope
from experiments.errors import Conflict, InvalidDocument, NotFound
from experiments.store import Store

PASSWORD = "correct horse"


def make_key(store: Store, now: datetime, *scopes: str, name: str = "app") -> str:
    with store.write() as session:
        return access.create_key(session, name, scopes, now=now)


def test_neither_secret_nor_password_is_in_the_file(sqlite_store: Store, now: datetime) -> None:
    secret = make_key(sqlite_store, now, "ingest")
    with sqlite_store.write() as session:
        access.create_account(session, "li", PASSWORD, now=now)
    sqlite_store.close()
    stored = b"".join(path.read_bytes() for path in sqlite_store.settings.folder.glob("upturn.db*"))
    assert secret[:8].encode() in stored
    assert secret[8:].encode() not in stored
    assert PASSWORD.encode() not in stored
    assert b"$argon2id$" in stored


def find(store: Store, secret: str) -> access.KeyInfo | None:
    admission = store.lookup.admit(access.digest(secret))
    return None if admission is None else admission.key


def test_a_key_is_found_by_its_secret_until_it_is_revoked(any_store: Store, now: datetime) -> None:
    secret = make_key(any_store, now, "ingest", "read")
    found = find(any_store, secret)
    assert found is not None
    assert (found.name, found.prefix, found.scopes) == ("app", secret[:8], {Scope.ingest, Scope.read})
    assert find(any_store, secret + "x") is None
    assert find(any_store, "") is None
    assert find(any_store, "\0") is None
    with any_store.write() as session:
        access.revoke_key(session, "app", now=now)
    assert find(any_store, secret) is None
    with any_store.read() as session:
        assert access.keys(session) == []
    with any_store.write() as session, pytest.raises(NotFound):
        access.revoke_key(session, "app", now=now)


def test_the_name_of_a_revoked_key_is_free_again(sqlite_store: Store, now: datetime) -> None:
    first = make_key(sqlite_store, now, "ingest")
    with pytest.raises(Conflict):
        make_key(sqlite_store, now, "ingest")
    with sqlite_store.write() as session:
        access.revoke_key(session, "app", now=now)
    assert make_key(sqlite_store, now, "ingest") != first


@pytest.mark.parametrize("held", list(Scope))
@pytest.mark.parametrize("asked", list(Scope))
def test_a_key_allows_its_scopes_and_admin_all(sqlite_store: Store, now: datetime, held: Scope, asked: Scope) -> None:
    secret = make_key(sqlite_store, now, held)
    found = find(sqlite_store, secret)
    assert found is not None
    assert found.allows(asked) is (held in (asked, Scope.admin))


@pytest.mark.parametrize("scopes", [(), ("root",), ("ingest", "root")])
def test_scopes_must_exist(sqlite_store: Store, now: datetime, scopes: tuple[str, ...]) -> None:
    with pytest.raises(InvalidDocument) as caught:
        make_key(sqlite_store, now, *scopes)
    assert caught.value.problems[0].field == "scopes"


def test_a_person_logs_in_with_the_password_of_the_moment(any_store: Store, now: datetime) -> None:
    with any_store.write() as session:
        access.create_account(session, "李", PASSWORD, now=now)
    with any_store.read() as session:
        assert access.check_login(session, "李", PASSWORD)
        assert not access.check_login(session, "李", PASSWORD + "!")
        assert not access.check_login(session, "李", "")
        assert access.accounts(session) == ["李"]
    with any_store.write() as session:
        access.set_password(session, "李", "another secret 口令")
    with any_store.read() as session:
        assert not access.check_login(session, "李", PASSWORD)
        assert access.check_login(session, "李", "another secret 口令")


def test_unknown_accounts_are_told(sqlite_store: Store, now: datetime) -> None:
    with sqlite_store.write() as session:
        access.create_account(session, "li", PASSWORD, now=now)
        with pytest.raises(Conflict):
            access.create_account(session, "li", PASSWORD, now=now)
        with pytest.raises(NotFound):
            access.set_password(session, "wang", PASSWORD)


@pytest.mark.parametrize("login", ["nobody", "", "a\0b"])
def test_an_unknown_login_is_hashed_like_a_known_one(
    any_store: Store, monkeypatch: pytest.MonkeyPatch, login: str
) -> None:
    seen: list[BaseException | None] = []

    class Watched:
        def verify(self, hashed: str, password: str) -> Any:
            try:
                return hasher.verify(hashed, password)
            except BaseException as error:
                seen.append(error)
                raise

    hasher = access._HASHER
    monkeypatch.setattr(access, "_HASHER", Watched())
    with any_store.read() as session:
        assert not access.check_login(session, login, PASSWORD)
    # A malformed hash would be refused at once, before any work.
    assert [type(error) for error in seen] == [VerifyMismatchError]


def test_the_hash_for_nobody_costs_what_a_real_one_costs() -> None:
    assert access._NOBODY.rsplit("$", 2)[0] == access._HASHER.hash(PASSWORD).rsplit("$", 2)[0]


@pytest.mark.parametrize("password", ["", "ninechars"])
def test_a_short_password_is_refused_without_being_shown(sqlite_store: Store, now: datetime, password: str) -> None:
    with sqlite_store.write() as session:
        with pytest.raises(InvalidDocument) as created:
            access.create_account(session, "li", password, now=now)
        access.create_account(session, "li", PASSWORD, now=now)
        with pytest.raises(InvalidDocument):
            access.set_password(session, "li", password)
    assert created.value.problems[0].value is None
