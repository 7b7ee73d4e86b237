"""The row about a run's GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.panels import chart, query, states
from grafana.promql import over

if TYPE_CHECKING:
    from grafana.panels import Row
    from grafana.promql import Run


def gpu_row(run: Run) -> Row:
    """Clocks, power, what holds them, use, energy, memory and PCIe."""
    joules = over(f"sum({run.rate('gpu_energy_joules_total')})", f"sum({run.rate('inferences_total')})")
    return "GPU, as NVML says (empty without one)", [
        chart(
            "Clocks",
            "SM and memory clock. Where they fall under load, see what holds them.",
            "hertz",
            query(f"max by (domain, device) ({run.now('gpu_clock_hertz')})", "{{domain}} {{device}}"),
            query(f"max by (domain) ({run.now('gpu_clock_max_hertz')})", "{{domain}}, highest"),
            span=6,
        ),
        chart(
            "Power",
            "Drawn, by each GPU, and the limit that the driver enforces.",
            "watt",
            query(f"max by (device) ({run.now('gpu_power_watts')})", "power {{device}}"),
            query(f"max({run.now('gpu_power_limit_watts')})", "limit"),
            span=6,
        ),
        states(
            "What holds the clocks",
            "Reasons that NVML gives. gpu_idle and the settings are normal life; the others take speed away.",
            query(f"max by (reason) ({run.now('gpu_throttle_active')})", "{{reason}}"),
            colour="orange",
            span=6,
        ),
        chart(
            "Utilization",
            "Part of NVML's sample period in which any kernel ran, or memory was used. 100 % is not a full GPU.",
            "percentunit",
            query(f"max by (device) ({run.now('gpu_utilization_ratio')})", "kernels {{device}}"),
            query(f"max({run.now('gpu_memory_utilization_ratio')})", "memory"),
            query(f"max({run.now('gpu_other_kernels_ratio')})", "others' kernels, of the run so far"),
            span=6,
            most=1,
        ),
        chart(
            "Energy an inference",
            "The energy counter over what was served: the whole GPU's, with what idles in it.",
            "joule",
            query(joules, "energy"),
            span=6,
        ),
        chart(
            "Temperature",
            "Of the core.",
            "celsius",
            query(f"max by (device) ({run.now('gpu_temperature_celsius')})", "core {{device}}"),
            span=6,
        ),
        chart(
            "Memory",
            "In use by everyone, with what the driver reserves; and what other processes held, at most.",
            "bytes",
            query(f"max({run.now('gpu_memory_used_bytes')})", "used"),
            query(f"max({run.now('gpu_other_memory_bytes')})", "others'"),
            query(f"max({run.now('gpu_memory_total_bytes')})", "of"),
            span=6,
        ),
        chart(
            "PCIe",
            "rx is to the GPU, tx from it; of everyone who uses it.",
            "Bps",
            query(f"sum by (direction) ({run.rate('gpu_pcie_bytes_total')})", "{{direction}}"),
            span=6,
        ),
    ]
