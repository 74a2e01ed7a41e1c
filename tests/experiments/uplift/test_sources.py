"""Whom a list is made of: what is known of a user is read as it was when the model learnt."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from experiments import facts, ingest, lake, registry, rows
from experiments.documents import Kind
from experiments.errors import Conflict, InvalidDocument
from experiments.store import Store
from experiments.uplift import model, studies
from experiments.uplift.job import Work
from experiments.uplift.model import Known, Model
from experiments.uplift.sources import InFile, OnRecord, Participants, Seen
from experiments.uplift.studies import StudyRequest
from tests.experiments.uplift import campaign

SENT = datetime(2024, 5, 1, 8, tzinfo=UTC)
NOW = SENT + timedelta(days=campaign.DAYS)
COUNT = 900


def trained(store: Store) -> Model:
    """A study of the campaign whose users had bought before, and are on record."""
    campaign.documents(store, SENT)
    rng = np.random.default_rng(5)
    items: list[ingest.AnyItem] = [
        ingest.Identify(f"i{i}", f"u{i}", traits=msgspec.Raw(msgspec.json.encode(known)))
        for i, known in enumerate(campaign.attributes(COUNT))
    ]
    for i in rng.integers(0, COUNT, 1500).tolist():
        at = SENT - timedelta(days=float(rng.uniform(0.5, 120)))
        value = float(rng.integers(1, 50))
        items.append(ingest.Event(f"p{len(items)}", f"u{i}", at, event="buy", value=value))
    items.append(ingest.Alias("a", "u7", previous_id="visitor"))
    items.append(ingest.Identify("iv", "visitor", traits=msgspec.Raw(b'{"age": 20}')))
    with store.write() as session:
        assert not ingest.store(session, store.catalog(session), list(enumerate(items)), now=SENT).rejected
    campaign.send(store, SENT, COUNT)
    study, _ = studies.ask(store, campaign.KEY, StudyRequest(learners=["x"], folds=3), now=NOW)
    Work(store, study.id, lambda: 0.0).run()
    return model.load(model.path(store.settings, study.id))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from experiments.settings import Settings

    store = Store.open(Settings.in_folder(tmp_path_factory.mktemp("store")), migrate=True)
    yield store, trained(store)
    store.close()


def expected(store: Store, found: Model) -> dict[str, np.ndarray]:
    """The effect of each user by the rows of the experiment."""
    table = rows.of_experiment(store, campaign.KEY, now=NOW).table
    features = {each.name: model.values(each, table[each.name].to_pylist()) for each in found.card.features}
    return dict(zip(table["user_id"].to_pylist(), found.effects(features), strict=True))


def test_users_on_record_are_read_as_the_rows_of_the_experiment(kept: tuple[Store, Model]) -> None:
    store, found = kept
    names = {each.name for each in found.card.features}
    assert {"before.count.buy", "before.value.buy", "before.recency_days.buy", "user.tags=vip", "user.city"} <= names
    seen = Seen()
    (chunk,) = OnRecord(store, None, 1, SENT).chunks(found, seen)
    wanted = expected(store, found)
    # One of somebody's two ids is another id of the same person.
    assert sorted(chunk.users) == sorted(wanted)
    for user, effect in zip(chunk.users, chunk.effects, strict=True):
        assert effect == pytest.approx(wanted[user], abs=1e-12)
    seen.check(found.card)
    assert seen.users == COUNT


def test_what_was_done_before_is_that_of_the_moment(kept: tuple[Store, Model]) -> None:
    store, _ = kept
    table = rows.of_experiment(store, campaign.KEY, now=NOW).table
    with store.read() as session:
        experiment = registry.get(session, Kind.experiment, campaign.KEY)
        metrics = [each for each, _, _, _ in registry.metric_uses(session, experiment)]
        files = {kind: lake.files(session, store.lake, kind) for kind in lake.SCHEMAS}
        mark = lake.watermark(session)
    assert mark is not None
    users = table["user_id"].to_pylist()[::-1]
    with facts.opened(files) as opened:
        asked = {"metrics": metrics, "metric": metrics[0], "batch": mark.batch}
        then = rows.behaviour(opened, users, at=SENT, **asked)
        later = rows.behaviour(opened, users, at=SENT + timedelta(days=40), **asked)
    for name in ("before.count.buy", "before.value.buy", "before.recency_days.buy"):
        column = table[name].to_numpy(zero_copy_only=False)[::-1].astype(float)
        assert then[name] == pytest.approx(column, nan_ok=True)
    # By then the campaign's own purchases have come, and older ones have passed out of the time looked at.
    assert later["before.count.buy"].sum() > then["before.count.buy"].sum()
    assert np.nanmax(later["before.recency_days.buy"]) <= rows.LOOKBACK_DAYS


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_file_is_scored_by_its_columns(kept: tuple[Store, Model], tmp_path: Path, ending: str) -> None:
    store, found = kept
    table = rows.of_experiment(store, campaign.KEY, now=NOW).table
    names = [each.name for each in found.card.features]
    given = table.select(["user_id", *names]).rename_columns(["who", *(name.removeprefix("user.") for name in names)])
    given = given.append_column("extra", pa.array(range(COUNT)))
    file = tmp_path / f"users{ending}"
    if ending == ".csv":
        pyarrow.csv.write_csv(given, file)
    else:
        pq.write_table(given, file)
    seen = Seen()
    chunks = list(InFile(file, "who").chunks(found, seen))
    wanted = expected(store, found)
    got = {user: effect for chunk in chunks for user, effect in zip(chunk.users, chunk.effects, strict=True)}
    assert got.keys() == wanted.keys()
    assert all(got[user] == pytest.approx(wanted[user], abs=1e-9) for user in wanted)
    assert seen.unused == ["extra"]

    pq.write_table(given.drop_columns(["city", "age"]), tmp_path / "less.parquet")
    with pytest.raises(InvalidDocument) as caught:
        list(InFile(tmp_path / "less.parquet", "who").chunks(found, Seen()))
    assert {(each.field, each.problem) for each in caught.value.problems} == {
        ("user.city", "missing_column"),
        ("user.age", "missing_column"),
    }
    pq.write_table(pa.concat_tables([given, given.slice(0, 2)]), tmp_path / "twice.parquet")
    for name, unit, problem in (
        ("twice.parquet", "who", "not_unique"),
        ("twice.parquet", "id", "missing_column"),
        ("none.csv", "who", "not_found"),
    ):
        with pytest.raises(InvalidDocument) as caught:
            list(InFile(tmp_path / name, unit).chunks(found, Seen()))
        assert caught.value.problems[0].problem == problem


def test_participants_have_the_effects_of_models_that_have_not_seen_them(kept: tuple[Store, Model]) -> None:
    store, found = kept
    (chunk,) = Participants(store, studies.scores_path(store.settings, found.card.study)).chunks(found, Seen())
    assert chunk.effects == pytest.approx(found.studied.effects)
    assert chunk.attributes[chunk.users.index("u3")] == campaign.attributes(COUNT)[3]


def test_what_is_known_is_read_by_its_kind() -> None:
    number, flag = Known("n", "number", (), 0.0), Known("f", "flag", (), 0.0)
    city = Known("c", "category", ("3", "a"), 0.0)
    nan = np.nan
    assert model.values(number, [1, 2.5, None, "3", True, float("inf")]) == pytest.approx(
        [1, 2.5, nan, nan, nan, nan], nan_ok=True
    )
    assert model.values(flag, [True, False, None, 1, "yes", 2]) == pytest.approx([1, 0, nan, 1, nan, nan], nan_ok=True)
    assert model.values(city, ["a", 3, None, "rare", 3.5]) == pytest.approx([1, 0, nan, nan, nan], nan_ok=True)


def test_a_model_of_other_packages_or_a_cut_one_is_refused(kept: tuple[Store, Model], tmp_path: Path) -> None:
    store, found = kept
    head, _, body = model.path(store.settings, found.card.study).read_bytes().partition(b"\n")
    file = tmp_path / "x.model"
    file.write_bytes(head + b"\n" + body[:-1])
    with pytest.raises(Conflict, match="changed or cut"):
        model.load(file)
    file.write_bytes(head.replace(found.card.packages["lightgbm"].encode(), b"0.0.1") + b"\n" + body)
    with pytest.raises(Conflict, match=r"lightgbm 0\.0\.1, here "):
        model.load(file)
