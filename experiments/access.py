"""Who may do what: API keys with scopes for programs, accounts for people. Secrets are stored hashed only."""

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from experiments.errors import Conflict, FieldProblem, InvalidDocument, NotFound
from experiments.tables import Account, ApiKey

MIN_PASSWORD = 10
_HASHER = PasswordHasher()
# Verified when the login is unknown, so that an answer takes as long as for a known one.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQxMjM0NTY3OA$Vd1pS6DfFyXkPVx3nYeVxB1AyhgbiCRZ0Ft0nGz6TgA"


class Scope(StrEnum):
    """What a key may do; ``admin`` includes the others."""

    assign = "assign"
    ingest = "ingest"
    read = "read"
    admin = "admin"


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key without its secret."""

    name: str
    prefix: str
    scopes: frozenset[Scope]

    def allows(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.admin in self.scopes


def create_key(session: Session, name: str, scopes: Iterable[str], *, now: datetime) -> str:
    """Store a new key and return its secret, which cannot be read back later.

    Raises:
        InvalidDocument: no scope, or one that does not exist.
        Conflict: ``already_exists``: a key of this name is in use.
    """
    wanted = sorted(set(scopes))
    known = [scope.value for scope in Scope]
    bad = [scope for scope in wanted if scope not in known]
    if bad or not wanted:
        problem = FieldProblem("scopes", bad or None, "unknown_scope", f"give one or more of {', '.join(known)}")
        raise InvalidDocument([problem], "key")
    if session.scalar(select(ApiKey).where(ApiKey.name == name, ApiKey.revoked_at.is_(None))) is not None:
        raise Conflict("already_exists", f"a key named {name!r} is in use: revoke it, or choose another name")
    secret = f"upk_{secrets.token_urlsafe(24)}"
    session.add(
        ApiKey(
            name=name,
            prefix=secret[:8],
            digest=_digest(secret),
            scopes=" ".join(wanted),
            created_at=now,
            revoked_at=None,
        )
    )
    return secret


def find_key(session: Session, secret: str) -> KeyInfo | None:
    """Return the key with this secret, unless it is unknown or revoked."""
    row = session.scalar(select(ApiKey).where(ApiKey.digest == _digest(secret), ApiKey.revoked_at.is_(None)))
    return None if row is None else _info(row)


def keys(session: Session) -> list[KeyInfo]:
    """Return the keys in use, by name."""
    rows = session.scalars(select(ApiKey).where(ApiKey.revoked_at.is_(None)).order_by(ApiKey.name))
    return [_info(row) for row in rows]


def revoke_key(session: Session, name: str, *, now: datetime) -> None:
    """Revoke the key of this name; raise NotFound when none is in use."""
    row = session.scalar(select(ApiKey).where(ApiKey.name == name, ApiKey.revoked_at.is_(None)))
    if row is None:
        raise NotFound("not_found", f"there is no key {name!r} in use")
    row.revoked_at = now


def create_account(session: Session, login: str, password: str, *, now: datetime) -> None:
    """Let a person log in with a password of at least ``MIN_PASSWORD`` characters; raise Conflict if taken."""
    _check_password(password)
    if session.scalar(select(Account).where(Account.login == login)) is not None:
        raise Conflict("already_exists", f"there is an account {login!r} already")
    session.add(Account(login=login, password_hash=_HASHER.hash(password), created_at=now))


def set_password(session: Session, login: str, password: str) -> None:
    """Change a password; raise NotFound when there is no such account."""
    _check_password(password)
    row = session.scalar(select(Account).where(Account.login == login))
    if row is None:
        raise NotFound("not_found", f"there is no account {login!r}")
    row.password_hash = _HASHER.hash(password)


def check_login(session: Session, login: str, password: str) -> bool:
    """Tell whether the password is right; takes as long for a login that does not exist."""
    # No account has such a login, and PostgreSQL refuses to look for it.
    row = None if "\0" in login else session.scalar(select(Account).where(Account.login == login))
    try:
        return _HASHER.verify(row.password_hash if row else _NOBODY, password) and row is not None
    except (VerificationError, InvalidHashError):
        return False


def accounts(session: Session) -> list[str]:
    """Return the logins, sorted."""
    return list(session.scalars(select(Account.login).order_by(Account.login)))


def _check_password(password: str) -> None:
    if len(password) < MIN_PASSWORD:
        problem = FieldProblem("password", None, "too_short", f"give at least {MIN_PASSWORD} characters")
        raise InvalidDocument([problem], "account")


def _digest(secret: str) -> str:
    # A key has 192 random bits: one fast hash is as good as a slow one, and is computed on every request.
    return hashlib.sha256(secret.encode()).hexdigest()


def _info(row: ApiKey) -> KeyInfo:
    return KeyInfo(row.name, row.prefix, frozenset(Scope(scope) for scope in row.scopes.split()))
