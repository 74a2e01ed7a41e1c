"""What the application holds while it runs: the store and the clock."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

from flask import Flask, current_app

from experiments.store import Store
from web.attempts import Attempts
from web.streams import Streams

_NAME = "upturn"


@dataclass(frozen=True, slots=True)
class State:
    """The open store, where the present time comes from, who listens for news, and who failed to log in lately."""

    store: Store
    clock: Callable[[], datetime]
    streams: Streams
    attempts: Attempts = field(default_factory=Attempts)

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.store.settings.timezone)


def attach(app: Flask, state: State) -> None:
    """Give an application its state."""
    app.extensions[_NAME] = state


def state_of(app: Flask) -> State:
    """Return an application's state."""
    found: State = app.extensions[_NAME]
    return found


def state() -> State:
    """Return the state of the application that answers the present request."""
    return state_of(current_app)
