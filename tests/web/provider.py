"""A small OpenID provider on loopback: real codes, PKCE, client secret and signed tokens. It can be told to lie."""

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from flask import Flask, Response, redirect, request
from flask.typing import ResponseReturnValue
from joserfc import jwt
from joserfc.jwk import RSAKey
from werkzeug.serving import make_server

CLIENT, SECRET = "upturn", "a client's secret"


@dataclass
class Provider:
    """What the provider knows, and how its next token differs from a good one."""

    issuer: str = ""
    person: dict[str, Any] = field(default_factory=lambda: {"sub": "7", "email": "Ann@Shop.example"})
    wrong: dict[str, Any] = field(default_factory=dict)
    """Claims of the ID token that are replaced; None takes one away."""
    small: bool = False
    """Whether the ID token names nobody's address, which then only the address for it does."""
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "k"}))
    signs: RSAKey | None = None
    """The key that signs instead of the one that is published."""
    asked: dict[str, dict[str, str]] = field(default_factory=dict)

    def app(self) -> Flask:
        app = Flask("provider")
        app.add_url_rule("/.well-known/openid-configuration", view_func=self._metadata)
        app.add_url_rule("/keys", view_func=lambda: {"keys": [self.key.as_dict(private=False)]}, endpoint="keys")
        app.add_url_rule("/authorize", view_func=self._authorize)
        app.add_url_rule("/token", view_func=self._token, methods=["POST"])
        app.add_url_rule("/person", view_func=self._person)
        return app

    def _metadata(self) -> dict[str, Any]:
        at = self.issuer
        return {
            "issuer": at,
            "authorization_endpoint": f"{at}/authorize",
            "token_endpoint": f"{at}/token",
            "userinfo_endpoint": f"{at}/person",
            "jwks_uri": f"{at}/keys",
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def _authorize(self) -> ResponseReturnValue:
        code = secrets.token_urlsafe()
        self.asked[code] = asked = dict(request.args)
        assert asked["client_id"] == CLIENT
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        return redirect(f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}")

    def _token(self) -> ResponseReturnValue:
        form, who = request.form, request.authorization
        asked = self.asked.pop(form["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if asked is None or asked["code_challenge"] != challenge.decode().rstrip("="):
            return {"error": "invalid_grant"}, 400
        if who is None or (who.username, who.password) != (CLIENT, SECRET):
            return {"error": "invalid_client"}, 401
        assert form["redirect_uri"] == asked["redirect_uri"]
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 60, "nonce": asked["nonce"]}
        claims |= {"sub": self.person["sub"]} if self.small else self.person
        claims = {name: value for name, value in (claims | self.wrong).items() if value is not None}
        token = jwt.encode({"alg": "RS256", "kid": "k"}, claims, self.signs or self.key)
        return {"access_token": "open", "token_type": "Bearer", "expires_in": 300, "id_token": token}

    def _person(self) -> ResponseReturnValue:
        if request.headers.get("Authorization") != "Bearer open":
            return Response(status=401)
        return self.person


@contextmanager
def serving() -> Iterator[Provider]:
    """Run a provider until the end of the block."""
    provider = Provider()
    server = make_server("127.0.0.1", 0, provider.app(), threaded=True)
    provider.issuer = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield provider
    server.shutdown()
    thread.join()
    server.server_close()
