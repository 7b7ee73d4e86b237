"""`loadtrt run` on a real GPU and real plans."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from loadtrt.asked.config import RunConfig
from loadtrt.cuda.runtime import memory_info
from loadtrt.engines.open import open_engine
from loadtrt.engines.toolchain import choose_toolchain
from loadtrt.errors import EngineError
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, run_session
from loadtrt.load.inputs import make_inputs

if TYPE_CHECKING:
    from pathlib import Path


LAUNCHES = ("--requests-per-launch", "4")


def _loadtrt(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "loadtrt", *arguments], capture_output=True, text=True, check=False)


def _run(plan: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = _loadtrt("run", "--engine", str(plan), "--allow-host-code", "--quiet", "--json", "-", *arguments)
    assert done.stderr == "" or done.stderr.startswith("loadtrt: INVALID: "), done.stderr
    run: dict[str, Any] = json.loads(done.stdout)
    (model,) = run["models"].values()
    return done.returncode, {**run, **model}


@pytest.mark.parametrize(
    "mode", [(), ("--no-graph",), ("--wait", "block"), ("--buffers", "1"), ("--buffers", "3"), LAUNCHES]
)
@pytest.mark.parametrize("contexts", ["1", "4"])
def test_outputs_under_load_are_those_of_a_quiet_run(googlenet: Path, contexts: str, mode: tuple[str, ...]) -> None:
    """Whatever the mode, no request reads or overwrites another's buffers."""
    load = ("--batch", "16", "--contexts", contexts, "--requests", "200", "--verify", "--max-lateness", "1s")
    _, result = _run(googlenet, *load, *mode)
    assert result["verification"]["outputs"] >= 20
    assert result["verification"]["different"] == 0
    assert result["ok"] == result["submitted"] >= 200
    assert result["engine"]["mode"]["graph"] == ("no" if mode == ("--no-graph",) else "yes")


@pytest.mark.parametrize("mode", [(), ("--no-graph",), ("--wait", "block")])
def test_requests_of_several_sizes_do_not_disturb_each_other(googlenet: Path, mode: tuple[str, ...]) -> None:
    """Each size by contexts and graphs of its own: outputs under load are those of a quiet run, and parts add up."""
    load = ("--mix", "1:0.5, 4:0.3, 16:0.2", "--contexts", "2", "--requests", "400", "--verify", "--max-lateness", "1s")
    _, result = _run(googlenet, *load, *mode)
    assert result["verification"]["outputs"] >= 20
    assert result["verification"]["different"] == 0
    assert [part["name"] for part in result["mix"]] == ["1", "4", "16"]
    assert sum(part["requests"] for part in result["mix"]) == result["ok"] >= 400
    assert result["engine"]["mode"]["graph"] == ("no" if mode == ("--no-graph",) else "yes")


@pytest.mark.parametrize("mode", [(), ("--no-graph",), LAUNCHES, ("--wait", "block", *LAUNCHES)])
def test_small_requests_are_right_too(tiny: Path, mode: tuple[str, ...]) -> None:
    """Copied within the graph, each input set by a graph of its own: every request gets its own answer."""
    load = ("--contexts", "3", "--buffers", "3", "--requests", "20000", "--verify", "--max-lateness", "1s")
    _, result = _run(tiny, *load, *mode)
    assert result["verification"]["outputs"] >= 20 * 3 * 3  # of each buffer set, however fast the host is
    assert result["verification"]["different"] == 0
    assert result["ok"] == result["submitted"] >= 20000


@pytest.mark.parametrize("contexts", ["1", "4"])
@pytest.mark.parametrize("submit", ["auto", "graph", "apart"])
def test_every_way_of_submitting_is_right(tiny: Path, submit: str, contexts: str) -> None:
    """The result says which way was used and, where both were tried, how fast each was; the faster was kept."""
    load = ("--contexts", contexts, "--requests", "20000", "--verify", "--max-lateness", "1s")
    code, result = _run(tiny, *load, "--submit", submit)
    assert result["verification"]["different"] == 0
    assert result["valid"] == (code == 0)
    # In Python requests may be late on a slow host, and four contexts may starve, as one thread submits for all.
    may_fail = {"starved"} if contexts == "4" else set()
    assert result["engine"]["mode"]["loop"] == "python" or {one["kind"] for one in result["problems"]} <= may_fail
    mode, rates = result["engine"]["mode"], result["engine"]["submit_rates"]
    assert mode["submit"] == submit or submit == "auto"
    assert sorted(rates) == (["apart", "graph"] if submit == "auto" else [])
    if rates:
        other = "apart" if mode["submit"] == "graph" else "graph"
        assert rates[mode["submit"]] * 1.02 >= rates[other] > 0


@pytest.mark.parametrize("contexts", ["1", "4"])
@pytest.mark.parametrize("submit", ["auto", "graph", "apart"])
def test_without_device_times_requests_are_right(tiny: Path, submit: str, contexts: str) -> None:
    """Outputs are those of a quiet run, and completions the GPU's; no time on the device is in the result."""
    load = ("--contexts", contexts, "--submit", submit, "--requests", "20000", "--verify", "--max-lateness", "1s")
    _, result = _run(tiny, *load, "--device-times", "off")
    assert result["verification"]["different"] == 0
    assert result["ok"] == result["submitted"] >= 20000
    assert "compute" not in result["metrics"]
    assert result["overlap"] is None
    assert result["engine"]["mode"]["device times"] == "off"
    sums = {name: histogram["sum_ns"] for name, histogram in result["histograms"].items()}
    assert sums["latency"] == sums["queue"] + sums["service"]
    assert result["metrics"]["service"]["min_ns"] > 0


def test_without_device_times_requests_are_no_slower(tiny: Path) -> None:
    """Throughput counts the same completions, within 10 % of that with times or more."""
    load = ("--contexts", "4", "--requests", "20000", "--max-lateness", "1s")
    best = dict.fromkeys(("on", "off"), 0.0)
    for times in ("on", "off") * 2:  # in turns, as hosts vary
        _, result = _run(tiny, *load, "--device-times", times)
        best[times] = max(best[times], result["throughput"]["requests_per_s"])
    assert best["off"] >= 0.9 * best["on"]


def test_a_run_without_warm_up_says_that_nothing_was_tried(tiny: Path) -> None:
    """The usual way is with copies apart."""
    _, result = _run(tiny, "--requests", "1000", "--warmup", "0", "--max-lateness", "1s")
    assert result["engine"]["mode"]["submit"] == "apart"
    assert result["engine"]["submit_rates"] == {"graph": None, "apart": None}


def test_batches_form_in_front_of_the_lanes(googlenet: Path) -> None:
    """Single requests at 2000/s go in batches of several, and all are served."""
    load = ("--batcher", "max=16,delay=2ms", "--rate", "2000/s", "--duration", "2s", "--contexts", "2", "--verify")
    _, result = _run(googlenet, *load, "--buffers", "1", "--max-lateness", "1s")
    assert result["verification"]["different"] == 0
    assert result["ok"] == sum(int(size) * times for size, times in result["batches"]["counts"].items()) > 3500
    assert result["batches"]["mean"] > 1.5


def test_latency_is_queue_plus_service_and_phases_fit_in(googlenet: Path) -> None:
    """In sums, exactly: latency = queue + service; and h2d + compute + d2h ≤ service in the mean."""
    _, result = _run(googlenet, "--batch", "16", "--contexts", "2", "--rate", "300", "--duration", "3s")
    sums = {name: histogram["sum_ns"] for name, histogram in result["histograms"].items()}
    assert sums["latency"] == sums["queue"] + sums["service"]
    assert sums["h2d"] + sums["compute"] + sums["d2h"] <= sums["service"] * 1.01
    assert result["clock"]["anchors"] >= 2


def test_a_run_gives_back_memory_and_threads(tiny: Path) -> None:
    """Also when it is cancelled while requests are in flight."""
    config = RunConfig.of(engine=str(tiny), allow_host_code=True, contexts=4, warmup=0, wait="block", duration="60s")

    async def cancelled(session: Session) -> None:
        engine = open_engine(config.model)
        inputs = make_inputs(engine.info.tensors, config.model.inputs, config.model.input_sets, {}, config.model.seed)
        try:
            with anyio.move_on_after(0.3):
                await run_session(engine, config, inputs, Stop(), session)
        finally:
            engine.close()

    free = []
    for _ in range(4):
        session = Session()
        anyio.run(cancelled, session)
        assert session.recorder is not None
        assert session.recorder.seen > 100
        free.append(memory_info()[0])
    assert free[1:] == [free[1]] * 3  # the first run makes what the process keeps: the context, loaded kernels
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loadtrt")]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--allow-host-code",), 2, "--batch"),
        (("--allow-host-code", "--batch", "64"), 2, "1..32"),
        (("--allow-host-code", "--shapes", "nothing:1x3x224x224"), 2, "nothing"),
        (("--allow-host-code", "--batch", "16", "--optimization-profile", "3"), 2, "profile"),
        (("--allow-host-code", "--batch", "16", "--device", "99"), 2, "99"),
        (("--batch", "16"), 3, "--allow-host-code"),
        (("--allow-host-code", "--batch", "16", "--module", "tensorrt_rtx"), 2, "tensorrt_rtx"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(
    googlenet: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    """stderr holds one line, with what is wrong and what to do."""
    done = _loadtrt("run", "--engine", str(googlenet), "--requests", "5", *arguments)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sentence in done.stderr


def test_a_truncated_plan_is_told_before_it_is_loaded(googlenet: Path, tmp_path: Path) -> None:
    """Half a file is no plan."""
    half = tmp_path / "half.plan"
    half.write_bytes(googlenet.read_bytes()[: 1 << 20])
    done = _loadtrt("run", "--engine", str(half), "--batch", "16", "--allow-host-code")
    assert done.returncode == 2
    assert "truncated" in done.stderr


def test_a_model_without_a_builder_names_both_ways() -> None:
    """On a GPU a model wants a plan: where no TensorRT here builds one, the CPU never steps in unasked."""
    with suppress(EngineError):
        choose_toolchain(None)
        pytest.skip("a TensorRT here builds plans")
    done = _loadtrt("run", "--engine", "zoo:googlenet", "--fp16")
    assert done.returncode == 3
    assert "loadtrt[tensorrt]" in done.stderr
    assert "--on onnxruntime" in done.stderr


def test_what_limits_a_plan_on_a_full_device(googlenet: Path) -> None:
    """Its own computing, and no remedy that the plan's range (1 to 32) refuses."""
    for batch, larger in (("16", True), ("32", False)):
        _, result = _run(googlenet, "--batch", batch, "--contexts", "4", "--duration", "2s")
        limits = {"compute-bound", "copy-bound", "enqueue-bound", "host-bound", "idle"}
        (found,) = (found for found in result["findings"] if found["kind"] in limits)
        assert found["kind"] == "compute-bound"
        assert result["engine"]["larger_batch"] is larger
        assert ("a larger --batch" in found["remedy"]) is larger


def test_what_limits_a_tiny_plan_is_not_its_batch(tiny: Path) -> None:
    """Which is fixed."""
    _, result = _run(tiny, "--contexts", "1", "--duration", "2s")
    assert result["engine"]["larger_batch"] is False
    assert not any("a larger --batch" in it["remedy"] for it in (*result["findings"], *result["problems"]))
