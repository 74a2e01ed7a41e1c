"""An app with its users, as the server meets them: they see variants, click, and leave."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import requests

from experiments import registry
from experiments.documents import Experiment, Kind
from experiments.store import Store
from tests.web.conftest import Clock

BATCH = 1_000
# Of so many users one does it, whatever he gets; of those who get the usual text one in ten clicks.
DOES = {"purchase": 25, "unsubscribe": 1000, "complaint": 2000}
USUAL = 10


@dataclass
class Shop:
    """The app, with the key that it has; one in ``new`` users clicks on a new text."""

    store: Store
    clock: Clock
    address: str
    key: str
    users: int = 6_000
    new: int = 5

    def post(self, path: str, body: object) -> Any:
        answer = requests.post(self.address + path, json=body, headers={"Authorization": f"Bearer {self.key}"})
        assert answer.ok, answer.text
        return answer.json()

    def past(self, users: int) -> None:
        """Tell what is known of users before the test: who they are, and what they did lately."""
        for first in range(0, users, 2_000):
            batch: list[dict[str, object]] = []
            for number in range(first, first + 2_000):
                user = f"member-{number}"

                def item(kind: str, name: str, days: float, user: str = user, **fields: object) -> dict[str, object]:
                    at = self.clock.now - timedelta(days=days)
                    sent = {"type": kind, "messageId": f"{user}-{name}", "userId": user, "timestamp": at.isoformat()}
                    return sent | fields

                traits = {"city": ("上海", "北京", "深圳")[number % 3], "days_since_purchase": number % 120}
                batch.append(item("identify", "known", 40 - 35 * number / users, traits=traits))
                batch += [
                    item("event", f"click-{day}", day - 0.5, event="click")
                    for day in (1, 2, 3)
                    if (number + day) % USUAL == 0
                ]
                batch += [
                    item("event", event, 3.5, event=event, value=58.0)
                    for event, every in DOES.items()
                    if number % every == 0
                ]
            self.post("/v1/events", {"batch": batch})

    def live(self, experiment: str) -> None:
        """Let users meet the experiment, click and leave; afterwards all of them were watched for long enough."""
        with self.store.read() as session:
            rule = self.store.catalog(session).evaluator.experiments[experiment]
        at = self.clock.now.isoformat()
        for first in range(0, self.users, BATCH):
            batch = []
            for number in range(first, first + BATCH):
                user = f"{at}-{number}"
                given = rule.assign(user, {})
                common = {"userId": user, "timestamp": at}
                met = {"experiment": experiment, "variant": given.variant, "stratum": given.stratum}
                batch.append(common | {"type": "exposure", "messageId": user} | met)
                does = DOES | {"click": USUAL if given.variant == rule.control else self.new}
                batch += [
                    common | {"type": "event", "messageId": f"{user}-{event}", "event": event, "value": 58.0}
                    for event, every in does.items()
                    if number % every == 0
                ]
            assert self.post("/v1/events", {"batch": batch})["rejected"] == []
        self.clock.forward(days=9)

    def new_text(self, experiment: str) -> str:
        """The text of the variant that is no control."""
        with self.store.read() as session:
            found: Experiment = registry.get(session, Kind.experiment, experiment)
        (tactic,) = (variant.tactic for variant in found.variants if variant.key != found.control)
        assert tactic is not None
        return tactic.copy_ or ""
