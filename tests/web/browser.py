"""A person at a browser without scripts: follows forms with their tokens."""

import re
from collections.abc import Mapping

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.web import made

_TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')


class Browser:
    """Keeps a session, and sends the token of the last page with every form."""

    def __init__(self, client: FlaskClient, *, logged_in: bool = False, language: str | None = None) -> None:
        self.client = client
        self._language = language
        self._token = ""
        if logged_in:
            with client.session_transaction() as session:
                session["login"] = made.LOGIN
            self.get("/login")

    def get(self, path: str) -> TestResponse:
        headers = {"Accept-Language": self._language} if self._language else {}
        answer = self.client.get(path, headers=headers)
        if found := _TOKEN.search(answer.text if answer.mimetype == "text/html" else ""):
            self._token = found[1]
        return answer

    def post(self, path: str, data: Mapping[str, object] | None = None) -> TestResponse:
        return self.client.post(path, data={"csrf_token": self._token, **(data or {})})

    def log_in(self, login: str = made.LOGIN, password: str = made.PASSWORD, next: str = "") -> TestResponse:  # noqa: A002
        self.get("/login")
        answer = self.post("/login", {"login": login, "password": password, "next": next})
        if answer.status_code == 303:
            self.get("/")
        return answer
