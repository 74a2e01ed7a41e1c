"""Lists scored by a study's model, on both databases: asked for at once, made, kept as attributes, rolled out."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec
import pyarrow.parquet as pq
from sqlalchemy import select

from experiments import registry
from experiments.documents import Kind
from experiments.errors import Conflict
from experiments.policy import Policy
from experiments.store import Store
from experiments.tables import SavedList, UserAttributes
from experiments.uplift import lists, serving, studies
from experiments.uplift.job import Work
from experiments.uplift.list_job import ListWork
from experiments.uplift.lists import ListRequest
from experiments.uplift.studies import StudyRequest, StudyStatus
from tests.experiments.store_rows import at_once
from tests.experiments.uplift import campaign

SENT = datetime(2024, 5, 1, 8, tzinfo=UTC)
NOW = SENT + timedelta(days=campaign.DAYS)
COUNT = 1200


def test_a_list_is_asked_for_once_made_and_rolled_out(any_store: Store) -> None:
    store = any_store
    campaign.documents(store, SENT)
    campaign.send(store, SENT, COUNT)
    study, _ = studies.ask(store, campaign.KEY, StudyRequest(learners=["t"], folds=3), now=NOW)
    Work(store, study.id, lambda: 0.0).run()
    wish = ListRequest(contacts=300, stock={"gift": 200})
    answers = at_once(3, lambda _: lists.ask(store, study.id, wish, now=NOW))
    assert sorted(new for _, new in answers) == [False, False, True]
    (name,) = {entry.id for entry, _ in answers}
    (other,) = at_once(1, lambda _: lists.ask(store, study.id, ListRequest(), now=NOW))
    assert isinstance(other, Conflict)
    assert other.code == "list_running"

    ListWork(store, name, lambda: 0.0).run()
    with store.read() as session:
        entry = lists.find(session, name, now=NOW)
        known = {user: msgspec.json.decode(body) for user, body in session.execute(select(UserAttributes.user_id,
                 UserAttributes.attributes))}  # fmt: skip
    assert (entry.status, entry.error) == (StudyStatus.done, None)
    assert entry.made is not None
    assert (entry.made.users, entry.made.written) == (COUNT, COUNT)
    assert entry.made.variants == {"hold": COUNT - 200, "gift": 200}
    table = pq.read_table(lists.users_path(store.settings, name))
    assert Counter(table["variant"].to_pylist())["gift"] == 200
    given = dict(zip(table["user"].to_pylist(), table["variant"].to_pylist(), strict=True))
    assert {user: held[entry.made.attribute] for user, held in known.items()} == {
        user: entry.made.value_of(variant) for user, variant in given.items()
    }

    for new in (True, False):
        with store.write() as session:
            _, made = serving.roll_out(session, name, actor="li", now=NOW, currency="CNY")
        assert made is new
    with store.read() as session:
        policy: Policy = registry.get(session, Kind.policy, campaign.KEY)
        (row,) = session.scalars(select(SavedList))
    assert policy.source is not None
    assert (policy.source.list_id, row.slot) == (name, 1)

    # Made anew, on record users this time: another attribute, so that the policy goes on meanwhile.
    later = NOW + timedelta(minutes=5)
    again, _ = lists.ask(store, study.id, ListRequest(who="users", contacts=50), now=later)
    ListWork(store, again.id, lambda: 0.0).run()
    with store.read() as session:
        found = lists.find(session, again.id, now=later)
        assert [each.id for each in lists.listing(session, campaign.KEY, now=later)] == [again.id, name]
    # Nothing but the list's own attribute was ever sent of these users outside their exposures.
    assert found.error is not None
    assert {each.problem for each in found.error.problems} == {"missing_feature"}
