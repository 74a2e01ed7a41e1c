"""Who may do what: API keys with scopes for programs, accounts for people. Secrets are stored hashed only."""

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from experiments import audit
from experiments.errors import Conflict, FieldProblem, InvalidDocument, NotFound
from experiments.tables import Account, ApiKey

MIN_PASSWORD = 10
MAX_NAME = 100
# Who acted, where no account did: whoever may run the command on the server.
TERMINAL = "command line"
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")
_HASHER = PasswordHasher()
# Verified when the login is unknown, so that an answer takes as long as for a known one.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQxMjM0NTY3OA$Vd1pS6DfFyXkPVx3nYeVxB1AyhgbiCRZ0Ft0nGz6TgA"


class Scope(StrEnum):
    """What a key may do; ``admin`` includes the others."""

    assign = "assign"
    ingest = "ingest"
    read = "read"
    admin = "admin"


class Role(StrEnum):
    """What a person may do; each role includes the ones before it."""

    viewer = "viewer"
    """Sees everything but people and keys."""
    editor = "editor"
    """Writes drafts, updates numbers, runs studies."""
    approver = "approver"
    """Starts, pauses, stops, decides, rolls out."""
    admin = "admin"
    """People and keys."""

    def includes(self, other: "Role") -> bool:
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class AccountInfo:
    """An account without its password.

    Attributes:
        epoch: grows when the password changes or the account is disabled, which ends the sessions begun before.
        language: of the pages, as chosen; None: the browser's.
        theme: ``light`` or ``dark``; None: the system's.
        up_colour: ``red`` where red means a rise; None: the house colours.
        has_password: whether it may log in by a password; else only by the company's login.
    """

    login: str
    role: Role
    created_at: datetime
    disabled_at: datetime | None = None
    epoch: int = 0
    language: str | None = None
    theme: str | None = None
    up_colour: str | None = None
    has_password: bool = True


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key without its secret."""

    name: str
    prefix: str
    scopes: frozenset[Scope]
    origins: frozenset[str] = frozenset()
    """The web origins whose pages may use it (``*``: any); such a key is public. None: for servers."""
    digest: str = ""
    created_at: datetime | None = None
    """Only in lists."""

    def allows(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.admin in self.scopes

    def admits(self, origin: str) -> bool:
        """Whether pages of this origin may use the key."""
        return origin in self.origins or "*" in self.origins


def create_key(
    session: Session,
    name: str,
    scopes: Iterable[str],
    *,
    now: datetime,
    origins: Iterable[str] = (),
    actor: str = TERMINAL,
) -> str:
    """Store a new key and return its secret, which cannot be read back later.

    Raises:
        InvalidDocument: no scope, or one that does not exist; an origin that is none, or origins on a key that may do
            more than apps do: everyone can read a key that is in a web page.
        Conflict: ``already_exists``: a key of this name is in use.
    """
    if problems := _name_problems("name", name):
        raise InvalidDocument(problems, "key")
    wanted = sorted(set(scopes))
    known = [scope.value for scope in Scope]
    bad = [scope for scope in wanted if scope not in known]
    if bad or not wanted:
        problem = FieldProblem("scopes", bad or None, "unknown_scope", f"give one or more of {', '.join(known)}")
        raise InvalidDocument([problem], "key")
    places = sorted(set(origins))
    problems = [
        FieldProblem("origins", origin, "bad_origin", "give https://host or https://host:port, or * for any")
        for origin in places
        if origin != "*" and not _ORIGIN.fullmatch(origin)
    ]
    if places and not set(wanted) <= {Scope.assign, Scope.ingest}:
        remedy = "a key for web pages is public: give it the scopes assign and ingest only"
        problems.append(FieldProblem("scopes", wanted, "too_powerful", remedy))
    if problems:
        raise InvalidDocument(problems, "key")
    if session.scalar(select(ApiKey).where(ApiKey.name == name, ApiKey.revoked_at.is_(None))) is not None:
        raise Conflict("already_exists", f"a key named {name!r} is in use: revoke it, or choose another name")
    secret = f"upk_{secrets.token_urlsafe(24)}"
    session.add(
        ApiKey(
            name=name,
            prefix=secret[:8],
            digest=digest(secret),
            scopes=" ".join(wanted),
            origins=" ".join(places),
            created_at=now,
            revoked_at=None,
        )
    )
    audit.record(session, "key", name, "create", {}, {"scopes": wanted, "origins": places}, actor=actor, now=now)
    return secret


def keys(session: Session) -> list[KeyInfo]:
    """Return the keys in use, by name."""
    rows = session.scalars(select(ApiKey).where(ApiKey.revoked_at.is_(None)).order_by(ApiKey.name))
    return [
        replace(key_info(row.name, row.prefix, row.scopes, row.origins, row.digest), created_at=row.created_at)
        for row in rows
    ]


def revoke_key(session: Session, name: str, *, now: datetime, actor: str = TERMINAL) -> None:
    """Revoke the key of this name; raise NotFound when none is in use."""
    row = session.scalar(select(ApiKey).where(ApiKey.name == name, ApiKey.revoked_at.is_(None)))
    if row is None:
        raise NotFound("not_found", f"there is no key {name!r} in use")
    row.revoked_at = now
    audit.record(session, "key", name, "revoke", {}, {}, actor=actor, now=now)


def create_account(
    session: Session,
    login: str,
    password: str | None,
    *,
    now: datetime,
    role: str | None = None,
    subject: str | None = None,
    actor: str = TERMINAL,
) -> None:
    """Let a person log in.

    Args:
        session: of the record, for writing.
        login: the name.
        password: of at least ``MIN_PASSWORD`` characters; None for a person who logs in by ``subject`` only.
        now: the present.
        role: a ``Role``; without it, the first account is an admin's, and later ones are editors'.
        subject: who this is at the OpenID provider.
        actor: who does this.

    Raises:
        InvalidDocument: login, password or role are no good.
        Conflict: ``already_exists``.
    """
    problems = [*_name_problems("login", login), *_role_problems(role)]
    if password is not None:
        problems += _password_problems(password)
    if problems:
        raise InvalidDocument(problems, "account")
    if _account(session, login) is not None:
        raise Conflict("already_exists", f"there is an account {login!r} already")
    first = session.scalar(select(func.count()).select_from(Account)) == 0
    given = Role(role) if role else Role.admin if first else Role.editor
    hashed = "" if password is None else _HASHER.hash(password)
    session.add(
        Account(login=login, password_hash=hashed, created_at=now, role=given, session_epoch=0, subject=subject)
    )
    audit.record(session, "account", login, "create", {}, {"role": given}, actor=actor, now=now)


def set_password(session: Session, login: str, password: str, *, now: datetime, actor: str = TERMINAL) -> None:
    """Change a password, which ends the open sessions of the account; raise NotFound when there is no such account."""
    if problems := _password_problems(password):
        raise InvalidDocument(problems, "account")
    row = _existing(session, login)
    row.password_hash = _HASHER.hash(password)
    row.session_epoch += 1
    audit.record(session, "account", login, "password", {}, {}, actor=actor, now=now)


def set_role(session: Session, login: str, role: str, *, now: datetime, actor: str = TERMINAL) -> None:
    """Change what a person may do.

    Raises:
        NotFound: there is no such account.
        InvalidDocument: there is no such role.
        Conflict: ``last_admin``: nobody would be left who may change people and keys.
    """
    if problems := _role_problems(role):
        raise InvalidDocument(problems, "account")
    row = _existing(session, login)
    if row.role == role:
        return
    _keep_an_admin(session, row)
    audit.record(session, "account", login, "role", {"role": row.role}, {"role": role}, actor=actor, now=now)
    row.role = role


def disable(session: Session, login: str, *, now: datetime, actor: str = TERMINAL) -> None:
    """Let a person in no more, and end his open sessions; raise as ``set_role`` does."""
    row = _existing(session, login)
    if row.disabled_at is not None:
        return
    _keep_an_admin(session, row)
    row.disabled_at = now
    row.session_epoch += 1
    audit.record(session, "account", login, "disable", {"disabled": False}, {"disabled": True}, actor=actor, now=now)


def enable(session: Session, login: str, *, now: datetime, actor: str = TERMINAL) -> None:
    """Let a disabled account in again; raise NotFound."""
    row = _existing(session, login)
    if row.disabled_at is None:
        return
    row.disabled_at = None
    audit.record(session, "account", login, "enable", {"disabled": True}, {"disabled": False}, actor=actor, now=now)


def set_looks(session: Session, login: str, *, language: str | None, theme: str | None, up_colour: str | None) -> None:
    """Keep how a person wants the pages; raise NotFound."""
    row = _existing(session, login)
    row.language, row.theme, row.up_colour = language, theme, up_colour


def check_login(session: Session, login: str, password: str) -> bool:
    """Tell whether the password is right and the account open; takes as long for a login that does not exist."""
    # No account has such a login, and PostgreSQL refuses to look for it.
    row = None if "\0" in login else _account(session, login)
    try:
        # Without a password: nothing matches, in the same time.
        right = _HASHER.verify((row and row.password_hash) or _NOBODY, password)
    except (VerificationError, InvalidHashError):
        return False
    return right and row is not None and bool(row.password_hash) and row.disabled_at is None


def account(session: Session, login: str) -> AccountInfo | None:
    """Return an account, also a disabled one."""
    row = _account(session, login)
    return None if row is None else _account_info(row)


def account_of(session: Session, subject: str) -> AccountInfo | None:
    """Return the account of a person at the OpenID provider."""
    row = session.scalar(select(Account).where(Account.subject == subject))
    return None if row is None else _account_info(row)


def people(session: Session) -> list[AccountInfo]:
    """Return all accounts, also disabled ones, by login."""
    return [_account_info(row) for row in session.scalars(select(Account).order_by(Account.login))]


def accounts(session: Session) -> list[str]:
    """Return the logins, sorted."""
    return list(session.scalars(select(Account.login).order_by(Account.login)))


def _account(session: Session, login: str) -> Account | None:
    return session.scalar(select(Account).where(Account.login == login))


def _existing(session: Session, login: str) -> Account:
    row = _account(session, login)
    if row is None:
        raise NotFound("not_found", f"there is no account {login!r}")
    return row


def _account_info(row: Account) -> AccountInfo:
    return AccountInfo(
        row.login,
        Role(row.role),
        row.created_at,
        row.disabled_at,
        row.session_epoch,
        row.language,
        row.theme,
        row.up_colour,
        bool(row.password_hash),
    )


def _keep_an_admin(session: Session, row: Account) -> None:
    """Refuse to take the last admin's role or account away."""
    if row.role != Role.admin or row.disabled_at is not None:
        return
    # Locked, so that two admins cannot take each other's role at the same moment.
    admins = session.scalars(
        select(Account.id).where(Account.role == Role.admin, Account.disabled_at.is_(None)).with_for_update()
    ).all()
    if len(admins) < 2:
        raise Conflict("last_admin", f"{row.login!r} is the last admin: make another account an admin first")


def _name_problems(field: str, name: str) -> list[FieldProblem]:
    if name == name.strip() and 0 < len(name) <= MAX_NAME and name.isprintable():
        return []
    return [FieldProblem(field, name, "bad_name", f"give 1 to {MAX_NAME} characters, without spaces at the ends")]


def _role_problems(role: str | None) -> list[FieldProblem]:
    if role is None or role in list(Role):
        return []
    return [FieldProblem("role", role, "unknown_role", f"give one of {', '.join(Role)}")]


def _password_problems(password: str) -> list[FieldProblem]:
    if len(password) >= MIN_PASSWORD:
        return []
    return [FieldProblem("password", None, "too_short", f"give at least {MIN_PASSWORD} characters")]


def digest(secret: str) -> str:
    """Return what is stored of a secret."""
    # A key has 192 random bits: one fast hash is as good as a slow one, and is computed on every request.
    return hashlib.sha256(secret.encode()).hexdigest()


def key_info(name: str, prefix: str, scopes: str, origins: str, digest: str) -> KeyInfo:
    """Return a key from what is stored of it."""
    allowed = frozenset(Scope(scope) for scope in scopes.split())
    return KeyInfo(name, prefix, allowed, frozenset(origins.split()), digest)
