"""Taking in: each message once, good items kept, bad ones answered by index and code, on both databases alike."""

import json
import random
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from experiments import ingest
from experiments.documents import Kind, Status
from experiments.errors import InvalidDocument
from experiments.ingest import ItemCode, Receipt
from experiments.store import Store
from experiments.tables import InboxRow, StoredAssignment, UserAttributes
from tests.experiments.store_rows import (
    METRIC,
    alias,
    at_once,
    create,
    event,
    experiment,
    exposure,
    identify,
    move,
    newest_document,
    receive,
    revise,
    start,
)

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def inbox(store: Store) -> list[Any]:
    with store.read() as session:
        return list(session.execute(select(InboxRow.__table__).order_by(InboxRow.seq)))


def messages(store: Store) -> list[str]:
    return [row.message_id for row in inbox(store)]


def assigned(store: Store) -> dict[tuple[str, int], tuple[str, str | None]]:
    with store.read() as session:
        rows = session.scalars(select(StoredAssignment)).all()
        return {(row.user_id, row.phase): (row.variant, row.stratum) for row in rows}


def attributes(store: Store, user: str = "u1") -> Any:
    with store.read() as session:
        found = session.scalar(select(UserAttributes.attributes).where(UserAttributes.user_id == user))
    return None if found is None else json.loads(found)


def refusals(receipt: Receipt) -> list[tuple[int, ItemCode]]:
    return [(refusal.index, refusal.code) for refusal in receipt.rejected]


# Each message once.


def test_a_message_is_stored_once_within_a_batch(any_store: Store, now: datetime) -> None:
    receipt = receive(any_store, [event("m1", value=1), event("m2"), event("m1", value=2)], now)
    assert receipt == Receipt(2, 1, [])
    assert [(row.message_id, row.value_micros) for row in inbox(any_store)] == [("m1", 1_000_000), ("m2", None)]


def test_a_message_is_stored_once_across_batches(any_store: Store, now: datetime) -> None:
    batch = [event("m1"), event("m2")]
    assert receive(any_store, batch, now) == Receipt(2, 0, [])
    assert receive(any_store, [*batch, event("m3")], now + timedelta(hours=1)) == Receipt(1, 2, [])
    assert [row.received_us for row in inbox(any_store)] == [ingest._micros(now)] * 2 + [
        ingest._micros(now + timedelta(hours=1))
    ]


def test_rows_keep_the_order_of_the_batch(any_store: Store, now: datetime) -> None:
    sent = [f"m{number}" for number in random.Random(5).sample(range(1000), 700)]
    receive(any_store, [event(message) for message in sent], now)
    assert messages(any_store) == sent


def test_concurrent_senders_of_the_same_messages_store_each_once(any_store: Store, now: datetime) -> None:
    """In different orders, about the same users: nobody fails by a deadlock either."""
    start(any_store, now)
    items = [
        *(event(f"e{number}", f"u{number}") for number in range(60)),
        *(exposure(f"x{number}", f"u{number}") for number in range(60)),
        *(identify(f"i{number}", f"u{number}", n=number) for number in range(60)),
    ]
    gate = Barrier(6)

    def send(number: int) -> Receipt:
        mine = random.Random(number).sample(items, len(items))
        gate.wait()
        for at in range(0, len(mine), 60):
            receipt = receive(any_store, mine[at : at + 60], now)
            assert not receipt.rejected
        return receipt

    results = at_once(6, send)
    assert [result for result in results if isinstance(result, Exception)] == []
    assert sorted(messages(any_store)) == sorted(str(item["messageId"]) for item in items)
    assert len(assigned(any_store)) == 60
    assert [attributes(any_store, f"u{number}") for number in range(60)] == [{"n": number} for number in range(60)]


def test_a_failing_transaction_leaves_nothing(any_store: Store, now: datetime) -> None:
    start(any_store, now)
    body = msgspec.json.encode({"batch": [event("m1"), exposure("m2"), identify("m3", tier="gold")]})

    def fail() -> None:
        with any_store.write() as session:
            assert ingest.receive(session, any_store.catalog(session), body, now=now).accepted == 3
            raise ConnectionError

    with pytest.raises(ConnectionError):
        fail()
    assert (inbox(any_store), assigned(any_store), attributes(any_store)) == ([], {}, None)


# What an item is.


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (event("m", timestamp="2026-03-01T10:00:00"), ItemCode.invalid_item),
        (event("m", timestamp="yesterday"), ItemCode.invalid_item),
        (event("m", timestamp=1767225600), ItemCode.invalid_item),
        (event(""), ItemCode.invalid_item),
        (event("m" * 301), ItemCode.invalid_item),
        (event("m", "u" * 301), ItemCode.invalid_item),
        (event("m", event="e" * 301), ItemCode.invalid_item),
        (event("m", userId=None), ItemCode.invalid_item),
        (event("m", userId=7), ItemCode.invalid_item),
        (event("m", value="12"), ItemCode.invalid_item),
        (event("m", value=True), ItemCode.invalid_item),
        (event("m", colour="red"), ItemCode.invalid_item),
        (event("m", type="page"), ItemCode.invalid_item),
        ({"messageId": "m", "userId": "u"}, ItemCode.invalid_item),
        ({"type": "event", "messageId": "m", "userId": "u"}, ItemCode.invalid_item),
        ({"type": "identify", "messageId": "m", "userId": "u"}, ItemCode.invalid_item),
        ([], ItemCode.invalid_item),
        (None, ItemCode.invalid_item),
        (7, ItemCode.invalid_item),
        (event("m", properties=[1]), ItemCode.not_an_object),
        (event("m", properties="x"), ItemCode.not_an_object),
        (exposure("m", attributes=[]), ItemCode.not_an_object),
        (identify("m") | {"traits": 5}, ItemCode.not_an_object),
        (event("m\0"), ItemCode.bad_text),
        (event("m", "u\0"), ItemCode.bad_text),
        (event("m", event="e\0"), ItemCode.bad_text),
        (event("m", properties={"a": ["\0"]}), ItemCode.bad_text),
        (event("m", properties={"\0": 1}), ItemCode.bad_text),
        (exposure("m", "\0"), ItemCode.bad_text),
        (exposure("m", attributes={"a": "\0"}), ItemCode.bad_text),
        (identify("m\0", a=1), ItemCode.bad_text),
        (identify("m", "\0", a=1), ItemCode.bad_text),
        (identify("m", a="x\0y"), ItemCode.bad_text),
        (alias("m", "a\0"), ItemCode.bad_text),
        (alias("m", "a", "\0"), ItemCode.bad_text),
        (alias("m", ""), ItemCode.invalid_item),
        (alias("m", "a", previousId=None), ItemCode.invalid_item),
        ({"type": "alias", "messageId": "m", "userId": "u"}, ItemCode.invalid_item),
        (alias("m", "u1"), ItemCode.same_id),
        (alias("m", "a", timestamp="2026-03-04T00:00:00Z"), ItemCode.time_in_future),
        (event("m", timestamp="2026-03-03T08:30:01Z"), ItemCode.time_in_future),
        (exposure("m", timestamp="2027-01-01T00:00:00+08:00"), ItemCode.time_in_future),
        (identify("m") | {"timestamp": "9999-12-31T23:59:59Z"}, ItemCode.time_in_future),
        (event("m", value=1_000_000_000_000.1), ItemCode.value_out_of_range),
        (event("m", value=-1e300), ItemCode.value_out_of_range),
        (event("m", value=10**30), ItemCode.value_out_of_range),
        (exposure("m", experiment="summer"), ItemCode.unknown_experiment),
        (exposure("m", experiment="\0"), ItemCode.unknown_experiment),
        (exposure("m", experiment="draft"), ItemCode.not_started),
        (exposure("m", variant="placebo"), ItemCode.unknown_variant),
        (exposure("m", phase=0), ItemCode.unknown_phase),
        (exposure("m", phase=2), ItemCode.unknown_phase),
        (exposure("m", phase=10**30), ItemCode.unknown_phase),
        (exposure("m", stratum="gold"), ItemCode.unknown_stratum),
    ],
)
def test_a_bad_item_is_answered_and_the_others_are_kept(
    any_store: Store, now: datetime, item: object, code: ItemCode
) -> None:
    start(any_store, now)
    create(any_store, Kind.experiment, experiment(key="draft"), now)
    receipt = receive(any_store, [event("before"), item, event("after")], now)
    assert (receipt.accepted, receipt.duplicates, refusals(receipt)) == (2, 0, [(1, code)])
    assert receipt.rejected[0].detail
    assert messages(any_store) == ["before", "after"]


def test_every_code_is_tried() -> None:
    (mark,) = test_a_bad_item_is_answered_and_the_others_are_kept.pytestmark  # type: ignore[attr-defined]
    assert {code for _, code in mark.args[1]} == set(ItemCode)


HALF_EMOJI = rb'{"type":"event","messageId":"m","userId":"u","event":"e","properties":{"a":"cut \ud83d"}}'


@pytest.mark.parametrize(
    "item",
    [
        HALF_EMOJI,
        rb'{"type":"event","messageId":"m\ud83d","userId":"u","event":"e"}',
        b'{"type":"event","messageId":"m\xff","userId":"u","event":"e"}',
        b'{"type":"event","messageId":"m","userId":"u","event":"e","properties":{"a":"\xff"}}',
        b'{"type":"event","messageId":"m","userId":"u","event":"e","properties":{"a":1e999}}',
        b'{"type":"identify","messageId":"m","userId":"u","traits":{"a":%s}}' % (b"9" * 5000),
        b'{"type":"event","messageId":"m","userId":"u","event":"e","value":1e999}',
    ],
)
def test_text_that_no_database_takes_spoils_its_item_only(any_store: Store, now: datetime, item: bytes) -> None:
    good = msgspec.json.encode(event("good"))
    receipt = receive(any_store, b'{"batch":[' + item + b"," + good + b"]}", now)
    assert receipt.accepted == 1
    assert [index for index, _ in refusals(receipt)] == [0]
    assert messages(any_store) == ["good"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"batch": null}',
        b'{"batch": {}}',
        b'{"batch": [',
        b'{"batch": [{"type":"event","messageId":"m","userId":"u","event":"e","value":NaN}]}',
        b'{"batch": [Infinity]}',
        b"\xff\xfe",
        b'{"batch": [' + HALF_EMOJI + b", NaN]}",
        b'{"other": "\\ud83d"}',
        pytest.param(b'{"batch": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}", id="deep"),
    ],
)
def test_a_body_that_is_no_batch_is_refused_whole(sqlite_store: Store, now: datetime, body: bytes) -> None:
    with pytest.raises(InvalidDocument) as caught:
        receive(sqlite_store, body, now)
    assert [(problem.field, problem.problem) for problem in caught.value.problems] == [("batch", "malformed")]


def test_an_empty_batch_is_fine(sqlite_store: Store, now: datetime) -> None:
    assert receive(sqlite_store, [], now) == Receipt(0, 0, [])


def test_a_batch_has_ten_thousand_items_at_most(sqlite_store: Store, now: datetime) -> None:
    items: list[object] = [event(f"m{number}") for number in range(ingest.MAX_ITEMS)]
    with pytest.raises(InvalidDocument) as caught:
        receive(sqlite_store, [*items, None], now)
    assert [(problem.value, problem.problem) for problem in caught.value.problems] == [(10_001, "too_many")]
    assert inbox(sqlite_store) == []
    assert receive(sqlite_store, items, now).accepted == 10_000


def test_null_is_as_good_as_nothing(any_store: Store, now: datetime) -> None:
    start(any_store, now)
    items = [
        event("m1", value=None, timestamp=None, properties=None),
        exposure("m2", phase=None, stratum=None, attributes=None, timestamp=None),
        identify("m3") | {"traits": None},
    ]
    body = msgspec.json.encode({"batch": items, "sentAt": None})
    assert receive(any_store, body, now) == Receipt(3, 0, [])
    first, second, third = inbox(any_store)
    assert (first.value_micros, first.data, first.at_us) == (None, None, ingest._micros(now))
    assert (second.phase, second.stratum, second.data, third.data) == (1, None, None, None)


def test_any_language_is_kept(any_store: Store, now: datetime) -> None:
    start(any_store, now)
    user, message, name = "用户😀", "消息\u200b\u202e", "购买 ✓ e\u0301"
    sent = {"备注": "满减 🎁 \\u0000 \\", "quote": "'\"%s"}
    receive(any_store, [event(message, user, event=name, properties=sent), identify("i", user, **sent)], now)
    row = inbox(any_store)[0]
    assert (row.message_id, row.user_id, row.name, json.loads(row.data)) == (message, user, name, sent)
    assert attributes(any_store, user) == sent


@pytest.mark.parametrize(
    ("value", "micros"),
    [
        (0, 0),
        (-0.0, 0),
        (19.99, 19_990_000),
        (-3.5, -3_500_000),
        (0.0000014, 1),
        (0.0000016, 2),
        (1e-9, 0),
        (1_000_000_000_000, 10**18),
        (-1_000_000_000_000, -(10**18)),
        (123456789.123456, 123456789123456),
    ],
)
def test_values_are_kept_in_whole_micros(any_store: Store, now: datetime, value: float, micros: int) -> None:
    receive(any_store, [event("m", value=value)], now)
    assert inbox(any_store)[0].value_micros == micros


@pytest.mark.parametrize(
    ("timestamp", "micros"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2026-03-01T08:00:00.000001+08:00", 1772323200000001),
        ("2026-03-03T08:30:00Z", 1772526600000000),
        ("0001-01-01T00:00:00Z", -62135596800000000),
    ],
)
def test_times_are_kept_to_the_microsecond(sqlite_store: Store, now: datetime, timestamp: str, micros: int) -> None:
    assert receive(sqlite_store, [event("m", timestamp=timestamp)], now).rejected == []
    assert inbox(sqlite_store)[0].at_us == micros


@pytest.mark.parametrize("bad", [[], [{"type": "page"}], [HALF_EMOJI]], ids=["good", "one bad", "half an emoji"])
@pytest.mark.parametrize(
    ("sent_at", "timestamp", "expected"),
    [
        ("2026-03-02T08:30:00Z", "2026-03-02T08:29:00Z", "2026-03-02T08:29:00Z"),
        ("2026-03-02T07:30:00Z", "2026-03-02T07:29:00.000001Z", "2026-03-02T08:29:00.000001Z"),
        ("2036-03-02T08:30:00.000001Z", "2036-03-02T08:30:00Z", "2026-03-02T08:29:59.999999Z"),
        ("2026-03-02T16:30:10+08:00", "2026-03-02T08:30:00Z", "2026-03-02T08:29:50Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000003Z", "2026-03-02T08:30:00.000003Z"),
        ("2030-01-01T00:00:00Z", None, "2026-03-02T08:30:00Z"),
        (None, "2026-03-02T07:29:00Z", "2026-03-02T07:29:00Z"),
    ],
)
def test_the_clock_of_the_sender_is_put_right(
    sqlite_store: Store, now: datetime, bad: list[Any], sent_at: str | None, timestamp: str | None, expected: str
) -> None:
    parts = [
        part if isinstance(part, bytes) else msgspec.json.encode(part)
        for part in [event("m", timestamp=timestamp), *bad]
    ]
    body = b'{"batch":[%s],"sentAt":%s}' % (b",".join(parts), msgspec.json.encode(sent_at))
    assert receive(sqlite_store, body, now).accepted == 1
    assert inbox(sqlite_store)[0].at_us == ingest._micros(datetime.fromisoformat(expected))


@pytest.mark.parametrize("bad", [[], [{"type": "page"}], [HALF_EMOJI]], ids=["good", "one bad", "half an emoji"])
@pytest.mark.parametrize("sent_at", ["2026-03-02T08:30:00", "now", 1772440200, [], {}, True, ""])
def test_a_batch_sent_at_no_time_is_refused(
    sqlite_store: Store, now: datetime, bad: list[Any], sent_at: object
) -> None:
    parts = [part if isinstance(part, bytes) else msgspec.json.encode(part) for part in [event("m"), *bad]]
    body = b'{"batch":[%s],"sentAt":%s}' % (b",".join(parts), msgspec.json.encode(sent_at))
    with pytest.raises(InvalidDocument, match="sentAt") as caught:
        receive(sqlite_store, body, now)
    assert [(problem.field, problem.problem) for problem in caught.value.problems] == [("sentAt", "malformed")]
    assert inbox(sqlite_store) == []


@pytest.mark.parametrize(
    ("sent_at", "timestamp", "code"),
    [
        ("2026-03-02T08:30:00Z", "2026-03-03T08:30:00.000001Z", ItemCode.time_in_future),
        ("0001-01-01T00:00:00Z", "0001-01-02T00:00:00.000001Z", ItemCode.time_in_future),
        ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", ItemCode.invalid_item),
    ],
)
def test_times_that_cannot_be_are_refused_after_they_were_put_right(
    sqlite_store: Store, now: datetime, sent_at: str, timestamp: str, code: ItemCode
) -> None:
    body = msgspec.json.encode({"batch": [event("m", timestamp=timestamp)], "sentAt": sent_at})
    assert refusals(receive(sqlite_store, body, now)) == [(0, code)]


# Exposures.


def test_the_first_variant_received_is_kept(any_store: Store, now: datetime) -> None:
    start(any_store, now)
    receive(any_store, [exposure("m1", variant="coupon"), exposure("m2", variant="control")], now)
    receive(any_store, [exposure("m3", variant="control"), exposure("m4", "u2", variant="control")], now)
    assert assigned(any_store) == {("u1", 1): ("coupon", None), ("u2", 1): ("control", None)}
    assert messages(any_store) == ["m1", "m2", "m3", "m4"]


def test_each_phase_has_its_own_first_variant(any_store: Store, now: datetime) -> None:
    start(any_store, now)
    receive(any_store, [exposure("m1")], now)
    weights = {"weights": {"control": 0.1, "coupon": 0.9}}
    revise(any_store, Kind.experiment, newest_document(any_store, "spring") | weights, now)
    receive(any_store, [exposure("m2", variant="control"), exposure("m3", "u2", phase=1)], now)
    assert assigned(any_store) == {
        ("u1", 1): ("coupon", None),
        ("u1", 2): ("control", None),
        ("u2", 1): ("coupon", None),
    }


@pytest.mark.parametrize("status", [Status.paused, Status.stopped])
def test_late_exposures_of_a_started_experiment_are_taken(any_store: Store, now: datetime, status: Status) -> None:
    start(any_store, now)
    move(any_store, "spring", status, now)
    assert receive(any_store, [exposure("m1")], now).accepted == 1


@pytest.mark.parametrize(
    ("items", "stratum"),
    [
        ([exposure("x", stratum="gold")], "gold"),
        ([exposure("x", attributes={"tier": "gold"})], "gold"),
        ([exposure("x", attributes={"tier": "silver"})], "rest"),
        ([exposure("x")], "rest"),
        ([identify("i", tier="gold"), exposure("x")], "gold"),
        ([exposure("x"), identify("i", tier="gold")], "gold"),
        ([identify("i", tier="gold"), exposure("x", attributes={"tier": "silver"})], "rest"),
        ([identify("i", tier="gold"), exposure("x", stratum="rest")], "rest"),
        ([identify("i", tier="gold"), identify("j", tier="silver"), exposure("x")], "rest"),
        ([identify("i", "other", tier="gold"), exposure("x")], "rest"),
        ([identify("i", tier="gold") | {"timestamp": "2027-01-01T00:00:00Z"}, exposure("x")], "rest"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_the_stratum_is_given_or_told_by_the_attributes(
    any_store: Store, now: datetime, items: list[dict[str, Any]], stratum: str, together: bool
) -> None:
    if not together and items[0]["type"] == "exposure" and len(items) > 1:
        stratum = "rest"
    start(any_store, now, strata=True)
    for batch in [items] if together else [[item] for item in items]:
        receive(any_store, batch, now)
    (row,) = (row for row in inbox(any_store) if row.kind == "exposure")
    assert row.stratum == stratum
    assert assigned(any_store) == {("u1", 1): ("coupon", stratum)}


def test_a_stratum_that_nothing_tells_is_refused(any_store: Store, now: datetime) -> None:
    start(any_store, now, strata=True)
    body = experiment(key="only-gold", strata=[{"segment": "gold"}])
    create(any_store, Kind.experiment, body, now)
    move(any_store, "only-gold", Status.running, now)
    items = [exposure("m1", experiment="only-gold"), exposure("m2", stratum="silver"), exposure("m3", "\0")]
    receipt = receive(any_store, items, now)
    assert refusals(receipt) == [
        (0, ItemCode.unknown_stratum),
        (1, ItemCode.unknown_stratum),
        (2, ItemCode.bad_text),
    ]
    assert assigned(any_store) == {}


def test_strata_of_many_users_are_looked_up(any_store: Store, now: datetime) -> None:
    start(any_store, now, strata=True)
    users = [f"u{number}" for number in range(2000)]
    receive(any_store, [identify(f"i{user}", user, tier="gold") for user in users[::2]], now)
    receive(any_store, [exposure(f"x{user}", user) for user in users], now)
    expected = {(user, 1): ("coupon", "gold" if number % 2 == 0 else "rest") for number, user in enumerate(users)}
    assert assigned(any_store) == expected


# Attributes.


def test_attributes_are_merged_the_same_on_both_databases(any_store: Store, now: datetime) -> None:
    receive(any_store, [identify("i1", a=1, nested={"x": 1}, tags=["a"], gone="v")], now)
    receive(any_store, [identify("i2", a=2.5, nested={"y": 2}), identify("i3", gone=None, tags=[], 名="李")], now)
    receive(any_store, [identify("i4")], now)
    assert attributes(any_store) == {"a": 2.5, "nested": {"y": 2}, "tags": [], "gone": None, "名": "李"}


def test_a_user_without_traits_is_known(any_store: Store, now: datetime) -> None:
    receive(any_store, [identify("i1")], now)
    assert attributes(any_store) == {}


def test_a_retry_does_not_bring_old_attributes_back(any_store: Store, now: datetime) -> None:
    start(any_store, now, strata=True)
    receive(any_store, [identify("i1", tier="gold")], now)
    receive(any_store, [identify("i2", tier="silver"), identify("i2", tier="lead")], now)
    assert receive(any_store, [identify("i1", tier="gold"), exposure("x1")], now).duplicates == 1
    assert attributes(any_store) == {"tier": "silver"}
    assert assigned(any_store) == {("u1", 1): ("coupon", "rest")}


# Anything else.


@settings(
    max_examples=250, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_body_is_taken_or_refused(sqlite_store: Store, now: datetime, data: st.DataObject) -> None:
    fuzz(sqlite_store, now, data)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_body_is_taken_or_refused_on_postgres(postgres_store: Store, now: datetime, data: st.DataObject) -> None:
    fuzz(postgres_store, now, data)


def fuzz(store: Store, now: datetime, data: st.DataObject) -> None:
    if not newest_or_none(store):
        start(store, now, strata=True)
    shapes = st.sampled_from(
        [event("m"), exposure("m"), exposure("m", stratum="gold"), identify("m", tier="gold"), alias("m", "a")]
    )
    names = st.sampled_from(
        [
            "type",
            "messageId",
            "userId",
            "previousId",
            "event",
            "value",
            "timestamp",
            "properties",
            "traits",
            "attributes",
        ]
    )
    items = data.draw(st.lists(st.builds(lambda item, change: item | change, shapes, st.dictionaries(names, ANY_JSON))))
    body = data.draw(
        st.just(json.dumps({"batch": items}).encode())
        | st.builds(lambda whole: json.dumps({"batch": whole}, ensure_ascii=False).encode(errors="replace"), ANY_JSON)
        | st.binary()
    )
    try:
        receipt = receive(store, body, now)
    except InvalidDocument:
        return
    sent = json.loads(body)["batch"]
    assert receipt.accepted + receipt.duplicates + len(receipt.rejected) == len(sent)
    json.dumps(msgspec.to_builtins(receipt), allow_nan=False)


def newest_or_none(store: Store) -> bool:
    with store.read() as session:
        return bool(session.scalar(text("SELECT count(*) FROM revisions")))


def test_metrics_are_no_experiments(sqlite_store: Store, now: datetime) -> None:
    create(sqlite_store, Kind.metric, METRIC, now)
    receipt = receive(sqlite_store, [exposure("m", experiment="revenue")], now)
    assert refusals(receipt) == [(0, ItemCode.unknown_experiment)]
