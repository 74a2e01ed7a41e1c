"""Who is the same person: links in the record and in the lake, and what goes over from one id to the next."""

import json
import random
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select

from experiments import identity, inbox, ingest, lake
from experiments.store import Store
from experiments.tables import Identity, StoredAssignment, UserAttributes
from tests.experiments.store_rows import alias, at_once, event, exposure, identify, in_lake, receive, start


def identities(store: Store) -> dict[str, str]:
    with store.read() as session:
        return {row.other_id: row.user_id for row in session.scalars(select(Identity))}


def assigned(store: Store) -> dict[str, str]:
    with store.read() as session:
        return {row.user_id: row.variant for row in session.scalars(select(StoredAssignment))}


def attributes(store: Store) -> dict[str, Any]:
    with store.read() as session:
        return {row.user_id: json.loads(row.attributes) for row in session.scalars(select(UserAttributes))}


def known(store: Store) -> tuple[dict[str, str], dict[str, str], dict[str, Any]]:
    return identities(store), assigned(store), attributes(store)


class Model:
    """What should be known after items that come one by one."""

    def __init__(self) -> None:
        self.following: dict[str, str] = {}
        self.assigned: dict[str, str] = {}
        self.attributes: dict[str, Any] = {}
        self._messages: set[str] = set()

    def last(self, user: str) -> str:
        while user in self.following:
            user = self.following[user]
        return user

    def take(self, item: dict[str, Any]) -> None:
        user, retried = item["userId"], item["messageId"] in self._messages
        self._messages.add(item["messageId"])
        if item["type"] == "exposure":
            for who in (user, self.last(user)):
                self.assigned.setdefault(who, item["variant"])
        elif item["type"] == "identify" and not retried:
            self.attributes[user] = self.attributes.get(user, {}) | item["traits"]
        elif item["type"] == "alias" and not retried:
            other, last = item["previousId"], self.last(user)
            if other not in self.following and last != other:
                self.following[other] = user
                if other in self.assigned:
                    self.assigned.setdefault(last, self.assigned[other])
                if other in self.attributes:
                    self.attributes[last] = self.attributes[other] | self.attributes.get(last, {})

    @property
    def known(self) -> tuple[dict[str, str], dict[str, str], dict[str, Any]]:
        return {other: self.last(other) for other in self.following}, self.assigned, self.attributes


def random_items(r: random.Random, count: int) -> list[dict[str, Any]]:
    users = ["a", "b", "c", "d", "用户", "😀"]
    items: list[dict[str, Any]] = []
    for number in range(count):
        one, other = r.sample(users, 2)
        match r.randrange(5):
            case 0 | 1:
                items.append(alias(f"m{number}", other, one))
            case 2 | 3:
                items.append(exposure(f"m{number}", one, variant=r.choice(["control", "coupon"])))
            case _:
                items.append(identify(f"m{number}", one, **{r.choice("xyz"): number}))
        if r.random() < 0.2:
            items.append(r.choice(items))
    return items


@pytest.mark.parametrize("seed", range(25))
def test_what_is_known_equals_a_walk_item_by_item(any_store: Store, now: datetime, seed: int) -> None:
    """However the items are cut into batches; and the lake's rows tell the same people."""
    start(any_store, now)
    r = random.Random(seed)
    items = random_items(r, 60)
    model = Model()
    rest = list(items)
    while rest:
        batch, rest = rest[: (size := r.choice([1, 2, 7, 30]))], rest[size:]
        assert not receive(any_store, batch, now).rejected
        for item in batch:
            model.take(item)
        assert known(any_store) == model.known
    assert people_in_lake(any_store, now) == model.known[0]


def people_in_lake(store: Store, now: datetime) -> dict[str, str]:
    lake.sync(store.engine, store.lake, now=now)
    with store.read() as session:
        rows = pa.concat_tables(pq.read_table(path) for path in lake.files(session, store.lake, "alias"))
    links = rows.sort_by("seq").rename_columns({"name": "other_id"})
    return dict(zip(*identity.last_ids(links).to_pydict().values(), strict=True))


def test_a_variant_seen_anonymously_is_kept_after_the_log_in(any_store: Store, now: datetime) -> None:
    start(any_store, now)
    receive(any_store, [exposure("x", "device"), identify("i", "device", tier="gold", city="Wuhan")], now)
    receive(any_store, [identify("j", "user", city="Wuxi")], now)
    receive(any_store, [alias("a", "device", "user")], now)
    assert assigned(any_store) == {"device": "coupon", "user": "coupon"}
    assert attributes(any_store)["user"] == {"tier": "gold", "city": "Wuxi"}


def test_a_user_who_has_a_variant_keeps_it(any_store: Store, now: datetime) -> None:
    start(any_store, now)
    receive(any_store, [exposure("x", "device"), exposure("y", "user", variant="control")], now)
    receive(any_store, [alias("a", "device", "user")], now)
    assert assigned(any_store) == {"device": "coupon", "user": "control"}


def test_an_exposure_that_comes_after_the_link_is_the_users_too(any_store: Store, now: datetime) -> None:
    start(any_store, now)
    receive(any_store, [alias("a", "device", "user"), alias("b", "user", "account")], now)
    receive(any_store, [exposure("x", "device")], now)
    receive(any_store, [exposure("y", "account", variant="control")], now)
    assert assigned(any_store) == {"device": "coupon", "account": "coupon"}


def test_a_chain_leads_to_its_end_and_a_ring_is_not_closed(any_store: Store, now: datetime) -> None:
    links = [alias("1", "a", "b"), alias("2", "b", "c"), alias("3", "c", "a"), alias("4", "c", "d")]
    receive(any_store, links, now)
    assert identities(any_store) == {"a": "d", "b": "d", "c": "d"}
    receive(any_store, [alias("5", "d", "b"), alias("6", "d", "e")], now)
    assert identities(any_store) == {"a": "e", "b": "e", "c": "e", "d": "e"}


def test_a_device_used_by_somebody_else_later_stays_with_the_first(any_store: Store, now: datetime) -> None:
    start(any_store, now)
    receive(any_store, [exposure("x", "tablet"), identify("i", "tablet", tier="gold")], now)
    receive(any_store, [alias("a", "tablet", "mother")], now)
    before = known(any_store)
    assert receive(any_store, [alias("b", "tablet", "child")], now).accepted == 1
    assert known(any_store) == before


def test_a_retried_link_changes_nothing(any_store: Store, now: datetime) -> None:
    start(any_store, now)
    receive(any_store, [identify("i", "device", a=1), alias("a", "device", "user"), alias("b", "user", "device")], now)
    receive(any_store, [identify("j", "device", b=2)], now)
    before = known(any_store)
    again = [alias("a", "device", "user"), alias("b", "user", "device"), alias("a", "other", "user")]
    assert receive(any_store, again, now).duplicates == 3
    assert receive(any_store, [alias("c", "device", "user")], now).accepted == 1
    assert known(any_store) == before
    assert before[2] == {"device": {"a": 1, "b": 2}, "user": {"a": 1}}


def test_a_message_that_is_something_else_already_links_nobody(any_store: Store, now: datetime) -> None:
    receive(any_store, [event("m"), alias("m", "device", "user")], now)
    receive(any_store, [alias("m", "device", "user"), alias("n", "n", "user"), identify("n", "n", a=1)], now)
    assert (identities(any_store), attributes(any_store)) == ({"n": "user"}, {})


def test_a_failing_transaction_links_nobody(any_store: Store, now: datetime) -> None:
    start(any_store, now)
    receive(any_store, [exposure("x", "device"), identify("i", "device", a=1)], now)
    before = known(any_store)

    def fail() -> None:
        with any_store.write() as session:
            decoded = ingest.Decoded([(0, ingest.Alias("a", "user", previous_id="device"))], [], None)
            ingest.store(session, any_store.catalog(session), decoded.items, now=now)
            raise ConnectionError

    with pytest.raises(ConnectionError):
        fail()
    assert known(any_store) == before


def test_senders_at_once_agree_with_the_lake_and_lose_no_variant(any_store: Store, now: datetime) -> None:
    """Rival links of the same devices, exposures of both ids meanwhile: no deadlock, one order for record and lake."""
    start(any_store, now)
    gate = Barrier(6)

    def send(number: int) -> None:
        r = random.Random(number)
        gate.wait()
        for turn in range(15):
            items = [alias(f"a{number}-{turn}-{i}", f"d{r.randrange(25)}", f"d{r.randrange(25, 40)}") for i in range(3)]
            items += [alias(f"r{number}-{turn}", f"d{r.randrange(25, 40)}", f"d{r.randrange(40)}x")]
            items += [exposure(f"x{number}-{turn}-{i}", f"d{r.randrange(40)}") for i in range(3)]
            items += [identify(f"i{number}-{turn}-{i}", f"d{r.randrange(40)}", n=turn) for i in range(3)]
            assert not receive(any_store, r.sample(items, len(items)), now).rejected

    assert [result for result in at_once(6, send) if result is not None] == []
    found = identities(any_store)
    assert len(found) > 30
    assert people_in_lake(any_store, now) == found
    holders = assigned(any_store)
    assert {found.get(user, user) for user in holders} <= holders.keys()


def test_links_go_to_the_lake_whole(any_store: Store, now: datetime) -> None:
    receive(any_store, [alias("m1", "device", "user"), event("m2")], now)
    receive(any_store, [alias("m1", "device", "user"), alias("m3", "tablet", "user")], now + timedelta(hours=1))
    lake.sync(any_store.engine, any_store.lake, now=now)
    assert in_lake(any_store, "alias") == ["m1", "m3"]
    with any_store.read() as session:
        row = pq.read_table(lake.files(session, any_store.lake, "alias")[0]).to_pylist()[0]
    assert (row["user_id"], row["name"], row["received_at"]) == ("user", "device", now)


def test_many_links_are_made_at_once(any_store: Store, now: datetime) -> None:
    start(any_store, now)
    users = [f"u{number}" for number in range(3000)]
    receive(any_store, [exposure(f"x{user}", f"{user}-device") for user in users], now)
    receive(any_store, [alias(f"a{user}", f"{user}-device", user) for user in users], now)
    assert identities(any_store) == {f"{user}-device": user for user in users}
    assert assigned(any_store).keys() == {*users, *identities(any_store)}
    with any_store.read() as session:
        assert inbox.last_ids(session, [*users, *identities(any_store)]) == identities(any_store)
