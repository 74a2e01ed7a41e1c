"""Who may do what: API keys with scopes for programs, accounts for people. Secrets are stored hashed only."""

import hashlib
import re
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


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key without its secret."""

    name: str
    prefix: str
    scopes: frozenset[Scope]
    origins: frozenset[str] = frozenset()
    """The web origins whose pages may use it (``*``: any); such a key is public. None: for servers."""
    digest: str = ""

    def allows(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.admin in self.scopes

    def admits(self, origin: str) -> bool:
        """Whether pages of this origin may use the key."""
        return origin in self.origins or "*" in self.origins


def create_key(
    session: Session, name: str, scopes: Iterable[str], *, now: datetime, origins: Iterable[str] = ()
) -> str:
    """Store a new key and return its secret, which cannot be read back later.

    Raises:
        InvalidDocument: no scope, or one that does not exist; an origin that is none, or origins on a key that may do
            more than apps do: everyone can read a key that is in a web page.
        Conflict: ``already_exists``: a key of this name is in use.
    """
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
    return secret


def keys(session: Session) -> list[KeyInfo]:
    """Return the keys in use, by name."""
    rows = session.scalars(select(ApiKey).where(ApiKey.revoked_at.is_(None)).order_by(ApiKey.name))
    return [key_info(row.name, row.prefix, row.scopes, row.origins, row.digest) for row in rows]


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


def digest(secret: str) -> str:
    """Return what is stored of a secret."""
    # A key has 192 random bits: one fast hash is as good as a slow one, and is computed on every request.
    return hashlib.sha256(secret.encode()).hexdigest()


def key_info(name: str, prefix: str, scopes: str, origins: str, digest: str) -> KeyInfo:
    """Return a key from what is stored of it."""
    allowed = frozenset(Scope(scope) for scope in scopes.split())
    return KeyInfo(name, prefix, allowed, frozenset(origins.split()), digest)
