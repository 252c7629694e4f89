"""One Ray for all tests of a session, on this machine, started when first asked for.

Ask for `ray_head` to have a Ray with two CPUs and two GPUs that are not there, connected to this
process; it yields the `ray.cluster_utils.Cluster`, so that a test may add nodes of its own and has to
remove them. Ask for `ray_nodes` to have a second node as well, with two CPUs, two such GPUs and the
label ``pool=second``, for the tests of one module; `ray.nodes()` lists both. A process can be connected
to one Ray only: call neither `ray.init` nor `ray.shutdown` in a test, and use a script in a process of its
own where those matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

NODE = {"num_cpus": 2, "num_gpus": 2, "object_store_memory": 80 << 20}


@pytest.fixture(scope="session")
def ray_head() -> Iterator[Any]:
    """A Ray of this session's own: a head node with two CPUs and two GPUs that are not there."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.delenv("RAY_ADDRESS", raising=False)
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        ray.init(address=cluster.address, log_to_driver=False)
        try:
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


@pytest.fixture(scope="module")
def ray_nodes(ray_head: Any) -> Iterator[Any]:
    """The cluster with a second node, with the label ``pool=second``."""
    node = ray_head.add_node(**NODE, labels={"pool": "second"})
    try:
        yield ray_head
    finally:
        ray_head.remove_node(node)
