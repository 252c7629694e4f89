from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture
def default_handlers() -> Iterator[None]:
    """Libraries that other tests use, Ray among them, leave handlers of their own in this process."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
