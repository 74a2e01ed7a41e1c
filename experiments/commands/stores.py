"""What commands share: the store of the environment, the present, and how they print."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from experiments.settings import Settings

if TYPE_CHECKING:
    from experiments.store import Store

ACTOR = "cli"


def now() -> datetime:
    """Return the present."""
    return datetime.now(UTC)


@contextmanager
def opened(*, migrate: bool = False) -> "Iterator[Store]":
    """Open the store that the environment names."""
    from experiments.store import Store

    store = Store.open(Settings.from_env(), migrate=migrate)
    try:
        yield store
    finally:
        store.close()


def format_option(command: Any) -> Any:
    """Let a command print a table or JSON."""
    return click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)(
        command
    )
