"""Starts and stops by the clock: once, audited, refused with a reason that is told once."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from experiments import audit, registry, schedule
from experiments.cli import commands
from experiments.documents import Kind, Status
from experiments.settings import Settings
from experiments.store import Store
from tests.web import made

START, STOP = made.NOW + timedelta(hours=1), made.NOW + timedelta(days=7)
MINUTE = timedelta(minutes=1)


def opened(folder: Path, **settings: Any) -> Store:
    return Store.open(replace(Settings.in_folder(folder), **settings), migrate=True)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    store = opened(tmp_path)
    made.documents(store, start=False)
    yield store
    store.close()


def plan(store: Store, start: datetime | None = START, stop: datetime | None = STOP, **fields: Any) -> None:
    times = {"start_at": start and start.isoformat(), "stop_at": stop and stop.isoformat()}
    with store.write() as session:
        document = registry.get(session, Kind.experiment, made.KEY).to_json() | {"schedule": times} | fields
        registry.revise(session, Kind.experiment, made.KEY, document, actor="wang", now=made.NOW)


def status(store: Store) -> Status:
    with store.read() as session:
        found: Status = registry.get(session, Kind.experiment, made.KEY).status
    return found


def test_what_is_due_is_done_once_and_audited(store: Store) -> None:
    plan(store)
    assert schedule.run(store, now=START - MINUTE) == []
    assert schedule.run(store, now=START) == [schedule.Done(made.KEY, Status.running)]
    assert schedule.run(store, now=START + MINUTE) == []
    assert schedule.run(store, now=STOP) == [schedule.Done(made.KEY, Status.stopped)]
    assert schedule.run(store, now=STOP + MINUTE) == []
    with store.read() as session:
        newest = registry.history(session, made.KEY)[0]
    assert (newest["actor"], newest["action"]) == ("schedule", "stopped")


def test_a_paused_experiment_stops_and_one_paused_by_hand_is_not_started_again(store: Store) -> None:
    plan(store)
    schedule.run(store, now=START)
    with store.write() as session:
        registry.move(session, made.KEY, Status.paused, actor="wang", now=START)
    assert schedule.run(store, now=START + MINUTE) == []
    schedule.run(store, now=STOP)
    assert status(store) is Status.stopped


def test_a_draft_whose_end_has_passed_is_not_started(store: Store) -> None:
    plan(store)
    assert schedule.run(store, now=STOP) == []
    assert status(store) is Status.draft


def test_a_refusal_is_told_once_and_tried_again(store: Store) -> None:
    with store.write() as session:
        registry.create(session, Kind.layer, {"key": "push", "name": "Push"}, actor="s", now=made.NOW)
        other = made.PLAIN | {"layer": {"key": "push"}}
        registry.create(session, Kind.experiment, other, actor="s", now=made.NOW)
        registry.move(session, "plain", Status.running, actor="s", now=made.NOW)
    plan(store, layer={"key": "push", "start": 0.5, "end": 1.0})
    for minute in range(3):
        (refused,) = schedule.run(store, now=START + minute * MINUTE)
        assert refused.problem == "layer_taken"
    with store.read() as session:
        entries = list(audit.entries(session, audit.Wanted(key=made.KEY, action=schedule.REFUSED)))
        assert len(entries) == 1
        assert schedule.refusal(session, made.KEY) == "layer_taken"
    with store.write() as session:
        registry.move(session, "plain", Status.stopped, actor="s", now=made.NOW)
    schedule.run(store, now=START + 3 * MINUTE)
    assert status(store) is Status.running
    with store.read() as session:
        assert schedule.refusal(session, made.KEY) is None


def test_where_two_persons_are_asked_for_one_alone_cannot_schedule_a_start(tmp_path: Path) -> None:
    store = opened(tmp_path, two_persons=True)
    made.documents(store, start=False)
    with store.write() as session:
        document = registry.get(session, Kind.experiment, made.KEY).to_json()
        document["schedule"] = {"start_at": START.isoformat(), "stop_at": None}
        registry.revise(session, Kind.experiment, made.KEY, document, actor="setup", now=made.NOW)
    (refused,) = schedule.run(store, now=START)
    assert refused.problem == "second_person"
    plan(store, name="Confirmed")
    assert schedule.run(store, now=START) == [schedule.Done(made.KEY, Status.running)]
    store.close()


def test_the_command_does_it(store: Store, tmp_path: Path) -> None:
    plan(store, start=datetime.fromisoformat("2026-01-01T00:00:00+00:00"), stop=None)
    run = CliRunner().invoke(commands, ["schedule"], env={"UPTURN_STORE": str(tmp_path)})
    assert run.output == f"{made.KEY}: running: done\n"
    assert status(store) is Status.running
