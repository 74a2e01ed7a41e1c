"""Which files of studies and lists are deleted, and which are kept."""

from datetime import datetime, timedelta

import msgspec
import pytest

from experiments.store import Store
from experiments.tables import Revision, SavedList, SavedStudy
from experiments.uplift import lists, model, studies
from experiments.uplift.tidy import tidy


def study(name: str, at: datetime, status: str = "done", experiment: str = "a") -> SavedStudy:
    return SavedStudy(
        id=name, experiment=experiment, phase=1, revision=1, watermark=1, status=status, progress=1.0, created_at=at,
        beat_at=at, finished_at=at, settings="{}", notes=None, body=None, error=None,
    )  # fmt: skip


def users(name: str, of: str, at: datetime) -> SavedList:
    return SavedList(
        id=name, study=of, experiment="a", slot=1, status="done", progress=1.0, created_at=at, beat_at=at,
        finished_at=at, settings="{}", body=None, error=None,
    )  # fmt: skip


def written(store: Store) -> set[str]:
    return {file.name for folder in ("studies", "lists") for file in (store.settings.folder / folder).glob("*")}


def keep_files(store: Store, names: list[str], made: list[str]) -> None:
    for name in names:
        for path in (studies.scores_path(store.settings, name), model.path(store.settings, name)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
    for name in made:
        path = lists.users_path(store.settings, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def test_old_files_go_and_what_is_new_newest_or_named_stays(any_store: Store, now: datetime) -> None:
    store, day = any_store, timedelta(days=1)
    old = now - 100 * day
    named = {"source": {"kind": "tree", "report": "served"}, "promise": {"metric": "m", "report": "promised"}}
    by_list = {"source": {"kind": "model", "report": "s4", "list_id": "l0"}, "promise": None}
    with store.write() as session:
        session.add_all(study(f"s{i}", old + i * day) for i in range(5))
        session.add_all(study(name, old - day) for name in ("served", "promised", "unnamed", "listed"))
        session.add_all([study("other", old, experiment="b"), study("broken", old, "failed")])
        session.add_all([study("fresh", now - 2 * day, "failed"), study("working", now, "running")])
        session.add_all(users(f"l{i}", "listed" if i == 4 else "s0", old + i * day) for i in range(5))
        for revision, body in enumerate((named, by_list), 1):
            text = msgspec.json.encode(body).decode()
            session.add(Revision(kind="policy", key="a", revision=revision, body=text, actor="x", created_at=old))
    everything = [*(f"s{i}" for i in range(5)), "served", "promised", "unnamed", "listed", "other", "broken", "fresh"]
    keep_files(store, [*everything, "working", "unknown"], [f"l{i}" for i in range(5)])
    (store.settings.folder / "studies" / "broken.part").write_text("x")
    before = written(store)
    gone = {file.name for file in tidy(store, now=now)}
    expected = {f"{name}.{end}" for name in ("s0", "s1", "unnamed", "broken") for end in ("parquet", "model")}
    # The list l0 keeps its study, of which it was made.
    expected -= {"s0.parquet", "s0.model"}
    assert gone == expected | {"broken.part", "l1.parquet"}
    assert written(store) == before - gone
    assert tidy(store, now=now) == []


def test_a_store_without_studies_has_nothing_to_tidy(sqlite_store: Store, now: datetime) -> None:
    assert tidy(sqlite_store, now=now) == []


@pytest.mark.parametrize(("days", "kept"), [(13, True), (15, False)])
def test_a_failed_study_is_kept_for_two_weeks(sqlite_store: Store, now: datetime, days: int, kept: bool) -> None:
    with sqlite_store.write() as session:
        session.add(study("lost", now - timedelta(days=days), "failed"))
    keep_files(sqlite_store, ["lost"], [])
    tidy(sqlite_store, now=now)
    assert bool(written(sqlite_store)) is kept
