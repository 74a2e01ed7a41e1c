"""Our own SDK over HTTP: the same variants, from a snapshot that is fetched; exposures and events arrive."""

from typing import Any

from experiments.sdk import Client
from tests.clients import shop
from tests.clients.served import Served, until


def test_every_user_gets_the_variant_of_the_assignment(served: Served, expected: list[dict[str, Any]]) -> None:
    with Client(served.url, served.keys["app"]) as client:
        assert client.wait_until_ready(20)
        for number, right in enumerate(expected):
            for flag in shop.RUNNING:
                found = client.details(flag, shop.user(number), shop.attributes(number))
                assert (found.variant, found.reason) == (right[flag]["variant"], right[flag]["reason"]), (flag, number)
                assert found.value == (shop.value_of(flag, right[flag]) if found.variant else None)


def test_exposures_and_events_arrive_and_a_change_is_heard(served: Served) -> None:
    served.create("experiments", shop.experiment("local"))
    with Client(served.url, served.keys["app"]) as client:
        assert client.wait_until_ready(20)
        assert client.variant("local", "李", default="mine") == "mine"
        served.move("local", "running")
        variant = until(lambda: client.variant("local", "李"))
        assert client.track("李", "purchase", 25.5, {"sku": "茶"})
    rows = served.rows("user_id = '李'")
    assert [(row.kind, row.name, row.variant, row.value_micros) for row in rows] == [
        ("exposure", "local", variant, None),
        ("event", "purchase", None, 25_500_000),
    ]
