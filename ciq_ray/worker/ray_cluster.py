"""The Ray that a search runs on: joined or started, its nodes watched, actors placed on them."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Final, Protocol

from ciq_ray import settings
from ciq_ray.errors import ConfigurationError, WorkerError
from ciq_ray.worker.pool import available_cpus
from ciq_ray.worker.protocol import Task
from ciq_ray.worker.ray_actor import EvaluationActor, Setup
from ciq_ray.worker.ray_options import ActorOptions
from ciq_ray.worker.ray_quiet import be_quiet

__all__ = ["Actor", "Cluster", "Done", "RayCluster", "connected", "places", "ray_session"]

WATCH_S: Final = 1.0
AVOID_S: Final = 60.0
"""Seconds that no actor is placed on a node where one could not evaluate; each time twice as many."""
_MOST_AVOID_S: Final = 3600.0
_NODE_LABEL: Final = "ray.io/node-id"
"""A label that Ray itself gives to each node."""
_ACTOR_THREADS: Final = 6
"""One waits in `exchange`; the rest is for calls that come meanwhile."""
_ENVIRONMENT: Final = {
    # an evaluation without GPUs must see none, rather than all
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # Ray would kill the guard together with the child, and leave what the child has started
    "RAY_kill_child_processes_on_worker_exit": "0",
}
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Done = Callable[["Future[Any]"], object]


class Actor(Protocol):
    """An `EvaluationActor` somewhere else; answers arrive in another thread."""

    def hello(self, done: Done) -> None:
        """Ask where it is; that answer is the first one, and comes when the actor has been placed."""

    def exchange(self, tasks: list[Task], done: Done) -> None:
        """See `EvaluationActor.exchange`."""

    def put(self, tasks: list[Task]) -> None:
        """See `EvaluationActor.put`."""

    def take_back(self, ids: list[str], done: Done) -> None:
        """See `EvaluationActor.take_back`."""

    def cancel(self, done: Done) -> None:
        """See `EvaluationActor.cancel`."""

    def close(self, done: Done) -> None:
        """See `EvaluationActor.close`."""

    def end(self) -> None:
        """Kill it, placed or not."""


class Cluster(Protocol):
    """Where actors are started.

    Attributes:
        grows: Whether nodes are added for actors that have no place.
    """

    grows: bool

    def start(self, name: str, avoids: frozenset[str]) -> Actor:
        """Start an actor anywhere but on these nodes; it may have to wait for its place."""

    def avoid(self, node: str) -> None:
        """Have a node among the `avoided` for a while."""

    @property
    def avoided(self) -> frozenset[str]:
        """Ids of nodes without which there are places enough, and that should have no actor now."""

    def watch(self, changed: Callable[[int], object]) -> None:
        """Call `changed` with how many actors there is place for, now and when that or `avoided` changes."""

    @property
    def asked(self) -> str:
        """What one actor asks for, and what there is, in words."""

    def close(self) -> None:
        """Stop watching."""


# --- the connection to Ray ---


class _Connection:
    """How many in this process use a Ray that we have started or joined."""

    users = 0
    ours = False
    lock = threading.RLock()


@contextlib.contextmanager
def connected(num_workers: int | None, options: ActorOptions) -> Iterator[None]:
    """Have Ray for actors meanwhile, see `ray_session`.

    Args:
        num_workers: A local Ray gets as many CPUs as this many actors take, if that is more than there are.
        options: Of these actors.

    Raises:
        WorkerError: Ray cannot be started or reached.
        ConfigurationError: ``RAY_ADDRESS`` is that of a Ray Client.
    """
    cpus = 0 if num_workers is None else math.ceil(num_workers * options.options["num_cpus"])
    with ray_session(cpus), _one_thread():
        yield


@contextlib.contextmanager
def ray_session(num_cpus: int = 0) -> Iterator[None]:
    """Have Ray meanwhile: the one that is connected, else that of ``RAY_ADDRESS``, else a local one.

    What was started here is stopped with the last user, what was joined is left running.

    Args:
        num_cpus: A local Ray gets this many CPUs, if that is more than there are.

    Raises:
        WorkerError: Ray cannot be started or reached.
        ConfigurationError: ``RAY_ADDRESS`` is that of a Ray Client.
    """
    import ray

    state = _Connection
    with state.lock:
        if state.users == 0:
            state.ours = not ray.is_initialized()
            if state.ours:
                _connect(num_cpus)
        state.users += 1
    try:
        yield
    finally:
        with state.lock:
            state.users -= 1
            if state.users == 0 and state.ours:
                ray.shutdown()
                be_quiet(False)


def _connect(num_cpus: int) -> None:
    import ray

    address = settings.ray_address() or "local"
    if address.startswith("ray://"):
        raise ConfigurationError(
            f"RAY_ADDRESS is {address!r}, a Ray Client; run the search on a machine of the cluster, for "
            "example with `ray job submit`"
        )
    arguments: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        arguments |= {"num_cpus": max(available_cpus(), num_cpus), "include_dashboard": False}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        be_quiet(True)
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main else None
    try:
        ray.init(**arguments)
    except Exception as error:  # Ray raises just that when its processes do not start
        raise WorkerError(f"cannot connect to Ray ({address}): {error}") from error
    finally:
        if before is not None:  # Ray puts its own handler in the place of ours
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Numeric libraries that are loaded meanwhile keep to one thread: the cores belong to the candidates."""
    added = [name for name in _THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


# --- what fits ---


def places(nodes: list[dict[str, Any]], options: ActorOptions) -> int:
    """How many actors these nodes have place for, if nothing else runs on them.

    Args:
        nodes: As ``ray.nodes()`` gives them.
        options: Of the actors.
    """
    strategy = options.options.get("scheduling_strategy")
    request = options.request
    group = getattr(strategy, "placement_group", None)
    if group is not None:
        bundles = list(group.bundle_specs)
        index = getattr(strategy, "placement_group_bundle_index", -1)
        chosen = bundles if index is None or index < 0 else bundles[index : index + 1]
        return sum(_times(bundle, request) for bundle in chosen)
    selector = options.options.get("label_selector", {})
    only = None if getattr(strategy, "soft", True) else getattr(strategy, "node_id", None)
    return sum(
        _times(node["Resources"], request)
        for node in nodes
        if node["Alive"]
        and (only is None or node["NodeID"] == only)
        and all(_selected(node.get("Labels", {}), label, value) for label, value in selector.items())
    )


def _times(resources: Mapping[str, float], request: Mapping[str, float]) -> int:
    # an actor that asks for nothing fits any number of times; one for each CPU is enough
    asked = request or {"CPU": 1.0}
    return min(_share(name, resources.get(name, 0.0), amount) for name, amount in asked.items())


def _share(name: str, total: float, amount: float) -> int:
    if name == "GPU" and amount < 1:  # a part of a GPU is never made of parts of two
        return int(total) * int(1 / amount + 1e-9)
    return int(total / amount + 1e-9)


def _selected(labels: Mapping[str, str], label: str, wanted: str) -> bool:
    """Whether a node's labels agree with one line of a label selector of Ray's."""
    negated = wanted.startswith("!")
    text = wanted.removeprefix("!")
    values = text[3:-1].split(",") if text.startswith("in(") and text.endswith(")") else [text]
    return (labels.get(label) in {value.strip() for value in values}) != negated


class RayCluster:
    """The cluster this process is connected to.

    Args:
        options: Of the actors.
        setup: What they evaluate.

    Raises:
        ConfigurationError: No node has what an actor asks for, and nobody will add one that has.
    """

    def __init__(self, options: ActorOptions, setup: Setup) -> None:
        import ray

        self._ray = ray
        self._options = options
        runtime_env = dict(options.options.get("runtime_env", {}))
        runtime_env["env_vars"] = {**_ENVIRONMENT, **runtime_env.get("env_vars", {})}
        self._class = ray.remote(EvaluationActor)
        self._arguments: dict[str, Any] = {
            **options.options,
            "runtime_env": runtime_env,
            "max_concurrency": _ACTOR_THREADS,
            "max_restarts": 0,
        }
        self._avoided: dict[str, tuple[int, float]] = {}
        self._nodes: list[dict[str, Any]] = ray.nodes()
        self.grows = _grows()
        if not places(self._nodes, options) and not self.grows:
            raise ConfigurationError(
                f"no node has what each evaluation asks for ({self.asked}); ask for less, or start Ray on "
                "machines that have it before the search"
            )
        self._setup = ray.put(setup)  # once to the cluster, not once to each actor
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, name: str, avoids: frozenset[str]) -> Actor:
        """Start an actor; see `Cluster.start`."""
        arguments = dict(self._arguments)
        if avoids:
            others = {_NODE_LABEL: f"!in({','.join(sorted(avoids))})"}
            arguments["label_selector"] = {**arguments.get("label_selector", {}), **others}
        return _RemoteActor(self._class.options(**arguments).remote(name, self._setup))

    def avoid(self, node: str) -> None:
        """See `Cluster.avoid`; it counts once until its time is over."""
        times, until = self._avoided.get(node, (0, 0.0))
        now = time.monotonic()
        if until <= now:
            self._avoided[node] = times + 1, now + min(AVOID_S * 2**times, _MOST_AVOID_S)

    @property
    def avoided(self) -> frozenset[str]:
        """See `Cluster.avoided`; none if the options leave Ray no choice of a node."""
        strategy = self._options.options.get("scheduling_strategy", "DEFAULT")
        if not isinstance(strategy, str) or _NODE_LABEL in self._options.options.get("label_selector", {}):
            return frozenset()
        now = time.monotonic()
        alive = {node["NodeID"] for node in self._nodes if node["Alive"]}
        found = frozenset(node for node, (_, until) in self._avoided.copy().items() if until > now) & alive
        return found if places(self._others(found), self._options) else frozenset()

    def _others(self, avoided: frozenset[str]) -> list[dict[str, Any]]:
        return [node for node in self._nodes if node["NodeID"] not in avoided]

    def watch(self, changed: Callable[[int], object]) -> None:
        """See `Cluster.watch`; the nodes are looked at every `WATCH_S`."""
        changed(places(self._nodes, self._options))
        self._thread = threading.Thread(target=self._watch, args=(changed,), name="ciq-nodes", daemon=True)
        self._thread.start()

    @property
    def asked(self) -> str:
        """What one actor asks for, and what there is, in words."""
        alive = [node for node in self._nodes if node["Alive"]]
        total: dict[str, float] = {}
        for node in alive:
            for name, amount in node["Resources"].items():
                if ":" not in name and not name.endswith("memory"):
                    total[name] = total.get(name, 0.0) + amount
        has = ", ".join(f"{amount:g} {name}" for name, amount in sorted(total.items())) or "nothing"
        what = "node" if len(alive) == 1 else "nodes"
        return f"{self._options.words}; the cluster has {len(alive)} {what} with {has}"

    def close(self) -> None:
        """Stop watching."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(2 * WATCH_S)

    def _watch(self, changed: Callable[[int], object]) -> None:
        before: tuple[int, frozenset[str]] | None = None
        while not self._ended.wait(WATCH_S):
            try:
                self._nodes = self._ray.nodes()
            except Exception:  # the head is away; actors say so themselves
                continue
            avoided = self.avoided
            now = places(self._others(avoided), self._options), avoided
            if now != before:
                before = now
                changed(now[0])


def _grows() -> bool:
    """Whether an autoscaler may add nodes."""
    from ray._private.state import state

    try:
        return state.get_max_resources_from_cluster_config() is not None
    except Exception:  # it is not public, and an unknown answer refuses nothing
        return True


class _RemoteActor:
    """An `EvaluationActor` in Ray."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def hello(self, done: Done) -> None:
        self._handle.hello.remote().future().add_done_callback(done)

    def exchange(self, tasks: list[Task], done: Done) -> None:
        self._handle.exchange.remote(tasks).future().add_done_callback(done)

    def put(self, tasks: list[Task]) -> None:
        self._handle.put.remote(tasks)

    def take_back(self, ids: list[str], done: Done) -> None:
        self._handle.take_back.remote(ids).future().add_done_callback(done)

    def cancel(self, done: Done) -> None:
        self._handle.cancel.remote().future().add_done_callback(done)

    def close(self, done: Done) -> None:
        self._handle.close.remote().future().add_done_callback(done)

    def end(self) -> None:
        ray = sys.modules["ray"]
        with contextlib.suppress(Exception):  # it is dead already, or the cluster is
            ray.kill(self._handle, no_restart=True)
