"""What the tests under Ray Tune share: one small cluster of processes, started when first asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A Ray of this session's own, on this machine."""
    import ray

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # never a cluster that somebody else has started
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()
