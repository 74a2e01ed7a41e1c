"""The client against the real application and a real store: over WSGI without a socket, and what lands in the inbox."""

import pytest
from sqlalchemy import select

from experiments.access import Scope
from experiments.sdk import Client, Details, WSGITransport
from experiments.tables import InboxRow
from tests.experiments.sdk.loopback import QUICK, until
from tests.web import made
from tests.web.conftest import app, clock, keys, store, template  # noqa: F401

TACTIC = {"copy": "Come back!", "offer": {"coupon": 10}}


@pytest.fixture
def secret(keys):  # noqa: F811
    return keys[Scope.admin]


def rows(store):  # noqa: F811
    with store.read() as session:
        return session.execute(
            select(InboxRow.kind, InboxRow.user_id, InboxRow.name, InboxRow.variant, InboxRow.stratum)
        ).all()


def test_an_exposure_and_what_follows_land_in_the_inbox(app, store, secret):  # noqa: F811
    made.documents(store)
    with Client("http://upturn.test", secret, transport=WSGITransport(app), options=QUICK) as client:
        assert client.wait_until_ready()
        variant = client.variant(made.KEY, "u1", {"orders": 1})
        assert client.value(made.KEY, "u1", {"orders": 1}) == ({"none": {}, "ten": TACTIC}[variant])
        client.track("u1", "visit", 1.5, {"page": "茶"})
        client.identify("u1", {"city": "上海"})
        client.touch("u1", "sms", "ghost")
        client.variant("no-such", "u1")
        assert client.flush(20)
        assert client.stats()["sent"]["accepted"] == 4
        assert client.stats()["rejected"] == {}
    assert sorted(rows(store)) == sorted(
        [
            ("exposure", "u1", made.KEY, variant, "new"),
            ("event", "u1", "visit", None, None),
            ("event", "u1", "touch", None, None),
            ("identify", "u1", "", None, None),
        ]
    )


def test_the_client_and_the_server_give_the_same_variants(app, store, secret):  # noqa: F811
    made.documents(store)
    with Client("http://upturn.test", secret, transport=WSGITransport(app), options=QUICK) as client:
        assert client.wait_until_ready()
        answer = app.test_client().post(
            "/v1/assignments",
            json={"users": [{"user": f"u{i}", "attributes": {"orders": i % 3}} for i in range(60)]},
            headers={"Authorization": f"Bearer {secret}"},
        )
        for entry in answer.json["users"]:
            user = entry["user"]
            found = client.details(made.KEY, user, {"orders": int(user[1:]) % 3})
            told = entry["assignments"][made.KEY]
            assert (found.variant, str(found.reason), found.stratum) == (
                told["variant"],
                told["reason"],
                told["stratum"],
            )


def test_a_changed_experiment_reaches_the_client(app, store, secret):  # noqa: F811
    made.documents(store, start=False)
    with Client("http://upturn.test", secret, transport=WSGITransport(app), options=QUICK) as client:
        assert client.wait_until_ready()
        assert client.variant(made.KEY, "u1", {"orders": 1}) is None
        moved = app.test_client().post(
            f"/v1/experiments/{made.KEY}/status",
            json={"status": "running"},
            headers={"Authorization": f"Bearer {secret}"},
        )
        assert moved.status_code == 200
        until(lambda: client.details(made.KEY, "u1", {"orders": 1}).variant)


def test_a_refused_item_is_counted_and_takes_no_other_with_it(app, store, secret):  # noqa: F811
    made.documents(store)
    with Client("http://upturn.test", secret, transport=WSGITransport(app), options=QUICK) as client:
        client.track("u1", "visit")
        client.expose(Details("nothing", "u2", "b"))
        client.track("u3", "visit")
        assert client.flush(20)
        client.expose(Details(made.KEY, "u4", "b"))
        assert client.flush(20)
        assert client.stats()["sent"]["accepted"] == 2
        assert client.stats()["rejected"] == {"unknown_experiment": 1, "unknown_variant": 1}
    assert {row.user_id for row in rows(store)} == {"u1", "u3"}


def test_a_clock_that_goes_wrong_does_no_harm(app, store, clock, secret):  # noqa: F811
    clock.forward(days=-900)
    with Client("http://upturn.test", secret, transport=WSGITransport(app), options=QUICK) as client:
        client.track("u1", "visit")
        assert client.flush(20)
    with store.read() as session:
        (at,) = session.scalars(select(InboxRow.at_us))
    assert 0 <= clock.now.timestamp() - at / 1e6 < 60


def test_a_wrong_key_gives_defaults_and_keeps_the_items(app, store):  # noqa: F811
    client = Client("http://upturn.test", "upk_wrong", transport=WSGITransport(app), options=QUICK)
    assert not client.wait_until_ready(0.2)
    assert client.variant(made.KEY, "u1", default="none") == "none"
    client.track("u1", "visit")
    assert not client.flush(0.2)
    assert client.stats()["queue"]["items"] == 1
    client.close(0)
