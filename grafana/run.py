"""The dashboard of one run, live or past."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.panels import chart, heat_map, new_dashboard, number, query, query_variable, states, with_rows
from grafana.promql import Run, over

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders import dashboard as dashboard_builders

    from grafana.panels import Row

RUN = Run('model="$model",run="$run"')
PERCENTILES = {"0.5": "p50", "0.9": "p90", "0.99": "p99", "0.999": "p99.9", "1|1.0": "max"}  # Prometheus 3 makes 1 1.0
PARTS = {"queue": "queue", "h2d": "copy in", "compute": "compute", "d2h": "copy out"}
GENERATOR = {0.5: "p50", 0.99: "p99", 0.999: "p99.9"}


def run_dashboard() -> dashboard_builders.Dashboard:
    """Rows in the order in which one asks: how much, how late, why, by whom, on what, is it true, is it enough."""
    built = new_dashboard(
        "loadtrt-run",
        "loadtrt: a run",
        "One load test, while it goes on or after it. Made by grafana/build.py: edit that.",
        "now-15m",
        query_variable("model", "model", "label_values(loadtrt_run_info, model)"),
        query_variable("run", "run", 'label_values(loadtrt_run_info{model="$model"}, run)'),
    )
    rows = (_glance(), _throughput(), _latency(), _parts(), _lanes(), _gpu(), _generator(), _objectives())
    return with_rows(built, rows)


def _glance() -> Row:
    good = over(f"sum({RUN.now('objective_good_total')})", f"sum({RUN.now('objective_requests_total')})")
    lost = f"""sum({RUN.now("requests_total", 'outcome!="ok"')})"""
    p99 = f"""max({RUN.now("latency_window_seconds", 'quantile="0.99"')})"""
    return "At a glance", [
        number(
            "Throughput",
            "Items of the batches that were served, a second.",
            "suffix: inferences/s",
            query(f"sum({RUN.rate('inferences_total')})", "inferences"),
        ),
        number("Latency p99", "Of the last whole second, within 0.4 %.", "s", query(p99, "p99")),
        number(
            "Good requests",
            "Part of all requests so far that kept their objective's bound; of several objectives, together.",
            "percentunit",
            query(good, "good"),
        ),
        number("Not served", "Requests so far that failed or were given up.", "short", query(lost, "not served")),
        number(
            "In flight",
            "Requests sent and not completed.",
            "short",
            query(f"max({RUN.now('in_flight')})", "in flight"),
        ),
        number(
            "Lateness p99",
            "What loadtrt itself added to requests, from buckets: 10 to 20 % off.",
            "s",
            query(RUN.quantile("lateness", 0.99), "lateness"),
        ),
    ]


def _throughput() -> Row:
    return "Throughput and offered rate", [
        chart(
            "Requests",
            "Requests that ended, by outcome, and the rate offered. Served below offered for long: the queue grows "
            "without end. A closed loop offers no rate.",
            "reqps",
            query(f"sum by (outcome) ({RUN.rate('requests_total')})", "{{outcome}}"),
            query(f"max({RUN.now('offered_requests_per_second')})", "offered"),
        ),
        chart(
            "Inferences",
            "Items of the batches that were served: requests times batch.",
            "suffix: inferences/s",
            query(f"sum({RUN.rate('inferences_total')})", "inferences"),
        ),
        chart(
            "In flight and waiting",
            "Requests sent and not completed; requests that are due and find no free buffer set.",
            "short",
            query(f"max({RUN.now('in_flight')})", "in flight"),
            query(f"max({RUN.now('waiting')})", "waiting"),
        ),
        states(
            "Phase",
            "What the run is doing. Counts and latencies are of the phase measure alone.",
            query(f"max by (phase) ({RUN.now('phase')})", "{{phase}}"),
            colour="blue",
        ),
    ]


def _latency() -> Row:
    bound = RUN.now("objective_bound_seconds", 'objective=~"latency.*"')
    matchers = {name: f'quantile=~"{rank}"' for rank, name in PERCENTILES.items()}
    exact = [query(f"max({RUN.now('latency_window_seconds', which)})", name) for name, which in matchers.items()]
    return "Latency: from the instant a request was due to its completion", [
        heat_map(
            "Latency of every request",
            "How many requests a second took how long: a second mode, drift and stalls show here first. Ten buckets a "
            "decade.",
            "s",
            query(f"sum by (le) ({RUN.rate('latency_seconds_bucket')})", "{{le}}"),
        ),
        chart(
            "Latency percentiles",
            "Of each whole second, within 0.4 %, the maximum exactly; objectives on latency dashed. p99.9 of fewer "
            "than 1000 requests is their maximum.",
            "s",
            *exact,
            query(f"max by (objective) ({bound})", "objective {{objective}}"),
            log=True,
        ),
    ]


def _parts() -> Row:
    rest = f"clamp_min(({RUN.mean('service')}) - ({RUN.mean('device')}), 0)"
    tails = {**PARTS, "enqueue": "enqueue"}
    return "Where the time goes", [
        chart(
            "Mean latency in its parts",
            "Queue (no buffer set was free), copies, compute, and the rest of service: waiting between a lane's "
            "streams, and until completion is noticed. Together they are the mean latency.",
            "s",
            *(query(RUN.mean(part), name) for part, name in PARTS.items()),
            query(rest, "rest of service"),
            stacked=True,
        ),
        chart(
            "p99 of each part",
            "From buckets: 10 to 20 % off where a part hardly varies, and no time at all shows as just below 1 µs. "
            "Enqueue, the host's time to submit a request, overlaps the others. p99s of parts do not add up.",
            "s",
            *(query(RUN.quantile(part, 0.99), name) for part, name in tails.items()),
            log=True,
        ),
    ]


def _lanes() -> Row:
    computed = f"sum by (lane) ({RUN.rate('lane_compute_seconds_total')})"
    served = f"""sum by (lane) ({RUN.rate("requests_total", 'outcome="ok"')})"""
    return "Lanes: one execution context each", [
        chart(
            "Requests by lane",
            "Lanes that differ for long are not treated alike.",
            "reqps",
            query(served, "lane {{lane}}"),
            span=8,
        ),
        chart(
            "Compute by lane",
            "Mean compute time of a request. It grows with the number of lanes where they share the GPU.",
            "s",
            query(over(computed, served), "lane {{lane}}"),
            span=8,
        ),
        chart(
            "Lanes at work",
            "Lanes that have a request in flight, of all lanes; and how many compute at once on the mean: fewer than "
            "are busy where copies or the host hold them up.",
            "short",
            query(f"max({RUN.now('busy_lanes')})", "busy"),
            query(f"max({RUN.now('lanes')})", "lanes"),
            query(f"sum({computed})", "computing"),
            span=8,
        ),
    ]


def _gpu() -> Row:
    joules = over(f"sum({RUN.rate('gpu_energy_joules_total')})", f"sum({RUN.rate('inferences_total')})")
    return "GPU, as NVML says (empty without one)", [
        chart(
            "Clocks",
            "SM and memory clock. Where they fall under load, see what holds them.",
            "hertz",
            query(f"max by (domain) ({RUN.now('gpu_clock_hertz')})", "{{domain}}"),
            query(f"max by (domain) ({RUN.now('gpu_clock_max_hertz')})", "{{domain}}, highest"),
            span=6,
        ),
        chart(
            "Power",
            "Drawn, and the limit that the driver enforces.",
            "watt",
            query(f"max({RUN.now('gpu_power_watts')})", "power"),
            query(f"max({RUN.now('gpu_power_limit_watts')})", "limit"),
            span=6,
        ),
        states(
            "What holds the clocks",
            "Reasons that NVML gives. gpu_idle and the settings are normal life; the others take speed away.",
            query(f"max by (reason) ({RUN.now('gpu_throttle_active')})", "{{reason}}"),
            colour="orange",
            span=6,
        ),
        chart(
            "Utilization",
            "Part of NVML's sample period in which any kernel ran, or memory was used. 100 % is not a full GPU.",
            "percentunit",
            query(f"max({RUN.now('gpu_utilization_ratio')})", "kernels"),
            query(f"max({RUN.now('gpu_memory_utilization_ratio')})", "memory"),
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
            query(f"max({RUN.now('gpu_temperature_celsius')})", "core"),
            span=6,
        ),
        chart(
            "Memory",
            "In use by everyone, with what the driver reserves.",
            "bytes",
            query(f"max({RUN.now('gpu_memory_used_bytes')})", "used"),
            query(f"max({RUN.now('gpu_memory_total_bytes')})", "of"),
            span=6,
        ),
        chart(
            "PCIe",
            "rx is to the GPU, tx from it; of everyone who uses it.",
            "Bps",
            query(f"sum by (direction) ({RUN.rate('gpu_pcie_bytes_total')})", "{{direction}}"),
            span=6,
        ),
    ]


def _generator() -> Row:
    ratio = "clamp_min(histogram_quantile({}, sum by (le) ({})), 1)"  # the lowest bucket counts from 0
    ratios = RUN.rate("load_ratio_bucket")
    return "Is it true: the generator, seen by itself", [
        chart(
            "Lateness",
            "Delay that loadtrt itself added: submitted − max(due, a buffer set was free). Where it is a tenth of the "
            "latency, the latency is no longer the engine's. From buckets.",
            "s",
            *(query(RUN.quantile("lateness", rank), name) for rank, name in GENERATOR.items()),
            span=6,
            log=True,
        ),
        chart(
            "Age of these numbers",
            "Since the measuring process last wrote what is shown: about a second while it drains once a second. "
            "Growing: it hangs, or has ended.",
            "s",
            query(f"max({RUN.now('snapshot_age_seconds')})", "age"),
            span=6,
        ),
        chart(
            "Load ratio",
            "Latency over compute of served requests, which TensorRT Laboratory scaled by: 1 is no waiting at all, 2 "
            "is as much waiting as work. Quantiles are from buckets.",
            "short",
            query(over(f"sum({RUN.rate('load_ratio_sum')})", f"sum({RUN.rate('load_ratio_count')})"), "mean"),
            *(query(ratio.format(rank, ratios), name) for rank, name in ((0.5, "p50"), (0.99, "p99"))),
            span=6,
        ),
        chart(
            "Cost of watching",
            "Part of a core that the observer process takes; it is none that measures.",
            "percentunit",
            query(f"sum({RUN.rate('observer_cpu_seconds_total')})", "observer"),
            span=6,
        ),
    ]


def _objectives() -> Row:
    good, asked = RUN.rate("objective_good_total"), RUN.rate("objective_requests_total")
    target = f"max by (objective) ({RUN.now('objective_target_ratio')})"
    bad_now = f"1 - {over(f'sum by (objective) ({good})', f'sum by (objective) ({asked})')}"
    good_all, asked_all = RUN.now("objective_good_total"), RUN.now("objective_requests_total")
    good_so_far = over(f"sum by (objective) ({good_all})", f"sum by (objective) ({asked_all})")
    return "Is it enough: objectives", [
        chart(
            "Good requests",
            "Part of all requests so far within the objective's bound, and what the objective asks for (dashed).",
            "percentunit",
            query(good_so_far, "{{objective}}"),
            query(target, "objective {{objective}}"),
            most=1,
        ),
        chart(
            "Burn rate",
            "Bad requests over those that the objective allows: above 1 it is missed if this goes on; an objective on "
            "max allows none. Now: of the last seconds; so far: of the whole run.",
            "short",
            query(f"({bad_now}) / on (objective) (1 - {target})", "{{objective}}, now"),
            query(f"(1 - {good_so_far}) / on (objective) (1 - {target})", "{{objective}}, so far"),
        ),
    ]
