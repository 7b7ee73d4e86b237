"""Who else uses the GPU: worlds of processes as drivers, containers, MIG and MPS show them, and what is told."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtrt.live import clients as module
from loadtrt.live.clients import Clients, Own, own_process
from loadtrt.live.nvml import GpuProcess, SmUse
from loadtrt.results.gpu_telemetry import SHARED_LIMIT, GpuClient, GpuSharing, clients_text
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

START = 1_700_000_000 * SECOND_NS
SECONDS = 10
OWN, OTHER, THIRD = 4000, 5000, 6000  # ids here
HOST = 600_000  # what the host adds to them
GIB = 2**30
SERVER = 300


@dataclass
class World:
    """A GPU whose driver samples six times a second, each sample of the one process that it finds; time passes by look.

    uses: part of the time in which kernels of each process run, by its id here, by second.
    sizes: memory of each process, by second; 0 where it is not there.
    lists, samples: how ids look in the list and in the samples; None: not told.
    mps, instances: by id here.
    """

    uses: dict[int, Callable[[float], float]] = field(default_factory=dict)
    sizes: dict[int, Callable[[float], int]] = field(default_factory=dict)
    lists: Callable[[int], int | None] | None = lambda pid: pid
    samples: Callable[[int], int | None] | None = lambda pid: pid
    mps: tuple[int, ...] = ()
    instances: dict[int, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    now: int = START

    def second(self) -> float:
        return (self.now - START) / SECOND_NS

    def processes(self) -> tuple[GpuProcess, ...] | None:
        if self.lists is None:
            return None
        return tuple(
            GpuProcess(seen, size(self.second()), self.instances.get(pid), pid in self.mps)
            for pid, size in self.sizes.items()
            if size(self.second()) and (seen := self.lists(pid)) is not None
        )

    def sm_use(self, since_us: int) -> tuple[SmUse, ...] | None:
        if self.samples is None:
            return None
        period_us = 1_000_000 // 6
        first, last = since_us // period_us + 1, self.now // 1000 // period_us
        times = [place * period_us for place in range(first, last + 1)]
        found = []
        for pid, use in self.uses.items():
            shares = [use(at_us / 1e6 - START / SECOND_NS) for at_us in times]
            seen = self.samples(pid)
            if seen is not None and round(100 * sum(shares) / max(len(shares), 1)):
                found.append(SmUse(seen, times[-1], round(100 * sum(shares) / len(shares)) / 100))
        return tuple(found)

    def process_name(self, pid: int) -> str | None:
        return self.names.get(pid)

    def utilization(self) -> float:
        return min(sum(use(self.second()) for use in self.uses.values()), 1.0)

    def seen(self, own: Own | None = None, warm_s: float = 2.0) -> GpuSharing:
        """What is known of the ten seconds that a run measures, after `warm_s` seconds of warm-up."""
        clients = Clients(self, own or Own((OWN,)), now_ns=lambda: self.now)
        for _ in range(round(warm_s) + SECONDS):
            before = clients.due
            self.now += SECOND_NS
            assert (before, clients.due) == (False, True)
            clients.look()
        start_ns = START + round(warm_s * SECOND_NS)
        return clients.between(start_ns, start_ns + SECONDS * SECOND_NS)


def always(value: float) -> Callable[[float], float]:
    return lambda _: value


def holding(gib: int = 1) -> Callable[[float], int]:
    return lambda _: gib * GIB


def hosts(pid: int) -> int:
    """An id as the host has it."""
    return pid + HOST


def mine(pid: int) -> int | None:
    """In a container that shows its own processes alone, of which this one is the only one."""
    return pid if pid == OWN else None


def nothing(_: int) -> None:
    """No process is shown."""


WAYS = {
    "on the host": (lambda pid: pid, lambda pid: pid),
    "ids of the host": (hosts, hosts),
    "the list by own ids, samples by the host's": (lambda pid: pid, hosts),
    "others are not in the list": (mine, hosts),
    "an empty list": (nothing, hosts),
}
ways = pytest.mark.parametrize("way", WAYS)


def world(way: str, **fields: object) -> World:
    lists, samples = WAYS[way]
    return World(**{"lists": lists, "samples": samples, **fields})  # type: ignore[arg-type]


@ways
@given(share=st.floats(0, 1), uneven=st.booleans())
def test_a_run_alone_has_no_others(way: str, share: float, uneven: bool) -> None:
    """However much it computes, and whatever ids the driver gives: nobody else is seen, and nobody computed."""
    use = (lambda second: share if int(second) % 3 else 0.0) if uneven else always(share)
    seen = world(way, uses={OWN: use}, sizes={OWN: holding()}).seen()
    assert seen.clients == ()
    assert [words for words in seen.unknown if "whose" in words] == []
    assert seen.own_sm_ratio is None or seen.own_sm_ratio == pytest.approx(share * (2 / 3 if uneven else 1), abs=0.12)


@ways
@given(others=st.floats(SHARED_LIMIT + 0.01, 0.6), own=st.floats(0.1, 0.4))
def test_others_that_compute_are_found(way: str, others: float, own: float) -> None:
    """Two runs at once: each finds the other, with its part of the time, within the driver's rounding."""
    both = {OWN: always(own), OTHER: always(others)}
    seen = world(way, uses=both, sizes={OWN: holding(), OTHER: holding(2)}).seen()
    (other,) = seen.clients
    assert other.computed
    known = way == "on the host"
    parts = (others,) if known else (others, own)  # where no id is known either may be taken for this run's
    assert any(other.sm_ratio == pytest.approx(part, abs=0.01) for part in parts)
    assert seen.computing == seen.clients


@ways
def test_one_that_computed_before_is_never_taken_for_this_run(way: str) -> None:
    """Not even where it computes more, and no id of this run is known."""
    one = world(way, uses={OWN: always(0.2), OTHER: always(0.7)}, sizes={OWN: holding(), OTHER: holding(2)})
    before = {seen for show in (one.lists, one.samples) if show and (seen := show(OTHER)) is not None}
    (other,) = one.seen(Own((OWN,), frozenset(before))).clients
    assert other.sm_ratio == pytest.approx(0.7)
    assert other.pid in before


@ways
def test_one_that_only_holds_memory_did_not_compute(way: str) -> None:
    """It is told of, where the list shows it, and spoils nothing; the memory is the most that it held."""
    sizes: dict[int, Callable[[float], int]] = {OWN: holding(), OTHER: lambda second: (3 if second == 7 else 2) * GIB}
    seen = world(way, uses={OWN: always(0.9)}, sizes=sizes).seen()
    listed = way not in ("others are not in the list", "an empty list")
    assert [(it.memory_bytes, it.sm_ratio, it.computed) for it in seen.clients] == [(3 * GIB, 0.0, False)] * listed
    assert seen.computing == ()


def test_a_short_visit_counts_by_the_time_it_took() -> None:
    """A second at half the GPU is 5 % of ten, and two tenths of it 1 %; in the warm-up it is no matter."""
    for begins, lasts, share in ((7, 1.0, 0.05), (0, 1.5, 0.0), (7, 0.2, 0.01)):
        visit = lambda second, begins=begins, lasts=lasts: 0.5 * (begins < second <= begins + lasts)  # noqa: E731
        one = World({OWN: always(0.5), OTHER: visit}, {OWN: holding(), OTHER: holding()})
        (other,) = one.seen().clients
        assert other.sm_ratio == pytest.approx(share, abs=0.005)
        assert other.computed == (share >= SHARED_LIMIT)


def test_a_visit_after_quiet_seconds_counts_no_longer_than_it_took() -> None:
    """Samples of nobody are not given: the next one is of the seconds right before it, not of all since the last."""
    visit = lambda second: 0.5 * (7 < second <= 8)  # noqa: E731
    one = World({OWN: always(0), OTHER: visit}, {OWN: holding(), OTHER: holding()})
    (other,) = one.seen().clients
    assert other.sm_ratio == pytest.approx(0.05, abs=0.01)


def test_others_are_named_where_ids_are_this_hosts() -> None:
    """Elsewhere the name would be that of another process with the same id here."""
    both = {"uses": {OWN: always(0.5), OTHER: always(0.5)}, "sizes": {OWN: holding(), OTHER: holding()}}
    names = {OTHER: "python3", hosts(OTHER): "wrong", hosts(OWN): "wrong"}
    (other,) = world("on the host", **both, names=names).seen().clients
    assert other.text == "python3 (process 5000, 1.00 GiB, kernels for 50 % of the time)"
    (other,) = world("ids of the host", **both, names=names).seen().clients
    assert other.name is None
    assert other.text.startswith(f"process {other.pid} (1.00 GiB, kernels for 50 %")


def test_processes_that_the_list_does_not_have_count_too() -> None:
    """Such as a desktop's, which are no CUDA processes, and a third client."""
    uses = {OWN: always(0.5), OTHER: always(0.2), THIRD: always(0.1)}
    one = World(uses, {OWN: holding(), OTHER: holding()}, names={THIRD: "Xorg"})
    clients = one.seen().clients
    assert [(it.pid, it.name) for it in clients] == [(OTHER, None), (THIRD, "Xorg")]
    assert [it.sm_ratio for it in clients] == pytest.approx([0.2, 0.1])


# --- where the driver does not tell


def test_who_came_or_grew_is_taken_for_one_that_computed_where_kernels_are_not_told() -> None:
    """One that was there and stays as it is may have computed: it is not known, and said once."""
    for size, grew in ((holding(), False), (lambda s: GIB * (s > 6), True), (lambda s: GIB * (1 + (s > 6)), True)):
        seen = World({OWN: always(1)}, {OWN: holding(), OTHER: size}, samples=None).seen()
        ((other,), words) = seen.clients, seen.unknown
        assert (other.sm_ratio, other.grew, other.computed, seen.told) == (None, grew, grew, False)
        assert words == ("whose kernels run",)


@pytest.mark.parametrize("words", ["python3 -X dev -m loadtrt run", "/usr/bin/python3 /opt/bin/loadtrt run", "loadtrt"])
@pytest.mark.parametrize("told", [True, False])
def test_another_loadtrt_is_known_by_its_command(words: str, told: bool, tmp_path: Path) -> None:
    """And computes for sure, where the driver does not tell; an argument of another program is none."""
    for line, name in ((words, "loadtrt"), ("python3 train.py loadtrt", "python3")):
        (tmp_path / str(OTHER)).mkdir(exist_ok=True)
        (tmp_path / str(OTHER) / "cmdline").write_bytes(line.replace(" ", "\0").encode())
        uses = {OWN: always(0.5), OTHER: always(0.4)}
        one = World(uses, {OWN: holding(), OTHER: holding()}, names={OTHER: "python3"})
        one.samples = one.samples if told else None
        clients = Clients(one, Own((OWN,)), now_ns=lambda one=one: one.now, proc=tmp_path)  # type: ignore[misc]
        one.now += SECONDS * SECOND_NS
        clients.look()
        (other,) = clients.between(START, one.now).clients
        assert (other.name, other.computed) == (name, told or name == "loadtrt")


def test_a_busy_gpu_without_a_sample_is_one_whose_driver_does_not_tell() -> None:
    """An answer of nobody is true of an idle GPU alone."""
    for share, told in ((0.9, False), (0.001, True)):
        seen = World({OWN: always(share)}, {OWN: holding()}, samples=nothing).seen()
        assert (seen.told, seen.clients) == (told, ())
        assert seen.unknown == (() if told else ("whose kernels run",))


def test_nothing_is_told() -> None:
    """No list, no samples: that is what is said, and nobody is accused."""
    seen = World({OWN: always(1)}, lists=None, samples=None).seen()
    assert seen == GpuSharing((), None, False, ("which other processes use the GPU", "whose kernels run"))
    assert seen.sm_ratio is None  # 0 would say that none ran


def test_a_list_without_this_process_is_not_all() -> None:
    """A container that shows no processes, though this one is there."""
    for lists in (nothing, lambda pid: pid if pid == OTHER else None):
        one = World({OWN: always(0.9)}, {OWN: holding(), OTHER: holding()}, lists=lists, samples=hosts)
        seen = one.seen(Own((OWN,), frozenset({OTHER})))
        assert len(seen.unknown) == 1
        assert "its list lacks even this one" in seen.unknown[0]
        assert seen.computing == ()


def test_of_a_split_gpu_only_its_own_instance_counts() -> None:
    """Another instance of MIG has SMs, memory and copy engines of its own; MIG tells nobody's kernels."""
    sizes = {OWN: holding(), OTHER: lambda s: GIB * (1 + (s > 6)), THIRD: lambda s: GIB * (1 + (s > 6))}
    one = World({}, sizes, samples=None, instances={OWN: 1, OTHER: 2, THIRD: 1})
    assert [(it.pid, it.computed) for it in one.seen().clients] == [(THIRD, True)]
    nobody = Own((), frozenset({OWN, OTHER, THIRD}))  # which instance is its own is not known
    one.now = START
    assert one.seen(nobody).clients == ()


@pytest.mark.parametrize("way", list(WAYS)[:3])  # the others list no clients of MPS
def test_under_mps_kernels_are_the_servers(way: str) -> None:
    """The server is no other client, all clients' kernels count as its, and so what others computed is not known."""
    sizes = {SERVER: holding(), OWN: holding(2)}
    for before in (frozenset[int](), frozenset({SERVER, hosts(SERVER)})):
        alone = world(way, uses={SERVER: always(0.9)}, sizes=sizes, mps=(OWN,))
        seen = alone.seen(Own((OWN,), before))
        assert (seen.clients, seen.told, seen.own_sm_ratio) == ((), False, None)
        assert "under MPS" in seen.unknown[0]
    both = world(way, uses={SERVER: always(0.9)}, sizes={**sizes, OTHER: holding()}, mps=(OWN, OTHER))
    (other,) = both.seen().clients
    assert (other.sm_ratio, other.computed) == (None, False)


# --- this process


def test_this_process_is_known_by_all_its_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the namespaces that /proc shows, and who was there before it opened a GPU; afterwards those whom an
    earlier call saw."""
    (tmp_path / "self" / "fd").mkdir(parents=True)
    (tmp_path / "self" / "status").write_text("Name:\tpython\nNSpid:\t600123\t123\t7\n")
    (tmp_path / "self" / "fd" / "3").symlink_to("/dev/nvidia0")
    opened: list[int] = []

    class Gpu:
        def __enter__(self) -> Gpu:
            opened.append(1)
            return self

        def __exit__(self, *_: object) -> None:
            opened.append(-1)

        def processes(self) -> tuple[GpuProcess, ...]:
            return (GpuProcess(77, None),)

        def sm_use(self, since_us: int) -> tuple[SmUse, ...]:
            return (SmUse(88, since_us + 1, 0.5),)

    monkeypatch.setattr(module, "find_driver", lambda: (SimpleNamespace(gpus=2), ""))
    monkeypatch.setattr(module, "open_gpu", lambda _: (Gpu(), ""))
    own = own_process(tmp_path)
    assert own == Own((600123, 123, 7, os.getpid()), frozenset({77, 88}))
    assert opened == [1, -1, 1, -1]
    assert Own.from_json(own.to_json()) == own
    (tmp_path / "self" / "fd" / "4").symlink_to("/dev/nvidia-uvm")
    assert own_process(tmp_path) == own  # of a later run
    monkeypatch.setattr(module, "_there_before", set())
    assert own_process(tmp_path).before == frozenset()
    monkeypatch.setattr(module, "find_driver", lambda: (None, "no driver"))
    assert own_process(tmp_path / "nowhere") == Own((os.getpid(),))


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_a_later_run_of_this_process_is_not_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the real /proc: once this process has opened a GPU, the driver lists it, and that is itself."""

    class Gpu(nullcontext[Any]):
        def processes(self) -> tuple[GpuProcess, ...]:
            return (GpuProcess(os.getpid(), 1 << 30),)

        def sm_use(self, since_us: int) -> tuple[SmUse, ...]:
            return (SmUse(os.getpid(), since_us + 1, 0.5),)

    monkeypatch.setattr(module, "find_driver", lambda: (SimpleNamespace(gpus=1), ""))
    monkeypatch.setattr(module, "open_gpu", lambda _: (Gpu(), ""))
    monkeypatch.setattr(module, "_there_before", set())
    with (tmp_path / "nvidia-uvm").open("w"):
        assert own_process().before == frozenset()
    assert own_process().before == {os.getpid()}, "the file tells"


def test_many_others_are_few_words() -> None:
    """Four are named."""
    text = clients_text([GpuClient(pid) for pid in range(1, 8)])
    assert text == "process 1, process 2, process 3, process 4 and 3 more"
    assert clients_text([GpuClient(7, memory_bytes=GIB, sm_ratio=0.0)]) == "process 7 (1.00 GiB)"
