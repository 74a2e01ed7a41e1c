"""A store in which every page has something to show, and experiments stand in most of their states."""

from datetime import timedelta

from msgspec import structs

from experiments import access, audit, registry, reports
from experiments.access import Role, Scope
from experiments.documents import Decision, Kind, Status
from experiments.policy import PolicyStatus
from experiments.store import Store
from experiments.uplift import lists, studies
from experiments.uplift.job import Work
from experiments.uplift.list_job import ListWork
from experiments.uplift.lists import ListRequest
from experiments.uplift.studies import StudyRequest
from tests.experiments.uplift import campaign
from tests.web import made, rich
from tests.web.pages.test_policies import POLICY, send

NOW = made.NOW + timedelta(days=campaign.DAYS)


def furnish(store: Store) -> None:
    """Fill an empty store: people and a key, experiments in all states, a study with its list, policies."""
    with store.write() as session:
        access.create_account(session, made.LOGIN, made.PASSWORD, now=made.NOW)
        access.create_account(session, "li@example.com", None, role=Role.viewer, now=made.NOW)
        access.create_key(session, "shop", [Scope.assign, Scope.ingest], now=made.NOW)
    made.documents(store)
    for day in range(3):
        made.facts(store, at=made.NOW - timedelta(days=9 - day), first=day * 200, users=200)
    reports.make(store, made.KEY, now=NOW)
    _experiments(store)
    _study(store)
    with store.write() as session:
        for body in (POLICY, made.POLICY, made.POLICY | {"key": "later", "holdback": {"share": 0.5}}):
            registry.create(session, Kind.policy, body, actor="li", now=made.NOW)
        for key in (POLICY["key"], made.POLICY["key"]):
            registry.move_policy(session, key, PolicyStatus.running, actor="wang", now=made.NOW)
    send(store, 400)
    reports.make(store, POLICY["key"], now=NOW, kind=Kind.policy)


def _experiments(store: Store) -> None:
    seen = {"broken": made.invalid_report(), "settled": made.full_report()}
    seen |= {name: make() for name, make in rich.REPORTS.items()}
    with store.write() as session:
        for key in ("draft", "asked", "empty", *seen):
            body = made.PLAIN | {"key": key, "name": f"{key.title()} 实验", "tags": ["autumn 秋季"], "owner": "li"}
            if key in seen:
                arms = [{"key": arm.variant, "name": arm.name} for arm in seen[key].arms]
                body |= {"variants": arms, "control": seen[key].control}
            registry.create(session, Kind.experiment, body, actor="li", now=made.NOW)
            if key not in ("draft", "asked"):
                registry.move(session, key, Status.running, actor="wang", now=made.NOW)
        wanted = {"status": Status.running.value}
        audit.record(session, Kind.experiment, "asked", audit.ASK, {}, wanted, actor="li", now=made.NOW, revision=1)
    for key, report in seen.items():
        made.save(store, structs.replace(report, experiment=key, revision=2), key)
    decision = Decision(variant="ten", reason="It earns more, 收益更高.", report="settled")
    with store.write() as session:
        registry.move(session, "settled", Status.stopped, actor="wang", now=NOW)
        registry.move(session, "settled", Status.decided, actor="wang", now=NOW, decision=decision)


def _study(store: Store) -> None:
    campaign.documents(store, made.NOW)
    campaign.send(store, made.NOW, 1200)
    reports.make(store, campaign.KEY, now=NOW)
    wish = StudyRequest(learners=["t"], folds=3, depth=1, features="attributes")
    study, _ = studies.ask(store, campaign.KEY, wish, now=NOW)
    Work(store, study.id, lambda: 0.0).run()
    entry, _ = lists.ask(store, study.id, ListRequest(budget=30.0), now=NOW)
    ListWork(store, entry.id, lambda: 0.0).run()
