"""Workers on the nodes of a Ray cluster. Ray places them, brings files there, and tells when one has died."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from loadtrt.engines.open import needs_gpu
from loadtrt.errors import EngineError, UsageError
from loadtrt.printing import shortened
from loadtrt.runs.fleet_watch import boards_at
from loadtrt.runs.links import Clock
from loadtrt.runs.ray_host import RayHost
from loadtrt.runs.shipping import Shipment
from loadtrt.units import MILLISECOND_NS, plural, plural_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.records.board import Board
    from loadtrt.runs.watched import Talks
    from loadtrt.signals import Signals

    Hear = Callable[[str | None], object]

PLACING_S = 60.0  # for Ray to find a place for all workers
_CONNECTING_S, _ANSWER_S, _LISTEN_S, _LOOK_S = 5.0, 10.0, 5.0, 0.2
_FOLLOW_S = 0.25  # between two looks at what a worker has written, as its live view is drawn
_CLOSE_S = 1.0
_TRIPS = 30
_CALLS = 8  # of an actor at once
_CLIENT_PORT = "10001"


class RayCluster:
    """The places of --ray: see `Places`."""

    def __init__(self, config: RunConfig, talks: Talks, signals: Signals) -> None:
        """Connect, and wait until all workers have a place. Raises LoadtrtError, and KeyboardInterrupt."""
        assert config.ray is not None  # noqa: S101
        assert config.workers is not None  # noqa: S101
        self.count = config.workers
        self.lead_ns = (200 + 5 * self.count) * MILLISECOND_NS
        self._shipment = Shipment(config)
        self._actors: list[Any] = []
        self._group: Any = None
        with signals.interruptible():
            self._own = _connect(config.ray)
        try:
            self._place(config, talks, signals)
        except BaseException:
            self.close()
            raise

    def _place(self, config: RunConfig, talks: Talks, signals: Signals) -> None:
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        gpus = config.gpus_per_worker
        if gpus is None:
            gpus = float(any(needs_gpu(model.engine, model.on) for model in config.models.values()))
        needs = {"CPU": config.cpus_per_worker, **({"GPU": gpus} if gpus else {})}
        self._group = placement_group([needs] * self.count, strategy="SPREAD")
        end, ready = time.monotonic() + PLACING_S, self._group.ready()
        while not ray.wait([ready], timeout=_LOOK_S)[0]:
            signals.check()
            talks.status(f"waiting for Ray to place {plural(self.count, 'worker')}", slow=True)
            if time.monotonic() > end:
                raise EngineError(_no_place(needs, self.count))
        remote = ray.remote(RayHost)
        for number in range(self.count):
            strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=number)
            self._actors.append(
                remote.options(
                    num_cpus=config.cpus_per_worker,
                    num_gpus=gpus,
                    max_concurrency=_CALLS,
                    max_restarts=0,
                    scheduling_strategy=strategy,
                ).remote()
            )
        self._sees_one = gpus > 0
        self._places = [
            self._answer(number, actor.place.remote(), signals) for number, actor in enumerate(self._actors)
        ]
        self._files = {
            group: {
                name: ray.put(data if isinstance(data, bytes) else data.read_bytes()) for name, data in files.items()
            }
            for group, files in self._shipment.groups.items()
        }

    def _answer(self, number: int, answer: Any, signals: Signals) -> Any:
        import ray

        try:
            while not ray.wait([answer], timeout=_LOOK_S)[0]:
                signals.check()
            return ray.get(answer)
        except Exception as error:
            raise EngineError(f"worker {number} cannot begin: {_reason(error)}") from None

    def start(self, number: int, config: RunConfig, hear: Hear, boards: str = "") -> RayLink:
        """Start a worker. boards: where what it writes on its own is copied to; see WorkerProcess."""
        host, (ids, _), told = self._places[number]
        fellows = [pid for _, (beside, pid), _ in self._places if beside == ids]
        placed = self._shipment.configuration(config.with_device(0) if self._sees_one else config)
        seen_on = boards_at(boards, len(config.models)) if boards else []
        return RayLink(
            self._actors[number], (placed, self._files, fellows, config.telemetry), hear, host, told, seen_on
        )

    def close(self) -> None:
        """Give the places back, and leave the cluster, unless the caller had connected before."""
        import ray
        from ray.util.placement_group import remove_placement_group

        with suppress(Exception):  # of a cluster that has gone
            ray.wait([actor.close.remote() for actor in self._actors], num_returns=len(self._actors), timeout=_ANSWER_S)
        with suppress(Exception):
            if self._group is not None:
                remove_placement_group(self._group)  # ends its actors
        if self._own:
            ray.shutdown()


class RayLink:
    """A worker on a node, as `WorkerProcess` is one here."""

    def __init__(
        self,
        actor: Any,
        given: tuple[Any, ...],
        hear: Hear,
        host: str,
        where: dict[str, Any],
        boards: Sequence[Board] = (),
    ) -> None:
        """given: all but the last argument of `RayHost.start`.
        hear, host, where: as for WorkerProcess.
        boards: as the worker has them, in the memory of an observer here; none where nobody reads them.
        """
        self.host, self.where = host, where
        self.code: int | None = None
        self.end = "it never began"
        self._actor, self._boards = actor, boards
        self._closed = False
        self._listener = threading.Thread(target=self._listen, args=(given, hear), daemon=True)
        self._listener.start()

    def _listen(self, given: tuple[Any, ...], hear: Hear) -> None:
        try:
            self._wait(self._actor.start.remote(*given, len(self._boards)))
            while self.code is None:
                lines, pieces, ended = self._wait(self._actor.hear.remote(_FOLLOW_S if self._boards else _LISTEN_S))
                for board, piece in zip(self._boards, pieces, strict=True):
                    if piece is not None:
                        board.put(piece)
                for line in lines:
                    hear(line)
                if ended is not None:
                    self.code, self.end = ended
        except Exception as error:
            self.end = _reason(error)
        hear(None)

    def _wait(self, answer: Any) -> Any:
        """The answer of a node, which may have been given up meanwhile: then it is waited for no longer."""
        import ray

        while not ray.wait([answer], timeout=_CLOSE_S)[0]:
            if self._closed:
                raise TimeoutError("its node does not answer")
        return ray.get(answer)

    def send(self, line: str) -> None:
        """Send it a message."""
        self._call("send", line)

    def stop(self) -> None:
        """Have it end as the command does at a first signal."""
        self._call("stop")

    def kill(self) -> None:
        """End it at once, without a result."""
        self._call("kill")

    def _call(self, name: str, *given: str) -> None:
        with suppress(Exception):  # it has died, which the listener tells
            getattr(self._actor, name).remote(*given)

    def clock(self) -> Clock | None:
        """The clock of its host, by the shortest of several round trips; None where it does not answer."""
        import ray

        trips = []
        with suppress(Exception):
            for _ in range(_TRIPS):
                before = time.time_ns()
                there = ray.get(self._actor.now.remote(), timeout=_ANSWER_S)
                after = time.time_ns()
                trips.append(Clock(there - (before + after) // 2, (after - before) // 2 + 1))
        return min(trips, key=lambda clock: clock.error_ns, default=None)

    def close(self) -> None:
        """Forget it, which has ended or was killed, or does not answer."""
        self._closed = True
        self._listener.join()


def _connect(address: str) -> bool:
    """Connect to a cluster; returns False where this process was connected before. Raises UsageError."""
    # Ray writes what happens on its nodes to stdout: what matters of it is told in the result.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", r"[\s\S]*")
    try:
        import ray
    except ImportError:
        raise UsageError("--ray needs Ray, which is not installed here: pip install 'loadtrt[ray]'") from None
    if ray.is_initialized():
        return False
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    _require_answer(address)
    terminated = signal.getsignal(signal.SIGTERM)
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except Exception as error:
        with suppress(Exception):
            ray.shutdown()
        raise UsageError(f"--ray {address}: {_why_not(error)}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminated)  # which Ray takes over
    return True


def _require_answer(address: str) -> None:
    """Raise UsageError where nobody listens at an address: Ray would try for minutes, and then end the process."""
    if address == "auto":
        return
    scheme, _, place = address.rpartition("://")
    host, colon, port = place.rpartition(":")
    if not colon:
        host, port = place, _CLIENT_PORT if scheme else ""
    if not scheme and host in ("localhost", "127.0.0.1"):
        from ray.util import get_node_ip_address

        host = get_node_ip_address()  # which Ray takes instead
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECTING_S):
            pass
    except (OSError, ValueError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error) or "no answer"
        raise UsageError(
            f"--ray {address}: nobody answers there ({why}): give auto on a node of the cluster, HOST:6379 of its "
            "head, or ray://HOST:10001 from elsewhere"
        ) from None


def _why_not(error: Exception) -> str:
    """Why Ray does not connect, and what to do."""
    text = " ".join(str(error).split())
    versions = re.findall(r"(Ray|Python): ?(\S+)", text)
    if "ersion mismatch" in text and len(versions) >= 4:
        (_, ray), (_, python), (_, own_ray), (_, own_python) = versions[:4]
        return (
            f"the cluster has Ray {ray} on Python {python}, and here is Ray {own_ray} on Python {own_python}: make "
            "them the same"
        )
    if isinstance(error, ConnectionError) and "running Ray instance" in text:
        return "no Ray cluster runs on this host: start one by ray start --head, or give its address"
    return f"Ray does not connect: {shortened(text, 300)}"


def _reason(error: Exception) -> str:
    """Why a worker was lost, in words."""
    from ray.exceptions import RayActorError, RayTaskError

    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}" if error.cause is not None else str(error)
    lacks = re.search(r"(?:ModuleNotFound|Import|Attribute)Error: (.+)", str(error))
    if lacks is not None:
        return f"loadtrt is not on its node, or another version ({lacks[1]}): install the same one on all nodes"
    if isinstance(error, RayActorError):
        return "Ray lost its process or its node"
    return shortened(" ".join(str(error).split()), 200)


def _no_place(needs: dict[str, float], count: int) -> str:
    """That the cluster has too little, and what it has."""
    import ray

    free = ray.available_resources()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    each = " and ".join(_amount(amount, name) for name, amount in needs.items())
    has = ", ".join(
        f"{_amount(sum(node.get(name, 0) for node in nodes), name)} ({free.get(name, 0):g} free)" for name in needs
    )
    remedy = "fewer --workers" + (", or --gpus-per-worker 0 for engines on CPUs" if "GPU" in needs else "")
    return (
        f"Ray found no place for {plural(count, 'worker')} with {each} each within {PLACING_S:.0f} s: the cluster has "
        f"{plural(len(nodes), 'node')} with {has}: ask for {remedy}, or wait until others have ended"
    )


def _amount(amount: float, name: str) -> str:
    """Such as "0.5 GPUs"."""
    return f"{amount:g} {name if amount == 1 else plural_of(name)}"
