"""What the clock does by itself: waves open when they are due, each experiment on its own, refusals told once."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from experiments import adaptive, audit, ingest, registry, reports, waves
from experiments.adaptive import AdaptCode
from experiments.cli import commands
from experiments.clock import REST, Clock
from experiments.documents import Experiment, Kind, Status
from experiments.people import Scope
from experiments.programme import summaries
from experiments.programme.attention import Attention, Group, group
from experiments.store import Store
from tests.experiments.store_rows import create, move
from tests.experiments.test_adaptive import CONVERSION, DOCUMENT

DAY = timedelta(days=1)


def begin(store: Store, now: datetime, *keys: str) -> None:
    create(store, Kind.metric, CONVERSION, now)
    for key in keys:
        create(store, Kind.experiment, DOCUMENT | {"key": key}, now)
        move(store, key, Status.running, now)


def open_waves(store: Store, key: str) -> int:
    with store.read() as session:
        document: Experiment = registry.get(session, Kind.experiment, key)
    return len(document.waves)


def refusals(store: Store) -> list[tuple[str, str]]:
    with store.read() as session:
        return [(one.key, one.actor) for one in audit.entries(session, audit.Wanted(action=waves.REFUSED))]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The experiments whose sums cannot be made, as where a file of the lake has gone."""
    found: set[str] = set()
    whole = reports.sum_up

    def sum_up(exposures: Any, events: Any, metrics: Any, scope: Scope, *rest: Any) -> Any:
        if scope.experiment in found:
            raise OSError("the file has gone")
        return whole(exposures, events, metrics, scope, *rest)

    monkeypatch.setattr(reports, "sum_up", sum_up)
    return found


def exposed(store: Store, now: datetime, key: str) -> None:
    """One exposure: without any the lake is not read."""
    with store.write() as session:
        catalog = store.catalog(session)
        compiled = catalog.evaluator.experiments[key]
        user = next(f"u{i}" for i in range(1000) if compiled.assign(f"u{i}").variant)
        variant = str(compiled.assign(user).variant)
        item = ingest.Exposure(message_id="x", user_id=user, timestamp=now, experiment=key, variant=variant)
        assert not ingest.store(session, catalog, [(0, item)], now=now).rejected


def test_a_due_wave_opens_once(sqlite_store: Store, now: datetime) -> None:
    begin(sqlite_store, now, "spring")
    clock = Clock(sqlite_store)
    assert list(clock.tick(now=now)) == []
    assert list(clock.tick(now=now + DAY)) == ["spring: wave 2: control=0.500 coupon=0.500"]
    assert list(clock.tick(now=now + DAY)) == []
    assert open_waves(sqlite_store, "spring") == 2
    with sqlite_store.read() as session:
        newest = registry.history(session, "spring")[0]
    assert (newest["actor"], newest["action"]) == ("adaptive", waves.OPENED)


def test_one_that_fails_stops_no_other_and_rests(sqlite_store: Store, now: datetime, broken: set[str]) -> None:
    begin(sqlite_store, now, "first", "second", "third")
    exposed(sqlite_store, now, "first")
    broken.add("second")
    clock = Clock(sqlite_store)
    told = list(clock.tick(now=now + DAY))
    assert [line.split(":")[0] for line in told] == ["first", "second", "third"]
    assert told[1] == "second: no wave: failed, OSError: the file has gone"
    assert [open_waves(sqlite_store, key) for key in ("first", "second", "third")] == [2, 1, 2]
    assert list(clock.tick(now=now + DAY + REST / 2)) == []
    # It is tried again after a rest, and noted in the audit trail once.
    assert list(clock.tick(now=now + DAY + REST)) == told[1:2]
    assert refusals(sqlite_store) == [("second", "adaptive")]
    with sqlite_store.read() as session:
        assert adaptive.refusal(session, "second") == AdaptCode.failed
        summary = next(one for one in summaries.of_all(session) if one.experiment.key == "second")
    assert group(summary, now + DAY) == (Group.attention, [Attention.wave_refused])

    broken.clear()
    assert list(clock.tick(now=now + DAY + 2 * REST)) == ["second: wave 2: control=0.500 coupon=0.500"]
    with sqlite_store.read() as session:
        assert adaptive.refusal(session, "second") is None
        summary = next(one for one in summaries.of_all(session) if one.experiment.key == "second")
    assert summary.dates.refused is None


def test_an_update_of_one_alone_fails_aloud(sqlite_store: Store, now: datetime, broken: set[str]) -> None:
    begin(sqlite_store, now, "spring")
    exposed(sqlite_store, now, "spring")
    broken.add("spring")
    with pytest.raises(OSError, match="gone"):
        adaptive.update(sqlite_store, "spring", now=now + DAY)
    (done,) = adaptive.update_all(sqlite_store, now=now + DAY)
    assert (done.code, done.wave, done.detail) == (AdaptCode.failed, 1, "OSError: the file has gone")


def test_the_commands_open_what_is_due(sqlite_store: Store) -> None:
    now = datetime.now(UTC)
    begin(sqlite_store, now - 2 * DAY, "spring", "summer")
    environment = sqlite_store.settings.to_env()

    def run(*words: str) -> str:
        result = CliRunner().invoke(commands, list(words), env=environment)
        assert result.exit_code == 0, result.output
        return result.output

    (spring,) = json.loads(run("adapt", "spring", "--format", "json"))
    assert (spring["experiment"], spring["code"], spring["wave"]) == ("spring", "burn_in", 2)
    assert (spring["shares"], spring["open"]) == ("control=0.500 coupon=0.500", 0.5)
    assert run("schedule") == "summer: wave 2: control=0.500 coupon=0.500\n"
    every = json.loads(run("adapt", "--format", "json"))
    assert [(one["experiment"], one["code"]) for one in every] == [("spring", "waiting"), ("summer", "waiting")]
    assert "waiting" in run("adapt")
    refused = CliRunner().invoke(commands, ["adapt", "nowhere"], env=environment)
    assert refused.exit_code != 0


def test_a_failed_look_is_told_and_the_next_one_comes(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(self: Clock, *, now: datetime) -> Any:
        raise OSError("the database is away")

    monkeypatch.setattr(Clock, "tick", away)
    environment = sqlite_store.settings.to_env()
    # The process with the number 1 did not begin this one, so it ends after one look.
    going_on = CliRunner().invoke(commands, ["schedule", "--every", "1", "--parent", "1"], env=environment)
    assert (going_on.exit_code, going_on.stderr) == (0, "upturn: OSError: the database is away\n")
    once = CliRunner().invoke(commands, ["schedule"], env=environment)
    assert isinstance(once.exception, OSError)
