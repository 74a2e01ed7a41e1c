"""Keys and accounts: only hashes are stored, and an unknown login takes the same path as a known one."""

from datetime import datetime
from typing import Any

import pytest
from argon2.exceptions import VerifyMismatchError

from experiments import access, audit
from experiments.access import Role, Scope
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
        access.set_password(session, "李", "another secret 口令", now=now)
    with any_store.read() as session:
        assert not access.check_login(session, "李", PASSWORD)
        assert access.check_login(session, "李", "another secret 口令")


def test_unknown_accounts_are_told(sqlite_store: Store, now: datetime) -> None:
    with sqlite_store.write() as session:
        access.create_account(session, "li", PASSWORD, now=now)
        with pytest.raises(Conflict):
            access.create_account(session, "li", PASSWORD, now=now)
        with pytest.raises(NotFound):
            access.set_password(session, "wang", PASSWORD, now=now)


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
            access.set_password(session, "li", password, now=now)
    assert created.value.problems[0].value is None


def test_the_first_account_is_an_admins_and_later_ones_editors(any_store: Store, now: datetime) -> None:
    with any_store.write() as session:
        for login, role in (("a", None), ("b", None), ("c", "viewer")):
            access.create_account(session, login, None, role=role, now=now)
    with any_store.read() as session:
        assert [(each.login, each.role) for each in access.people(session)] == [
            ("a", Role.admin),
            ("b", Role.editor),
            ("c", Role.viewer),
        ]
        assert not access.check_login(session, "a", "")


@pytest.mark.parametrize("role", list(Role))
def test_each_role_includes_the_ones_before(role: Role) -> None:
    order = [Role.viewer, Role.editor, Role.approver, Role.admin]
    assert [role.includes(other) for other in order] == [True] * (order.index(role) + 1) + [False] * (
        3 - order.index(role)
    )


def test_there_is_always_an_admin_who_can_log_in(any_store: Store, now: datetime) -> None:
    with any_store.write() as session:
        for login in ("a", "b"):
            access.create_account(session, login, None, role="admin", now=now)
        access.disable(session, "a", now=now)
        for act in (access.disable, lambda *given, now: access.set_role(*given, "editor", now=now)):
            with pytest.raises(Conflict) as caught:
                act(session, "b", now=now)
            assert caught.value.code == "last_admin"
        access.enable(session, "a", now=now)
        access.set_role(session, "b", "editor", now=now)
        with pytest.raises(InvalidDocument, match="viewer, editor, approver, admin"):
            access.set_role(session, "b", "king", now=now)


def test_sessions_end_with_the_password_and_with_the_account(any_store: Store, now: datetime) -> None:
    epochs = []
    with any_store.write() as session:
        for act in (
            lambda: access.create_account(session, "a", PASSWORD, now=now),
            lambda: access.create_account(session, "b", None, role="admin", now=now),
            lambda: access.set_password(session, "a", PASSWORD, now=now),
            lambda: access.disable(session, "a", now=now),
            lambda: access.disable(session, "a", now=now),
            lambda: access.enable(session, "a", now=now),
        ):
            act()
            found = access.account(session, "a")
            epochs.append(found.epoch if found else None)
            if found and found.disabled_at:
                assert not access.check_login(session, "a", PASSWORD)
        assert access.check_login(session, "a", PASSWORD)
    assert epochs == [0, 0, 1, 2, 2, 2]


@pytest.mark.parametrize("name", ["", " li", "li ", "a\nb", "a\0b", "x" * 101])
def test_a_name_is_one_that_can_be_read_and_typed(any_store: Store, now: datetime, name: str) -> None:
    with any_store.write() as session:
        with pytest.raises(InvalidDocument) as caught:
            access.create_account(session, name, PASSWORD, now=now)
        assert [problem.field for problem in caught.value.problems] == ["login"]
        with pytest.raises(InvalidDocument) as caught:
            access.create_key(session, name, ["read"], now=now)
        assert [problem.field for problem in caught.value.problems] == ["name"]


def test_what_is_done_to_accounts_and_keys_is_on_record(any_store: Store, now: datetime) -> None:
    with any_store.write() as session:
        access.create_account(session, "a", PASSWORD, now=now)
        access.create_key(session, "app", ["read"], now=now, actor="a")
        access.revoke_key(session, "app", now=now, actor="a")
    with any_store.read() as session:
        found = list(audit.entries(session, audit.Wanted()))
        assert [(entry.actor, entry.kind, entry.key, entry.action) for entry in found] == [
            ("a", "key", "app", "revoke"),
            ("a", "key", "app", "create"),
            (access.TERMINAL, "account", "a", "create"),
        ]
        assert [entry.key for entry in audit.entries(session, audit.Wanted(kind="key"), before=found[0].id)] == ["app"]
        assert list(audit.entries(session, audit.Wanted(end=now))) == []
        assert len(list(audit.entries(session, audit.Wanted(start=now), limit=2))) == 2
