"""What is found in a GPU's telemetry, and what is not: jitter, idleness and other people's choices are no alarm."""

from __future__ import annotations

import re
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtrt.asked.config import RunConfig
from loadtrt.engines.open import open_engine
from loadtrt.findings.findings import findings_of
from loadtrt.findings.gpu_findings import gpu_findings
from loadtrt.lanes.outcome import result_of
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, run_session
from loadtrt.load.inputs import make_inputs
from loadtrt.report.plain import terminal_text
from loadtrt.results.gpu_telemetry import (
    GpuClient,
    GpuFacts,
    GpuInterval,
    GpuSharing,
    GpuTelemetry,
    SamplingCost,
    slowdowns_of,
    telemetry_of,
)
from loadtrt.units import SECOND_NS
from runs_by_hand import changed

MHZ, GIB = 1_000_000, 2**30
H100 = GpuFacts(
    name="NVIDIA H100 80GB HBM3",
    max_sm_clock_hertz=1980 * MHZ,
    power_limit_watts=700,
    most_power_watts=700,
    slowdown_celsius=87,
)


def second(clock: float | None = 1980, slowed: float | None = None, share: float = 0.0, **fields: Any) -> GpuInterval:
    """A busy second at `clock` MHz, of which `share` at `slowed` MHz by the reasons in `by` (sw_power_cap)."""
    by = fields.pop("by", ("sw_power_cap",))
    hertz = None if clock is None else clock * MHZ
    values: dict[str, Any] = {
        "sm_clock_mean_hertz": hertz,
        "sm_clock_min_hertz": hertz,
        "sm_clock_max_hertz": hertz,
        "sm_clock_throttled_hertz": None if slowed is None else slowed * MHZ,
        "temperature_max_celsius": 60,
        "utilization_mean_ratio": 0.97,
        "throttle_shares": dict.fromkeys(by, share) if share else {},
        "throttled_fraction": share if slowdowns_of(by) else 0.0,
        **fields,
    }
    return GpuInterval(start_ns=0, duration_ns=SECOND_NS, readings=5, **values)


def telemetry(*seconds: GpuInterval, gpu: GpuFacts = H100, **changed: Any) -> GpuTelemetry:
    facts = gpu.model_copy(update=changed)
    cost = SamplingCost(readings=1, lost=0, seconds=0, fraction=0)
    return telemetry_of(facts, seconds, 100, every_ns=SECOND_NS // 5, missing=(), cost=cost)


def evidences(*seconds: GpuInterval, **changed: Any) -> list[str]:
    return [problem.evidence for problem in gpu_findings(telemetry(*seconds, **changed))]


def test_a_power_cap() -> None:
    """The clock's fall, its cause, its share of the run, and a remedy that works here."""
    run = (*[second()] * 43, *[second(1980, 1410, 1.0)] * 7)
    (found,) = gpu_findings(telemetry(*run))
    assert found.evidence == "SM clock fell from 1980 to 1410 MHz: power cap; 14 % of the run"
    assert (
        found.remedy
        == "the power limit is the highest possible: compare engines at locked clocks (nvidia-smi -lgc 1410)"
    )
    (lowered,) = gpu_findings(telemetry(*run, power_limit_watts=400))
    assert lowered.remedy == "raise the power limit of 400 W, to 700 W at most: nvidia-smi -pl 700"


def test_heat_and_power_at_once() -> None:
    """Several causes are one finding, the longest first; heat that slowed the GPU is not a second one."""
    both = second(1980, 1200, 0.4, by=("sw_power_cap",), temperature_max_celsius=88)
    heat = second(1980, 1200, 0.8, by=("sw_thermal_slowdown",), temperature_max_celsius=88)
    (found,) = gpu_findings(telemetry(both, heat))
    assert found.evidence == "SM clock fell from 1980 to 1200 MHz: heat, power cap; 60 % of the run"
    assert found.remedy.startswith("cool the GPU")


def test_a_run_that_never_was_fast() -> None:
    """Held for the whole run there is no fall to see: the clock is compared with the GPU's own top."""
    assert evidences(*[second(1410, 1410, 1.0)] * 10) == [
        "SM clock stayed at 1410 of 1980 MHz: power cap; 100 % of the run"
    ]


def test_hardware_protection_is_always_told() -> None:
    """What the hardware does to protect itself is a finding at any clock; its umbrella bit is not named beside it."""
    brake = second(1980, 1980, 1.0, by=("hw_power_brake_slowdown", "hw_slowdown"))
    (found,) = gpu_findings(telemetry(*[second()] * 9, brake))
    assert found.evidence == "the GPU slowed down: the power supply's brake; 10 % of the run"
    (alone,) = gpu_findings(telemetry(*[second()] * 9, second(1980, 990, 1.0, by=("hw_slowdown",))))
    assert alone.evidence == "SM clock fell from 1980 to 990 MHz: hardware protection; 10 % of the run"


def test_clocks_that_are_not_told() -> None:
    """A slow-down without clocks is found without them, and so is a fall without reasons."""
    dark: dict[str, Any] = {"sm_clock_mean_hertz": None, "sm_clock_min_hertz": None, "sm_clock_max_hertz": None}
    assert evidences(*[second(None, None, 0.4, **dark)] * 5) == [
        "the GPU was slowed down (its clock is not known): power cap; 40 % of the run"
    ]
    untold: dict[str, Any] = {"throttle_shares": None, "throttled_fraction": None}
    found = evidences(*[second(1980, **untold)] * 9, second(1410, **untold))
    assert found == ["SM clock fell from 1980 to 1410 MHz in 10 % of the busy time; the driver gives no reason"]
    assert evidences(*[second(1980, **untold)] * 9, second(1410, utilization_mean_ratio=0.0, **untold)) == []


def test_clocks_far_below_the_top() -> None:
    """A busy GPU that never came near its top, for no named reason: probably locked."""
    (found,) = gpu_findings(telemetry(*[second(1200)] * 10))
    assert found.evidence == "SM clock never passed 1200 of 1980 MHz, and the driver names no reason"
    assert "nvidia-smi -rgc" in found.remedy


def test_heat_to_come() -> None:
    """Within 3 °C of slowing down; silent below it, and where that temperature is unknown."""
    hot = [second(temperature_max_celsius=85)] * 10
    assert evidences(*hot) == ["the GPU reached 85 °C; at 87 °C it slows down"]
    assert evidences(*[second(temperature_max_celsius=83)] * 10) == []
    assert evidences(*hot, slowdown_celsius=None) == []


@given(seconds=st.integers(1, 3600))
def test_what_nvml_may_not_have_seen(seconds: int) -> None:
    """A process that computes for longer stays unseen in that many samples with a probability of 5 % at most."""
    sharing = GpuSharing((GpuClient(7, "python3", GIB, sm_ratio=0.0),))
    (found,) = gpu_findings(telemetry(*[second()] * seconds), sharing)
    (percent,) = re.findall(r"at 5 samples a second.* up to ([0-9.]+) % of the time", found.cause)
    assert 0.035 <= (1 - float(percent) / 100) ** (5 * seconds) <= 0.05


def test_somebody_elses_kernels() -> None:
    """The GPU busy nearly always, this run hardly ever: found only where the run knows its own share, and the driver
    does not tell whose kernels ran."""
    seen, untold = telemetry(*[second()] * 10), GpuSharing(told=False, unknown=("whose kernels run",))
    (found,) = gpu_findings(seen, untold, 0.05)
    assert found.evidence == "kernels ran on the GPU 97 % of the time, this run's 5 %"
    assert found.cause == "another process seems to compute on the GPU; NVML does not tell whose kernels run"
    assert gpu_findings(seen, untold, 0.5) == gpu_findings(seen, untold) == gpu_findings(seen, GpuSharing(), 0.05) == ()
    assert gpu_findings(telemetry(second(), second()), untold, 0.05) == ()  # NVML still shows what was before


def test_others_on_the_gpu() -> None:
    """One that holds memory is told of, with what is known of it; one that computed is a problem, unless accepted."""
    holds, computes = GpuClient(7, "python3", GIB, sm_ratio=0.0), GpuClient(8, None, GIB, sm_ratio=0.48)
    (found,) = gpu_findings(None, GpuSharing((computes, holds)))
    assert (found.kind, found.evidence) == (
        "gpu-shared",
        "other processes were on this GPU: python3 (process 7, 1.00 GiB)",
    )
    assert found.cause.startswith("they hold memory, and NVML shows no kernel of theirs")
    little = GpuClient(9, "Xorg", GIB, sm_ratio=0.004)
    (found,) = gpu_findings(None, GpuSharing((little, holds)))
    assert found.evidence.endswith(
        "Xorg (process 9, 1.00 GiB, kernels for 0.4 % of the time), python3 (process 7, 1.00 GiB)"
    )
    assert found.cause == "they computed for less than 0.5 % of the time, in samples by NVML"
    (found,) = gpu_findings(None, GpuSharing((computes, holds)), accepted=True)
    assert "process 8 (1.00 GiB, kernels for 48 % of the time), python3" in found.evidence
    assert "--shared-gpu" in found.cause
    (found,) = gpu_findings(None, GpuSharing((GpuClient(7),), None, False, ("whose kernels run",)))
    assert found.cause == "whether they computed is not known: NVML does not tell whose kernels run"
    (found,) = gpu_findings(None, GpuSharing((holds,), own_sm_ratio=0.9), 0.05)
    assert found.cause.endswith("as this run's, which computed for 5 %: one of them seems to have computed")
    assert gpu_findings(None, GpuSharing(own_sm_ratio=0.9), 0.05) == ()
    assert gpu_findings(None, GpuSharing((computes,))) == gpu_findings(None, GpuSharing()) == ()


@given(
    st.lists(st.integers(1950, 1980), min_size=1, max_size=60),
    st.sampled_from([(), ("gpu_idle",), ("applications_clocks_setting",), ("sync_boost",), ("reason_0x800",)]),
    st.floats(0.0, 1.0),
)
def test_no_alarm_without_cause(clocks: list[int], by: tuple[str, ...], share: float) -> None:
    """Two steps of 15 MHz of jitter, idleness, chosen clocks, unknown reasons: no finding."""
    assert evidences(*(second(clock, share=share, by=by) for clock in clocks)) == []


@pytest.mark.parametrize(
    "seconds",
    [
        [second()] * 99 + [second(1980, 1905, 0.2)],  # one look of 500
        [second(), second(1980, 1200, 0.2)],  # one look of ten: a flicker, though 10 %
        [second(1980, 1965, 1.0)] * 60,  # power cap all the time, and one step of the clock lost
        [second(345, utilization_mean_ratio=0.0, by=("gpu_idle",), share=1.0)] * 10,
        [second(345, utilization_mean_ratio=0.02)] * 10,
        [second(1200, by=("applications_clocks_setting",), share=1.0)] * 10,
        [second(1850)] * 10,  # boards whose top is only in their table
        [second(1200, utilization_mean_ratio=None)] * 10,
        [],
    ],
)
def test_borders(seconds: list[GpuInterval]) -> None:
    """Just within what is normal."""
    assert evidences(*seconds) == []


def test_in_the_summary() -> None:
    """Power, energy and the slowed-down share in one line, findings after the verdict, which they do not change."""
    config = RunConfig.of(engine="simulated:null", requests=50, warmup="0s")
    engine, session = open_engine(config.model), Session()
    inputs = make_inputs(
        engine.info.tensors, config.model.inputs, config.model.input_sets, config.model.input_range, config.model.seed
    )
    bill = engine.memory(inputs)
    anyio.run(run_session, engine, config, inputs, Stop(), session)
    plain = result_of(session, engine, config, bill, run="", load_ns=0, started="", command=(), environment={})
    engine.close()
    assert "GPU" not in terminal_text(plain)

    seen = telemetry(*[second(energy_joules=600)] * 9, second(1980, 1410, 1.0, energy_joules=700))
    seen = seen.model_copy(update={"missing": ("PCIe traffic",)})
    result = plain.model_copy(update={"telemetry": seen})
    result = changed(result, findings=findings_of(result))
    text = terminal_text(result)
    assert "GPU 610 W · 6 100 J · 61.0 J per inference · slowed down 10 % of the time\n" in text
    assert "GPU does not report: PCIe traffic\n" in text
    verdict, _, findings = text.partition("VALID\n")
    assert not verdict.endswith("IN")
    assert findings.startswith(
        "! throttled: SM clock fell from 1980 to 1410 MHz: power cap; 10 % of the run\n    → the power limit"
    )
    assert result.model_validate_json(result.model_dump_json()) == result
