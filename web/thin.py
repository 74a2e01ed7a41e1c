"""A thin layer before Flask for the calls of apps: a request costs a tenth of what Flask's routing would add.

Answers are made of the same parts as Flask's: keys, problems, security headers. Pages of other origins may call what is
here, with a key that names their origin.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs, quote

from flask import Flask

from experiments import access
from experiments.access import KeyInfo, Scope
from experiments.catalog import Catalog
from experiments.lookup import NOBODY
from experiments.store import Store
from web import payload, problems
from web.problems import RequestRefused
from web.replies import JSON, Reply
from web.state import State, state_of

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_STATUS: Final = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
# Of the security headers, what means something for an answer that is no page.
_NOSNIFF: Final = ("X-Content-Type-Options", "nosniff")
_NO_STORE: Final = ("Cache-Control", "no-store")
_OF_JSON: Final = (_NOSNIFF, _NO_STORE, ("Content-Type", JSON))
_EXPOSED: Final = "ETag, Link, Retry-After, X-SSE-Support"
_DAY: Final = 86_400


class Call:
    """A request, and who sent it once ``admit`` let him in."""

    __slots__ = ("_limits", "_version", "environ", "key", "known", "rest", "state")

    def __init__(self, environ: dict[str, Any], state: State, limits: dict[str, Any], rest: str) -> None:
        self.environ = environ
        self.state = state
        self.rest = rest
        """What the address has after the route's own part."""
        self.key: KeyInfo | None = None
        self.known = NOBODY
        """What is known of the user whom ``admit`` was told."""
        self._limits = limits
        self._version = 0

    @property
    def store(self) -> Store:
        return self.state.store

    @property
    def catalog(self) -> Catalog:
        """The documents in force when the key was admitted."""
        return self.store.catalog_at(self._version)

    def header(self, name: str) -> str | None:
        """Return a request header by the name that WSGI gives it, such as ``HTTP_IF_NONE_MATCH``."""
        value: str | None = self.environ.get(name)
        return value

    def query(self, name: str) -> str | None:
        """Return the first value of a parameter of the query."""
        found = parse_qs(self.environ.get("QUERY_STRING", "")).get(name)
        return found[0] if found else None

    def body(self, also: Iterable[str] = ()) -> bytes:
        """Return the request's JSON text (see ``payload.read``)."""
        return payload.read(self.environ, self._limits, tuple(also))

    def link(self, path: str) -> str:
        """Return the address of a path of this application as its callers write it, without the host."""
        return f"{quote(self.environ.get('SCRIPT_NAME', ''))}{path}"

    def admit(self, scope: Scope, secret: str | None = None, digest: str | None = None, user: str = "") -> KeyInfo:
        """Return the caller's key if it allows ``scope``.

        Args:
            scope: what is asked for.
            secret: of the key, where the call carries it elsewhere than in its headers.
            digest: of the secret, instead of it.
            user: whom the call asks about.

        Raises:
            RequestRefused: 401 no key or an unknown one; 403 it lacks the scope, or is not for this origin.
        """
        secret = secret or sent_secret(self.environ)
        admission = self.store.lookup.admit(digest or access.digest(secret), user) if digest or secret else None
        if admission is None:
            detail = "this key is unknown or revoked" if secret else "send a key: Authorization: Bearer upk_…"
            raise RequestRefused(401, "unauthorized", detail, {"WWW-Authenticate": 'Bearer realm="upturn"'})
        key, self._version, self.known = admission
        origin = self.environ.get("HTTP_ORIGIN")
        if origin and key.origins and not key.admits(origin) and not self._same(origin):
            detail = f"the key {key.name!r} is not for pages of {origin}: add this origin to a key"
            raise RequestRefused(403, "origin_not_allowed", detail)
        self.key = key
        if not key.allows(scope):
            raise RequestRefused(403, "scope_missing", f"the key {key.name!r} needs the scope {scope.value!r} for this")
        return key

    def _same(self, origin: str) -> bool:
        return origin.partition("://")[2] == self.environ.get("HTTP_HOST")


def sent_secret(environ: Mapping[str, Any]) -> str:
    """Return the key's secret that a request's headers carry, empty when none."""
    kind, _, secret = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    found: str = secret if kind.lower() == "bearer" else environ.get("HTTP_X_API_KEY", "")
    return found.strip()


@dataclass(frozen=True, slots=True)
class Route:
    """What answers a method at an address, and how its failures are told."""

    answer: Callable[[Call], Reply]
    failure: Callable[[Call, Exception], Reply] = lambda _, error: problems.from_error(error)


class Routes:
    """Routes by address: exact ones, and those whose end is free (``/ofrep/v1/evaluate/flags/*``)."""

    def __init__(self) -> None:
        self.exact: dict[str, dict[str, Route]] = {}
        self.free: dict[str, dict[str, Route]] = {}

    def add(self, method: str, path: str, route: Route) -> None:
        """Add a route; a path that ends in ``/*`` stands for all that go on there."""
        where, path = (self.free, path[:-1]) if path.endswith("/*") else (self.exact, path)
        where.setdefault(path, {})[method] = route

    def find(self, path: str) -> tuple[dict[str, Route], str] | None:
        """Return the routes of an address by method, and its free part."""
        found = self.exact.get(path)
        if found is not None:
            return found, ""
        for start, methods in self.free.items():
            if path.startswith(start):
                return methods, path[len(start) :]
        return None


class Thin:
    """The layer itself: a WSGI application that hands on what is not its own."""

    def __init__(self, app: Flask, routes: Routes) -> None:
        self._app = app
        self._next: Wsgi = app.wsgi_app
        self.routes = routes
        self._state = state_of(app)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        found = self.routes.find(environ["PATH_INFO"])
        if found is None:
            return self._next(environ, start_response)
        methods, rest = found
        call = Call(environ, self._state, self._app.config, _text(rest))
        reply = self._reply(call, methods)
        if reply.media_type == JSON and not reply.headers:
            headers = list(_OF_JSON)
        else:
            headers = [_NOSNIFF, *reply.headers.items()]
            if "Cache-Control" not in reply.headers:
                headers.append(_NO_STORE)
            if reply.media_type:
                headers.append(("Content-Type", reply.media_type))
        origin = environ.get("HTTP_ORIGIN")
        if origin:
            headers += self._shared(call, origin)
        if isinstance(reply.body, bytes) and reply.status not in (204, 304):
            headers.append(("Content-Length", str(len(reply.body))))
        start_response(_STATUS[reply.status], headers)
        return [reply.body] if isinstance(reply.body, bytes) else reply.body

    def _shared(self, call: Call, origin: str) -> Iterable[tuple[str, str]]:
        """What a browser needs to hand an answer to a page of another origin, if a key is for that."""
        yield "Vary", "Origin"
        # Who was refused may know why, on a page that any key is for.
        if self._admits(origin) if call.key is None else call.key.admits(origin):
            yield "Access-Control-Allow-Origin", origin
            yield "Access-Control-Expose-Headers", _EXPOSED

    def _admits(self, origin: str) -> bool:
        return bool(self._state.store.lookup.origins() & {origin, "*"})

    def _reply(self, call: Call, methods: Mapping[str, Route]) -> Reply:
        method = call.environ["REQUEST_METHOD"]
        route = methods.get(method)
        if route is None:
            allowed = ", ".join([*methods, "OPTIONS"])
            if method == "OPTIONS":
                return self._preflight(call, allowed)
            detail = "this address does not answer this method"
            return problems.answer(405, "method_not_allowed", detail, headers={"Allow": allowed})
        try:
            return route.answer(call)
        except Exception as error:  # the last line: whatever it is, the caller gets an answer
            reply = route.failure(call, error)
            if reply.status >= 500:
                self._app.logger.error("failed: %s %s", method, call.environ["PATH_INFO"], exc_info=error)
            return reply

    def _preflight(self, call: Call, allowed: str) -> Reply:
        """A browser asks before the call, without its key: whether any key is for pages of this origin."""
        origin = call.header("HTTP_ORIGIN")
        headers = {"Allow": allowed}
        if origin and self._admits(origin):
            headers |= {
                "Access-Control-Allow-Methods": allowed,
                "Access-Control-Allow-Headers": call.header("HTTP_ACCESS_CONTROL_REQUEST_HEADERS") or "",
                "Access-Control-Max-Age": str(_DAY),
            }
        return Reply(204, b"", "", headers)


def _text(part: str) -> str:
    return part.encode("latin-1").decode(errors="replace")
