"""Studies for whom the campaign's e-mails pay, and serves what was found to new customers, of whom some are held back.

``python -m experiments.demo.uplift`` does so on the store that the environment names, while the demo is served.

The new customers are those of the campaign again, under ids of their own. What a customer did is known only for the
e-mail that he really got, so he is among them only where the policy gives him that one: what came of it is then real.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from experiments import registry, reports
from experiments.demo import hillstrom, replay
from experiments.demo.replay import Item
from experiments.documents import Experiment, Kind
from experiments.policy import PolicyStatus
from experiments.settings import Settings
from experiments.store import Store
from experiments.uplift import report, serving, studies
from experiments.uplift.studies import Study, StudyRequest, StudyStatus

POLICY = "hillstrom-rollout"
REQUEST = StudyRequest(metric="visit", learners=["t"], features="attributes")
HOLDBACK = 0.4
_SENT_AT = hillstrom.SENT_AT + timedelta(days=28)
_NEWS_SECONDS = 0.2


def study(store: Store, *, now: Callable[[], datetime]) -> Study:
    """Study who visits because of which e-mail, in a process of its own, and wait for it."""
    asked, new = studies.ask(store, hillstrom.EXPERIMENT, REQUEST, now=now())
    if new:
        studies.start(store.settings, asked.id)
    while True:
        with store.read() as session:
            found = studies.find(session, asked.id, now=now())
        if found.status not in (StudyStatus.queued, StudyStatus.running):
            return found
        time.sleep(_NEWS_SECONDS)


def roll_out(store: Store, found: Study, *, now: datetime) -> bool:
    """Start the policy of the study's rules, replay the customers under it, and measure what came of it.

    False where the study failed.
    """
    if found.report is None:
        return False
    said = report.decode(bytes(found.report))
    with store.write() as session:
        experiment: Experiment = registry.get(session, Kind.experiment, hillstrom.EXPERIMENT, found.revision)
        body = serving.policy(experiment, found.id, said, found.notes, store.settings.currency)
        body |= {"key": POLICY, "name": "E-mail by taste · 按偏好发邮件", "holdback": {"share": HOLDBACK}}
        body["metrics"] = [{"key": "visit", "role": "primary"}, {"key": "spend", "role": "secondary"}]
        registry.create(session, Kind.policy, body, actor="demo", now=now)
        registry.move_policy(session, POLICY, PolicyStatus.running, actor="demo", now=now)
    with store.read() as session:
        served = store.catalog(session).evaluator.experiments[POLICY]
    replay.send(store, _customers(served), now=now, progress=lambda customers: None)
    reports.make(store, POLICY, now=now, kind=Kind.policy)
    return True


def _customers(served: Any) -> Iterator[list[Item]]:
    for items in hillstrom.customers():
        exposure = dict(items[0])
        user = f"{exposure['userId']}-again"
        given = served.assign(user, exposure["attributes"])
        if given.variant == exposure["variant"]:
            exposure |= {"experiment": POLICY, "stratum": given.stratum}
            yield [_again(item, user) for item in (exposure, *items[1:])]


def _again(item: Item, user: str) -> Item:
    shift = _SENT_AT - hillstrom.SENT_AT
    return dict(item) | {
        "messageId": f"{item['messageId']}-again",
        "userId": user,
        "timestamp": item["timestamp"] + shift,  # type: ignore[operator]
    }


def main() -> None:
    """Study and roll out, on the store that the environment names, unless that was done before."""

    def now() -> datetime:
        return datetime.now(UTC)

    store = Store.open(Settings.from_env())
    try:
        with store.read() as session:
            known = any(policy.key == POLICY for policy in registry.all_of(session, Kind.policy))
        if not known:
            roll_out(store, study(store, now=now), now=now())
    finally:
        store.close()


if __name__ == "__main__":
    main()
