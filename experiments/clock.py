"""What is done by the clock: starts and stops, and the next waves of adaptive shares."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from experiments import registry, schedule
from experiments.documents import Experiment, Kind, Status
from experiments.store import Store

# To find a fault again takes an analysis, and a fault seldom goes within minutes.
REST: Final = timedelta(hours=1)


class Clock:
    """Does what is due each time it is asked, and remembers whose waves were refused: those rest for a while."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._refused: dict[str, datetime] = {}

    def tick(self, *, now: datetime) -> Iterator[str]:
        """Do what is due, and tell each step in a line."""
        for step in schedule.run(self._store, now=now):
            what = f"refused, {step.detail}" if step.problem else "done"
            yield f"{step.experiment}: {step.status}: {what}"
        yield from self._waves(now)

    def _waves(self, now: datetime) -> Iterator[str]:
        with self._store.read() as session:
            documents: list[Experiment] = registry.all_of(session, Kind.experiment)
        if not any(one.adaptive is not None and one.status is Status.running for one in documents):
            return
        # The engines take a second and much memory, which a store without such experiments is spared.
        from experiments import adaptive
        from experiments.adaptive import AdaptCode

        self._refused = {key: at for key, at in self._refused.items() if now - at < REST}
        for done in adaptive.update_all(self._store, now=now, resting=self._refused):
            match done.code:
                case AdaptCode.opened | AdaptCode.burn_in:
                    shares = " ".join(f"{variant}={share:.3f}" for variant, share in done.shares.items())
                    yield f"{done.experiment}: wave {done.wave}: {shares}"
                case AdaptCode.unhealthy | AdaptCode.failed:
                    self._refused[done.experiment] = now
                    yield f"{done.experiment}: no wave: {done.code}, {done.detail or ' '.join(done.health)}"
