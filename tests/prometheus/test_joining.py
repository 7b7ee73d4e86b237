"""The queries of docs/live.md that join runs with dcgm-exporter's series, evaluated by the real promtool."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from exported import FACTS, READING, recorded, some_requests, view
from loadtrt.live.metrics import families
from prometheus import promtool

DOCS = Path(__file__).parents[2] / "docs" / "live.md"
UUID, OTHER = FACTS.uuid, "GPU-00000000-0000-0000-0000-000000000000"
# As dcgm-exporter 4 labels its series, of two GPUs.
DCGM = [
    (f'gpu="{number}",UUID="{uuid}",pci_bus_id="00000000:0{number}:00.0",device="nvidia{number}",'
     f'modelName="NVIDIA H200",Hostname="gpu-7"', watts)
    for number, (uuid, watts) in enumerate([(OTHER, 100), (UUID, 300)])
]  # fmt: skip


def _queries() -> list[str]:
    found = re.findall(r"^    (.*DCGM_.*)$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return found


def _series() -> list[dict[str, str]]:
    """What loadtrt exports of two runs at once on the second GPU, and what dcgm-exporter has."""
    series = []
    for run in ("run-1", "run-2"):
        for metric in families(view(recorded(some_requests(10))[0])):
            for sample in metric.samples:
                labels = {**sample.labels, "run": run, "job": "loadtrt", "instance": "gpu-7:18410"}
                named = ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items())
                series.append({"series": f"{sample.name}{{{named}}}", "values": f"{sample.value:.6f}+0x2"})
    for gpu, watts in DCGM:
        at = 'instance="gpu-7:9400",job="dcgm"'
        series += [
            {"series": f"DCGM_FI_DEV_POWER_USAGE{{{gpu},{at}}}", "values": f"{watts}+0x2"},
            {"series": f"DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{{{gpu},{at}}}", "values": "0.25+0x2"},
        ]
    return series


@pytest.mark.parametrize("place", range(3))
def test_runs_join_with_dcgm_exporter(place: int, tmp_path: Path) -> None:
    """Each query has one series for each run, of the right GPU, with the labels that the docs say it has."""
    wanted = [
        ('{modelName="NVIDIA H200",run="%s",team="search"}', 300.0),
        ('{run="%s"}', READING.power_watts - 300.0 if READING.power_watts else 0.0),
        ('{run="%s"}', 0.25),
    ]
    labels, value = wanted[place]
    query = _queries()[place]
    test = {
        "rule_files": [],
        "evaluation_interval": "1s",
        "tests": [
            {
                "interval": "1s",
                "input_series": _series(),
                "promql_expr_test": [
                    {
                        "expr": query,
                        "eval_time": "1s",
                        "exp_samples": [{"labels": labels % run, "value": value} for run in ("run-1", "run-2")],
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.json").write_text(json.dumps(test))  # JSON is YAML
    promtool("test", "rules", tmp_path / "test.json")


def test_all_queries_of_the_docs_are_tested() -> None:
    assert len(_queries()) == 3
