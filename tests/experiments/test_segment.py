"""Segment's calls: what its clients were seen to send, each rule of the translation, and nothing lost on the way."""

import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import ingest, segment
from experiments.documents import Kind, Status
from experiments.errors import InvalidDocument
from experiments.ingest import Alias, Event, Exposure, Identify, ItemCode
from experiments.segment import NoteCode, Noted, Translated
from experiments.store import Store
from tests.experiments.store_rows import METRIC, create, experiment, move

CAPTURED: dict[str, Any] = json.loads((Path(__file__).parents[1] / "cases" / "segment.json").read_text("utf-8"))
KINDS: list[segment.Kind] = ["batch", "track", "identify", "page", "screen", "group", "alias"]
PATHS = {"/v1/batch": KINDS[0]} | {f"/v1/{kind[0]}": kind for kind in KINDS}
RECEIVED = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
ORDER = datetime(2026, 3, 1, 2, 3, 4, 567_000, tzinfo=UTC)
SHAPES: dict[segment.Kind, dict[str, Any]] = {
    "track": {"event": "e", "properties": {}},
    "identify": {"traits": {}},
    "page": {"name": "n", "category": "c", "properties": {}},
    "screen": {"properties": {}},
    "group": {"groupId": "g", "traits": {}},
    "alias": {"previousId": "a"},
}


def translate(kind: segment.Kind, body: Any, received: datetime = RECEIVED) -> Translated:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    ids = (f"new-{number}" for number in itertools.count(1))
    rates = {"USD": 7.1, "EUR": 7.7}
    return segment.translate(kind, sent, received=received, currency="CNY", rates=rates, new_id=lambda: next(ids))


def call(kind: segment.Kind = "track", **fields: Any) -> dict[str, Any]:
    return {"type": kind, "messageId": "m", "userId": "u1"} | SHAPES[kind] | fields


def one(kind: segment.Kind = "track", **fields: Any) -> Any:
    """The only item of a call."""
    found = translate(kind, call(kind, **fields))
    assert (found.rejected, [index for index, _ in found.items]) == ([], [0])
    return found.items[0][1]


def refusal(kind: segment.Kind = "track", **fields: Any) -> tuple[ItemCode, str]:
    found = translate(kind, call(kind, **fields))
    assert (found.items, found.noted, [entry.index for entry in found.rejected]) == ([], [], [0])
    return found.rejected[0].code, found.rejected[0].detail


def plain(raw: msgspec.Raw) -> Any:
    return json.loads(bytes(raw) or b"null")


def gist(item: ingest.AnyItem) -> tuple[Any, ...]:
    match item:
        case Event():
            return item.user_id, item.event, item.value, plain(item.properties)
        case Exposure():
            return item.user_id, item.experiment, item.variant, plain(item.attributes)
        case Identify():
            return item.user_id, plain(item.traits)
        case Alias():
            return item.user_id, item.previous_id


# What the clients send.


@pytest.mark.parametrize("client", ["python", "python_gzip", "node"])
def test_a_batch_of_a_servers_client(client: str) -> None:
    (request,) = CAPTURED["requests"][client]
    body = json.loads(request["body"])
    received = datetime.fromisoformat(body["sentAt"])  # by a clock that agrees
    found = translate(PATHS[request["path"]], request["body"].encode(), received)
    products = [{"sku": "tea", "price": 12.75}]
    viewed = next(properties for _, properties in _tracked(body) if "experiment_id" in properties)
    assert [(index, gist(item)) for index, item in found.items if index < 7] == [
        (0, ("u1", {"tier": "gold", "城市": "杭州"})),
        (0, ("u1", "a1")),
        (1, ("u1", "Order Completed", 181.05, {"revenue": 25.5, "currency": "USD", "products": products})),
        (2, ("a1", viewed["experiment_id"], "ten", {"tier": "gold"})),
        (3, ("u1", "page", None, {"url": "https://shop.example/p", "name": "Pricing", "category": "Docs"})),
        (4, ("u1", "screen", None, {"items": 3, "name": "Basket"})),
        (5, ("u1", {"group": {"id": "g1", "plan": "team"}})),
        (6, ("u1", "a1")),
    ]
    last = len(body["batch"]) - 1
    assert [entry.index for entry in found.rejected] == [last]  # half an emoji in the event's name
    assert {index for index, _ in found.items} == set(range(last))
    for index, item in found.items:
        sent = body["batch"][index]
        assert item.timestamp == datetime.fromisoformat(sent["timestamp"])
        assert item.message_id in {sent["messageId"], sent["messageId"] + ":alias"}
    assert (found.write_key, found.noted) == ("upk_segment", [])


def _tracked(body: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(sent["event"], sent["properties"]) for sent in body["batch"] if sent["type"] == "track"]


@pytest.mark.parametrize("client", ["python", "python_gzip"])
def test_what_is_not_a_number_in_python_is_null(client: str) -> None:
    (request,) = CAPTURED["requests"][client]
    assert '"revenue": NaN' in request["body"]
    found = translate("batch", request["body"].encode())
    assert gist(found.items[-1][1]) == ("u1", "Order Completed", None, {"revenue": None})


def test_the_calls_of_a_page() -> None:
    gists: dict[str, list[tuple[Any, ...]]] = {}
    for request in CAPTURED["requests"]["browser"]:
        sent = json.loads(request["body"])
        assert request["headers"]["Content-Type"] == "text/plain"
        found = translate(PATHS[request["path"]], request["body"].encode(), datetime.fromisoformat(sent["sentAt"]))
        assert found.write_key == "upk_segment"
        gists.setdefault(sent["type"], []).extend(gist(item) for _, item in found.items)
        for _, item in found.items:
            assert item.timestamp == datetime.fromisoformat(sent["timestamp"])
        assert len(found.rejected) == (sent.get("event", "").startswith("cut"))
    assert sorted(gists) == ["alias", "group", "identify", "page", "screen", "track"]
    who, anonymous = gists["identify"]
    assert who == ("u1", {"tier": "gold", "城市": "杭州"})
    assert anonymous[0] == "u1"
    assert len(anonymous[1]) == 36
    assert ("u1", "Order Completed", 181.05, {"revenue": 25.5, "currency": "USD"}) in gists["track"]
    assert [entry[1:] for entry in gists["track"] if entry[1] == "recall"] == [("recall", "ten", None)]
    assert [entry[3]["name"] for entry in gists["page"]] == ["Pricing"]


def test_a_batch_of_a_page_has_one_time_of_sending() -> None:
    (request,) = CAPTURED["requests"]["browser_batching"]
    body = json.loads(request["body"])
    assert all("sentAt" not in sent for sent in body["batch"])
    found = translate(PATHS[request["path"]], request["body"].encode(), datetime.fromisoformat(body["sentAt"]))
    orders = [item for _, item in found.items if isinstance(item, Event) and item.event == "Order Completed"]
    assert [(order.timestamp, order.value) for order in orders] == [(ORDER, 181.05)]


@pytest.mark.parametrize("client", ["python", "node", "browser"])
def test_which_answers_make_a_client_send_again(client: str) -> None:
    """The facts on which the answers rest: a status is all they look at."""
    seen = {(entry["status"], entry["sent_again"] > 0, entry["reported"]) for entry in CAPTURED["reactions"][client]}
    content = {(status, False, False) for status in (200, 202, 204)}
    given_up = {(status, False, True) for status in (400, 401, 403, 404, 413, 415, 422)}
    again = {(status, True, False) for status in (408, 429, 500, 503)}
    assert seen == content | given_up | again


@pytest.mark.parametrize("client", ["python", "node", "browser_batching"])
def test_what_was_captured_is_stored_once(any_store: Store, client: str) -> None:
    now = datetime(2026, 12, 1, tzinfo=UTC)
    create(any_store, Kind.metric, METRIC, now)
    create(any_store, Kind.experiment, experiment(key="recall", variants=[{"key": "control"}, {"key": "ten"}]), now)
    move(any_store, "recall", Status.running, now)
    (request,) = CAPTURED["requests"][client]
    calls = len(json.loads(request["body"])["batch"])
    receipts = []
    for received in (now, now + timedelta(hours=1)):
        found = translate("batch", request["body"].encode(), received)
        with any_store.write() as session:
            catalog = any_store.catalog(session)
            receipts.append(ingest.store(session, catalog, found.items, found.rejected, now=received))
    refused = [(entry.index, entry.code) for entry in receipts[0].rejected]
    # After identify, the browser's alias names the user twice.
    same = [(6, ItemCode.same_id)] if client == "browser_batching" else []
    assert refused == [*same, (calls - 1, ItemCode.invalid_item)]
    assert receipts[0].duplicates == 0
    assert (receipts[1].accepted, receipts[1].duplicates) == (0, receipts[0].accepted)
    assert receipts[0].accepted == calls + 1 - len(refused)


# Who.


@pytest.mark.parametrize(
    ("ids", "user"),
    [
        ({}, "u1"),
        ({"anonymousId": "a1"}, "u1"),
        ({"userId": None, "anonymousId": "a1"}, "a1"),
        ({"userId": "", "anonymousId": "a1"}, "a1"),
        ({"userId": 7}, "7"),
        ({"userId": 0, "anonymousId": "a1"}, "0"),
        ({"userId": -(10**25)}, "-1" + "0" * 25),
        ({"userId": "李雷"}, "李雷"),
    ],
)
def test_the_user_is_the_known_id_or_the_anonymous_one(ids: dict[str, Any], user: str) -> None:
    assert one(**ids).user_id == user
    assert one("group", **ids).user_id == user


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ({"userId": None}, "userId or anonymousId"),
        ({"userId": "", "anonymousId": ""}, "userId or anonymousId"),
        ({"userId": 1.5}, "userId"),
        ({"userId": True}, "userId"),
        ({"userId": ["u"]}, "userId"),
        ({"userId": "u" * 301}, "userId"),
        ({"anonymousId": {}}, "anonymousId"),
        ({"messageId": "m" * 301}, "messageId"),
        ({"messageId": []}, "messageId"),
    ],
)
def test_a_call_of_nobody_is_refused(ids: dict[str, Any], said: str) -> None:
    code, detail = refusal(**ids)
    assert code is ItemCode.invalid_item
    assert said in detail


@pytest.mark.parametrize("digits", [301, 5000])
def test_a_number_of_hundreds_of_digits_is_no_id(digits: int) -> None:
    body = b'{"batch": [{"type": "track", "event": "e", "userId": %s}, {"type": "track", "event": "e", "userId": 7}]}'
    found = translate("batch", body % (b"9" * digits))
    assert [item.user_id for _, item in found.items] == ["7"]
    assert [(entry.index, "userId" in entry.detail) for entry in found.rejected] == [(0, True)]


def test_identify_with_both_ids_links_them() -> None:
    found = translate("identify", call("identify", anonymousId="a1", traits={"tier": "gold"}))
    (_, told), (_, linked) = found.items
    assert (told.message_id, gist(told)) == ("m", ("u1", {"tier": "gold"}))
    assert (linked.message_id, gist(linked)) == ("m:alias", ("u1", "a1"))
    assert told.timestamp == linked.timestamp


@pytest.mark.parametrize("ids", [{}, {"anonymousId": "u1"}, {"userId": None, "anonymousId": "a1"}, {"anonymousId": ""}])
def test_identify_with_one_id_links_nobody(ids: dict[str, Any]) -> None:
    assert isinstance(one("identify", **ids), Identify)


@pytest.mark.parametrize("traits", [None, {}])
def test_identify_may_say_nothing(traits: Any) -> None:
    assert plain(one("identify", traits=traits).traits) == {}


def test_alias_names_both_ids() -> None:
    assert gist(one("alias", previousId=5)) == ("u1", "5")
    assert "previousId" in refusal("alias", previousId=None)[1]
    assert "needs userId" in refusal("alias", userId=None, anonymousId="a1")[1]


def test_a_group_is_an_attribute() -> None:
    assert gist(one("group", traits={"id": "other", "plan": "team"})) == ("u1", {"group": {"id": "g", "plan": "team"}})
    assert gist(one("group", groupId=12, traits=None)) == ("u1", {"group": {"id": "12"}})
    assert "groupId" in refusal("group", groupId="")[1]


def test_a_call_without_a_message_id_gets_one() -> None:
    body = {"batch": [call(messageId=None), call(messageId=""), call("identify", messageId=None, anonymousId="a")]}
    assert [item.message_id for _, item in translate("batch", body).items] == ["new-1", "new-2", "new-3", "new-3:alias"]


# What.


def test_pages_and_screens_are_events() -> None:
    assert gist(one("page")) == ("u1", "page", None, {"name": "n", "category": "c"})
    assert gist(one("page", properties={"name": "own", "value": 5})) == (
        *("u1", "page", None),
        {"name": "own", "category": "c", "value": 5},
    )
    assert gist(one("screen")) == ("u1", "screen", None, {})
    assert gist(one("screen", name="", properties=None)) == ("u1", "screen", None, None)


def test_properties_are_kept_as_they_were_sent() -> None:
    sent = b'{"n": 12345678901234567890.10, "deep": [{"x":1e5}] ,"revenue":"3"}'
    body = b'{"event": "e", "userId": "u", "messageId": "m", "properties": %s}' % sent
    item = translate("track", body).items[0][1]
    assert isinstance(item, Event)
    assert (bytes(item.properties), item.value) == (sent, 3.0)


@pytest.mark.parametrize(
    ("properties", "variant"),
    [
        ({"experiment_id": "recall", "variation_id": "ten"}, "ten"),
        ({"experimentId": "recall", "variationId": "ten"}, "ten"),
        ({"experiment_id": "recall", "variation_name": "ten"}, "ten"),
        ({"experiment_id": "recall", "variationName": "ten", "variation_id": None}, "ten"),
        ({"experiment_id": "recall", "variation_id": "ten", "variation_name": "10 yuan"}, "ten"),
        ({"experiment_id": "recall", "variation_id": 0, "variation_name": "zero"}, "0"),
    ],
)
def test_a_viewed_experiment_is_an_exposure(properties: dict[str, Any], variant: str) -> None:
    assert gist(one(event="Experiment Viewed", properties=properties)) == ("u1", "recall", variant, None)


def test_an_exposure_takes_the_traits_along() -> None:
    properties = {"experiment_id": "recall", "variation_id": "ten"}
    for context, attributes in [
        ({"traits": {"tier": "gold"}}, {"tier": "gold"}),
        ({"traits": None}, None),
        (None, None),
    ]:
        item = one(event="Experiment Viewed", properties=properties, context=context)
        assert plain(item.attributes) == attributes
    for context in ([], {"traits": "gold"}):
        assert refusal(event="Experiment Viewed", properties=properties, context=context)[0] is ItemCode.not_an_object
        assert isinstance(one(context=context), Event)


@pytest.mark.parametrize(
    "properties",
    [None, {}, {"experiment_id": "recall"}, {"variation_id": "a"}, {"experiment_id": "", "variation_id": "a"}],
)
def test_an_unusable_exposure_is_refused(properties: Any) -> None:
    code, detail = refusal(event="Experiment Viewed", properties=properties)
    assert code is ItemCode.invalid_item
    assert "properties.experiment_id and properties.variation_id" in detail


@pytest.mark.parametrize(
    ("kind", "fields", "code", "said"),
    [
        ("track", {"event": None}, ItemCode.invalid_item, "event"),
        ("track", {"event": ""}, ItemCode.invalid_item, "event"),
        ("track", {"event": "e" * 301}, ItemCode.invalid_item, "event"),
        ("track", {"properties": []}, ItemCode.not_an_object, "properties"),
        ("track", {"properties": "x"}, ItemCode.not_an_object, "properties"),
        ("page", {"properties": 5}, ItemCode.not_an_object, "properties"),
        ("page", {"name": 5}, ItemCode.invalid_item, "name"),
        ("screen", {"properties": []}, ItemCode.not_an_object, "properties"),
        ("identify", {"traits": []}, ItemCode.not_an_object, "traits"),
        ("group", {"traits": 7}, ItemCode.not_an_object, "traits"),
        ("track", {"type": "identify"}, ItemCode.invalid_item, "type"),
        (
            "track",
            {"event": "Experiment Viewed", "properties": {"experiment_id": []}},
            ItemCode.invalid_item,
            "experiment_id",
        ),
    ],
)
def test_a_wrong_type_is_refused_by_name(kind: segment.Kind, fields: dict[str, Any], code: ItemCode, said: str) -> None:
    found = refusal(kind, **fields)
    assert found[0] is code
    assert said in found[1]


def test_good_calls_of_a_batch_are_kept() -> None:
    bad = [call(type="order"), {"userId": "u"}, 5, None, call(userId=[]), call(timestamp="soon")]
    body = {"batch": [value for pair in zip(bad, [call()] * len(bad), strict=True) for value in pair], "channel": 5}
    found = translate("batch", body)
    assert [index for index, _ in found.items] == [1, 3, 5, 7, 9, 11]
    assert [entry.index for entry in found.rejected] == [0, 2, 4, 6, 8, 10]


def test_the_address_says_what_a_single_call_is() -> None:
    for kind, fields in SHAPES.items():
        with_type, without = call(kind), {"messageId": "m", "userId": "u1"} | fields
        assert [gist(item) for _, item in translate(kind, without).items] == [gist(one(kind, **with_type))]


# When.


@pytest.mark.parametrize(
    ("times", "at"),
    [
        ({}, RECEIVED),
        ({"timestamp": None}, RECEIVED),
        ({"timestamp": "2026-03-01T02:03:04.567Z"}, ORDER),
        ({"timestamp": "2026-03-01T10:03:04.567001+08:00"}, ORDER + timedelta(microseconds=1)),
        ({"sentAt": "2026-03-02T09:30:00Z"}, RECEIVED),
        (
            {"timestamp": "2026-03-02T09:29:50.5Z", "sentAt": "2026-03-02T09:30:00+00:00"},
            RECEIVED - timedelta(seconds=9.5),
        ),
        # A clock decades off, and a doing after the sending.
        ({"timestamp": "1970-01-01T00:00:00Z", "sentAt": "1970-01-01T00:01:00Z"}, RECEIVED - timedelta(minutes=1)),
        ({"timestamp": "2099-01-01T00:00:00Z", "sentAt": "2099-01-01T00:01:00Z"}, RECEIVED - timedelta(minutes=1)),
        ({"timestamp": "2026-03-02T09:31:00Z", "sentAt": "2026-03-02T09:30:00Z"}, RECEIVED + timedelta(minutes=1)),
        # What the device said goes before what somebody corrected.
        (
            {
                "originalTimestamp": "2026-03-02T09:29:00Z",
                "timestamp": "2026-03-02T07:00:00Z",
                "sentAt": "2026-03-02T09:30:00Z",
            },
            RECEIVED - timedelta(minutes=1),
        ),
    ],
)
def test_the_time_is_told_by_our_clock(times: dict[str, Any], at: datetime) -> None:
    assert one(**times).timestamp == at


def test_the_time_of_sending_is_the_calls_own_or_the_batchs() -> None:
    own = call(timestamp="2026-03-02T09:00:00Z", sentAt="2026-03-02T09:02:00Z")
    found = translate("batch", {"batch": [own, own | {"sentAt": None}], "sentAt": "2026-03-02T09:05:00Z"})
    assert [RECEIVED - item.timestamp for _, item in found.items if item.timestamp] == [
        timedelta(minutes=2),
        timedelta(minutes=5),
    ]


@pytest.mark.parametrize("field", ["timestamp", "sentAt", "originalTimestamp"])
@pytest.mark.parametrize(
    "value", ["yesterday", "2026-03-01T02:03:04", "2026-03-01", "", 1772330584, "2026-13-01T00:00:00Z"]
)
def test_a_time_needs_its_offset(field: str, value: Any) -> None:
    code, detail = refusal(**({"timestamp": "2026-03-01T00:00:00Z"} | {field: value}))
    assert code is ItemCode.invalid_item
    assert field in detail


def test_a_time_out_of_the_calendar_is_refused() -> None:
    for timestamp, sent_at in itertools.permutations(("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")):
        assert "timestamp" in refusal(timestamp=timestamp, sentAt=sent_at)[1]


@pytest.mark.parametrize("value", ["soon", "2026-03-01T02:03:04", 5, [], {}])
def test_a_batch_sent_at_no_time_is_refused(value: Any) -> None:
    with pytest.raises(InvalidDocument, match="sentAt"):
        translate("batch", {"batch": [call()], "sentAt": value})


# Money.


@pytest.mark.parametrize(
    ("properties", "value"),
    [
        ({}, None),
        ({"revenue": 13.5}, 13.5),
        ({"revenue": 13}, 13),
        ({"revenue": -13.5}, -13.5),
        ({"revenue": " 13.50 "}, 13.5),
        ({"revenue": "1e3"}, 1000),
        ({"revenue": 0, "value": 5}, 0),
        ({"revenue": None, "value": 5}, 5),
        ({"value": ".5"}, 0.5),
        ({"revenue": 2, "value": "x"}, 2),
        ({"revenue": 13.5, "currency": "CNY"}, 13.5),
        ({"revenue": 13.5, "currency": "cny"}, 13.5),
        ({"revenue": 13.5, "currency": None}, 13.5),
        ({"revenue": 13.5, "currency": " "}, 13.5),
        ({"revenue": 13.5, "currency": "USD"}, 95.85),
        ({"revenue": "0.1", "currency": " eur "}, 0.77),
        ({"revenue": 0.0000001, "currency": "USD"}, 0.000001),
        ({"currency": "GBP"}, None),
    ],
)
def test_the_value_is_in_the_stores_money(properties: dict[str, Any], value: float | None) -> None:
    found = translate("track", call(properties=properties))
    item = found.items[0][1]
    assert isinstance(item, Event)
    assert (item.value, plain(item.properties), found.noted) == (value, properties, [])


@pytest.mark.parametrize(
    ("properties", "code", "said"),
    [
        ({"revenue": "¥13.5"}, NoteCode.unreadable_value, "properties.revenue '¥13.5'"),
        ({"revenue": "1,299"}, NoteCode.unreadable_value, "properties.revenue"),
        ({"revenue": "１３"}, NoteCode.unreadable_value, "properties.revenue"),
        ({"revenue": "1_000"}, NoteCode.unreadable_value, "properties.revenue"),
        ({"revenue": "nan"}, NoteCode.unreadable_value, "properties.revenue"),
        ({"revenue": "", "value": 5}, NoteCode.unreadable_value, "properties.revenue"),
        ({"revenue": True}, NoteCode.unreadable_value, "properties.revenue"),
        ({"value": [5]}, NoteCode.unreadable_value, "properties.value"),
        ({"revenue": {}}, NoteCode.unreadable_value, "properties.revenue"),
        ({"revenue": "1e999"}, NoteCode.unreadable_value, "properties.revenue"),
        ({"revenue": 5, "currency": "GBP"}, NoteCode.unknown_currency, "'GBP' is not one of CNY, USD, EUR"),
        ({"revenue": 5, "currency": "¥"}, NoteCode.unknown_currency, "'¥'"),
        ({"revenue": 5, "currency": 156}, NoteCode.unknown_currency, "'156'"),
        ({"revenue": 5, "currency": []}, NoteCode.unknown_currency, "properties.currency"),
    ],
)
def test_an_amount_that_cannot_be_counted_leaves_the_event(
    properties: dict[str, Any], code: NoteCode, said: str
) -> None:
    found = translate("batch", {"batch": [call(), call(properties=properties)]})
    item = found.items[1][1]
    assert isinstance(item, Event)
    assert (item.value, plain(item.properties), found.rejected) == (None, properties, [])
    (noted,) = found.noted
    assert noted == Noted(1, code, noted.detail)
    assert said in noted.detail


def test_a_value_too_large_to_keep_is_left_to_the_check() -> None:
    assert one(properties={"revenue": 1e308, "currency": "EUR"}).value == float("inf")


# What is hardly JSON.


@pytest.mark.parametrize(
    "fields",
    [
        {"context": {"page": {"title": "cut \ud83d"}}},
        {"integrations": {"x": "\ude00"}},
        {"channel": "\ud83d"},
        {"\ud83d": 1},
    ],
)
def test_half_an_emoji_where_nobody_reads_does_no_harm(fields: dict[str, Any]) -> None:
    properties = {"revenue": 5, "sku": "茶 🍵"}
    assert gist(one(properties=properties, **fields)) == ("u1", "e", 5, properties)
    viewed = {"experiment_id": "recall", "variation_id": "ten"}
    context = {"traits": {"tier": "gold"}, **fields.pop("context", {})}
    item = one(event="Experiment Viewed", properties=viewed, context=context, **fields)
    assert gist(item) == ("u1", "recall", "ten", {"tier": "gold"})


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("track", {"event": "\ud83d"}),
        ("track", {"userId": "\ud83d"}),
        ("track", {"properties": {"deep": ["\ud83d"]}}),
        ("identify", {"traits": {"name": "\ud83d"}}),
        ("page", {"name": "\ud83d"}),
    ],
)
def test_half_an_emoji_spoils_its_own_call_only(kind: segment.Kind, fields: dict[str, Any]) -> None:
    found = translate("batch", {"batch": [call(), call(kind, **fields), call()], "sentAt": None, "writeKey": "upk_1"})
    assert ([index for index, _ in found.items], [entry.index for entry in found.rejected]) == ([0, 2], [1])
    assert found.write_key == "upk_1"
    assert refusal(kind, **fields)[0] is ItemCode.invalid_item


@pytest.mark.parametrize("key", [None, 5, "", "\ud83d", "钥匙", ["upk_1"]])
def test_a_write_key_that_cannot_be_one_is_none(key: Any) -> None:
    for found in (translate("batch", {"batch": [], "writeKey": key}), translate("track", call(writeKey=key))):
        assert found.write_key in {None, ""}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"5",
        b'"x"',
        b"\xff\xfe",
        b"{}}",
        b'{"a": "\\ud83d"',
        b"[" * 100_000,
        b"[NaN]",
        b"NaN",
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_call_at_all_is_refused_whole(kind: segment.Kind, body: bytes) -> None:
    with pytest.raises(InvalidDocument, match="JSON"):
        translate(kind, body)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_nested_without_end_is_refused_whole(kind: segment.Kind) -> None:
    with pytest.raises(InvalidDocument, match="JSON"):
        translate(kind, b'{"batch": [{"x": ' + b'{"a": ' * 100_000)


@pytest.mark.parametrize("body", [{}, {"batch": {}}, {"batch": None}, {"batch": "\ud83d"}, {"batch": 5, "x": "\ud83d"}])
def test_a_batch_needs_its_list(body: Any) -> None:
    with pytest.raises(InvalidDocument, match="batch"):
        translate("batch", body)


def test_a_batch_has_an_end() -> None:
    assert len(translate("batch", {"batch": [call()] * ingest.MAX_ITEMS}).items) == ingest.MAX_ITEMS
    with pytest.raises(InvalidDocument, match="at most 10000"):
        translate("batch", {"batch": [call()] * (ingest.MAX_ITEMS + 1)})


# Whatever comes.

ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(
        ["2026-03-01T02:03:04Z", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00Z", "\ud83d", "USD", "5"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    *("userId", "anonymousId", "messageId", "event", "properties", "traits", "context", "timestamp", "sentAt"),
    *("originalTimestamp", "previousId", "groupId", "name", "category", "type", "writeKey", "batch"),
]
MONEY = st.dictionaries(st.sampled_from(["revenue", "value", "currency", "experiment_id", "variation_id"]), ANY_JSON)
ANY_CALL = st.builds(
    lambda kind, fields: call(kind) | fields,
    st.sampled_from(list(SHAPES)),
    st.dictionaries(st.sampled_from(FIELDS), ANY_JSON | MONEY, max_size=4),
)


@given(st.lists(ANY_CALL | ANY_JSON, max_size=6), st.dictionaries(st.sampled_from(["writeKey", "x"]), ANY_JSON))
def test_no_call_of_a_batch_is_lost(calls: list[Any], rest: dict[str, Any]) -> None:
    body = {"batch": calls} | rest
    found = translate("batch", body)
    taken, refused = {index for index, _ in found.items}, [entry.index for entry in found.rejected]
    assert taken | set(refused) == set(range(len(calls)))
    assert not taken & set(refused)
    assert len(refused) == len(set(refused))
    assert {entry.index for entry in found.noted} <= taken
    again = translate("batch", body, RECEIVED + timedelta(hours=1))
    assert [(index, item.message_id) for index, item in again.items] == [
        (index, item.message_id) for index, item in found.items
    ]
    msgspec.json.encode([found.rejected, found.noted, found.write_key])


@given(st.sampled_from(KINDS), ANY_CALL | ANY_JSON)
def test_a_single_call_is_taken_or_refused(kind: segment.Kind, body: Any) -> None:
    try:
        found = translate(kind, body)
    except InvalidDocument:
        assert kind == "batch" or not isinstance(body, dict)
        return
    if kind != "batch":
        assert bool(found.items) != bool(found.rejected)


@given(st.sampled_from(KINDS), st.binary(max_size=40))
def test_bytes_are_taken_or_refused(kind: segment.Kind, body: bytes) -> None:
    try:
        translate(kind, body)
    except InvalidDocument:
        return
