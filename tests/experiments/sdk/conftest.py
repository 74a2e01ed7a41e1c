"""Servers on the loopback for the tests of the client."""

from collections.abc import Iterator

import pytest

from tests.experiments.sdk.loopback import Loopback


@pytest.fixture
def server() -> Iterator[Loopback]:
    server = Loopback()
    yield server
    server.kill()
