"""One row a user, against what each user of the shop did, and nothing of what came after his exposure."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from experiments import ingest, reports, rows
from experiments.errors import Conflict, InvalidDocument
from experiments.store import Store
from tests.experiments import shop

PEOPLE = shop.customers(300)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = shop.open_shop(tmp_path)
    shop.send(store, PEOPLE)
    yield store
    store.close()


def tell(store: Store, *items: dict[str, Any]) -> None:
    with store.write() as session:
        body = msgspec.json.encode({"batch": list(items)})
        assert not ingest.receive(session, store.catalog(session), body, now=shop.NOW).rejected


def by_user(found: rows.Rows) -> dict[str, dict[str, Any]]:
    return {row["user_id"]: row for row in found.table.to_pylist()}


def test_each_user_has_his_variant_its_chance_and_what_he_did(store: Store) -> None:
    found = rows.of_experiment(store, shop.KEY, now=shop.NOW)
    table = by_user(found)
    assert len(table) == len(PEOPLE)
    for person in PEOPLE:
        row = table[person.user]
        assert (row["variant"], row["stratum"]) == (person.variant, person.segment)
        assert row["outcome"] == pytest.approx(round(sum(person.spends), 2), abs=1e-9)
        assert row["chance.letter"] == (0.5 if person.segment == "new" else 0.2)
        assert row["chance.none"] == pytest.approx(1 - row["chance.letter"])
        assert row["user.age"] == (20 if person.segment == "new" else 40)
        assert row["before.count.buy"] == 0
        assert row["before.recency_days.buy"] is None
        assert row["exposed_at"] == shop.SENT
    assert "user.age" in found.features
    assert not {"outcome", "variant", "user_id"} & set(found.features)


@pytest.mark.parametrize("metric", ["spend", "bought"])
def test_the_rows_add_up_to_the_report(store: Store, metric: str) -> None:
    found = rows.of_experiment(store, shop.KEY, metric=metric, now=shop.NOW)
    report = reports.make(store, shop.KEY, now=shop.NOW).report
    arms = next(part for part in report.metrics if part.metric == metric).arms
    variants = np.array(found.table["variant"].to_pylist())
    outcomes = found.table["outcome"].to_numpy()
    strata = np.array(found.table["stratum"].to_pylist())
    compared = 0
    for arm in arms:
        if arm.segment is not None and arm.segment.startswith("segment="):
            chosen = (variants == arm.variant) & (strata == arm.segment.removeprefix("segment="))
            assert arm.n == chosen.sum()
            assert arm.mean == pytest.approx(outcomes[chosen].mean())
            compared += 1
    assert compared or all(arm.n == (variants == arm.variant).sum() for arm in arms if arm.segment is None)


def test_only_what_was_known_at_the_exposure_is_a_feature(store: Store) -> None:
    who = PEOPLE[0].user
    before, after = shop.SENT - timedelta(days=3), shop.SENT + timedelta(days=3)
    tell(
        store,
        {
            "type": "identify",
            "messageId": "t1",
            "userId": who,
            "timestamp": before,
            "traits": {"tier": "gold", "age": 99},
        },
        {"type": "identify", "messageId": "t2", "userId": who, "timestamp": after, "traits": {"tier": "black"}},
        {"type": "event", "messageId": "e1", "userId": who, "timestamp": before, "event": "buy", "value": 12.5},
        {"type": "event", "messageId": "e2", "userId": who, "timestamp": before - timedelta(days=2), "event": "buy"},
        {"type": "event", "messageId": "e3", "userId": who, "timestamp": before - timedelta(days=200), "event": "buy"},
    )
    row = by_user(rows.of_experiment(store, shop.KEY, now=shop.NOW))[who]
    assert row["user.tier"] == "gold"
    # What came with the exposure came later than what was told before it.
    assert row["user.age"] in (20, 40)
    assert (row["before.count.buy"], row["before.value.buy"], row["before.recency_days.buy"]) == (2, 12.5, 3)
    short = by_user(rows.of_experiment(store, shop.KEY, now=shop.NOW, lookback_days=4))[who]
    assert short["before.count.buy"] == 1


def test_lists_objects_and_mixed_values_become_columns(store: Store) -> None:
    told = [
        {"tags": ["咖啡", "vip"]},
        {"tags": []},
        {"home": {"city": "上海"}, "level": 3},
        {"level": "three"},
        {"ok": True},
    ]
    moment = shop.SENT - timedelta(days=1)
    tell(
        store,
        *(
            {"type": "identify", "messageId": f"t{i}", "userId": PEOPLE[i].user, "timestamp": moment, "traits": traits}
            for i, traits in enumerate(told)
        ),
    )
    table = by_user(rows.of_experiment(store, shop.KEY, now=shop.NOW))
    of = [table[person.user] for person in PEOPLE[:6]]
    assert [row["user.tags=咖啡"] for row in of] == [True, False, None, None, None, None]
    assert [row["user.home.city"] for row in of] == [None, None, "上海", None, None, None]
    assert [row["user.level"] for row in of] == [None, None, "3", "three", None, None]
    assert [row["user.ok"] for row in of] == [None, None, None, None, True, None]


def test_ids_that_were_linked_are_one_row(store: Store) -> None:
    first, second = PEOPLE[0], PEOPLE[1]
    tell(store, {"type": "alias", "messageId": "a1", "userId": first.user, "previousId": second.user})
    table = by_user(rows.of_experiment(store, shop.KEY, now=shop.NOW))
    assert len(table) == len(PEOPLE) - 1
    assert table[first.user]["outcome"] == pytest.approx(round(sum(first.spends) + sum(second.spends), 2))
    assert table[first.user]["user.age"] in (20, 40)


def test_users_whose_window_is_open_are_not_there_yet(store: Store) -> None:
    shop.send(store, shop.customers(5, first=1_000), sent=shop.NOW - timedelta(days=2))
    assert len(rows.of_experiment(store, shop.KEY, now=shop.NOW).table) == len(PEOPLE)


def test_what_has_no_one_number_a_user_is_refused(store: Store, tmp_path: Path) -> None:
    for metric, problem in (("basket", "not_one_number"), ("nothing", "unknown_reference")):
        with pytest.raises(InvalidDocument) as refused:
            rows.of_experiment(store, shop.KEY, metric=metric, now=shop.NOW)
        assert refused.value.problems[0].problem == problem
    draft = shop.open_shop(tmp_path / "draft", start=False)
    with pytest.raises(Conflict):
        rows.of_experiment(draft, shop.KEY, now=shop.NOW)
    draft.close()
