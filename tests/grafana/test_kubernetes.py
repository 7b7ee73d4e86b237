"""The manifests in configs/kubernetes: of the resources' schemas, and of one piece. There is no cluster here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from downloads import UnavailableError, node_modules
from loadtrt.asked.reading import load_config
from loadtrt.units import parse_address, parse_duration

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "kubernetes"
DOCUMENT = (ROOT / "docs" / "kubernetes.md").read_text()
MODULES = {  # of a resource's kind
    "ConfigMap": "kubernetes-models/v1/ConfigMap",
    "PersistentVolumeClaim": "kubernetes-models/v1/PersistentVolumeClaim",
    "Job": "kubernetes-models/batch/v1/Job",
    "PodMonitor": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor",
    "PrometheusRule": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule",
}


def _manifests() -> dict[str, dict[str, Any]]:
    """All of the folder, by kind."""
    found = [document for file in sorted(FOLDER.iterdir()) for document in yaml.safe_load_all(file.read_text())]
    kinds = [document["kind"] for document in found]
    assert len(set(kinds)) == len(kinds)
    return dict(zip(kinds, found, strict=True))


def _rule() -> dict[str, Any]:
    """What the command in the document makes of the rules."""
    command = re.search(r"^ +(\{ printf .*?; \}) \| kubectl apply -f -$", DOCUMENT, re.DOTALL | re.MULTILINE)
    assert command is not None
    done = subprocess.run(["bash", "-c", command[1]], cwd=ROOT, capture_output=True, check=True, timeout=60)
    manifest: dict[str, Any] = yaml.safe_load(done.stdout)
    return manifest


def test_manifests_are_of_the_schemas(tmp_path: Path) -> None:
    """tsc finds names that there are not, and node values that are none: both refuse what is made wrong."""
    try:
        modules, tsc = node_modules("kubernetes"), node_modules("schema") / ".bin" / "tsc"
    except UnavailableError as error:
        pytest.skip(f"manifests are not checked against Kubernetes' schemas: {error}")
    node = shutil.which("node")
    assert node is not None  # npm came with it
    manifests = [*_manifests().values(), _rule()]
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    types, values = [], []
    for kind, module in MODULES.items():
        types.append(f"import type {{ I{kind} }} from '{module}';")
        values.append(f"import {{ {kind} }} from '{module}';")
    for number, manifest in enumerate(manifests):
        types.append(f"export const manifest{number}: I{manifest['kind']} = {json.dumps(manifest)};")
        values.append(f"new {manifest['kind']}({json.dumps(manifest)}).validate();")
    head = "apiVersion: 'monitoring.coreos.com/v1', kind: 'PodMonitor'"
    misspelt = f"{{ {head}, spec: {{ selector: {{}}, podMetricsEndpoint: [] }} }}"
    types += ["// @ts-expect-error", f"export const misspelt: IPodMonitor = {misspelt};"]
    wrong = f"{{ {head}, spec: {{ selector: {{}}, podMetricsEndpoints: [{{ interval: '1 second' }}] }} }}"
    values += [f"let taken = true; try {{ new PodMonitor({wrong}).validate() }} catch {{ taken = false }}"]
    values += ["if (taken) throw new Error('an interval of 1 second was taken')"]
    (tmp_path / "manifests.ts").write_text("\n".join(types))
    (tmp_path / "manifests.js").write_text("\n".join(values))
    flags = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"]
    for command in ([str(tsc), *flags, "manifests.ts"], [node, "manifests.js"]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_pod_runs_what_loadtrt_takes(tmp_path: Path) -> None:
    """The ConfigMap holds a configuration, and every file and port that it names is the pod's."""
    manifests = _manifests()
    pod = manifests["Job"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounts.keys() == volumes.keys()
    assert volumes["config"]["configMap"]["name"] == manifests["ConfigMap"]["metadata"]["name"]
    assert (
        volumes["results"]["persistentVolumeClaim"]["claimName"]
        == (manifests["PersistentVolumeClaim"]["metadata"]["name"])
    )
    (name, text), *others = manifests["ConfigMap"]["data"].items()
    assert not others
    assert container["command"] == ["loadtrt", "run", "--config", f"{mounts['config']}/{name}"]
    (tmp_path / name).write_text(text)
    config = load_config(tmp_path / name, {})
    assert str(config.json_file).startswith(f"{mounts['results']}/")
    assert config.metrics is not None
    (port,) = container["ports"]
    assert parse_address(config.metrics) == ("0.0.0.0", port["containerPort"])  # noqa: S104  # as the pod must serve
    assert container["resources"]["requests"]["cpu"] == container["resources"]["limits"]["cpu"]
    assert container["resources"]["requests"]["cpu"].isdigit()


def test_prometheus_finds_the_pod_and_its_last_numbers() -> None:
    """By label and port; it scrapes twice at least after the run is over."""
    manifests = _manifests()
    job, monitor = manifests["Job"]["spec"]["template"], manifests["PodMonitor"]["spec"]
    labels = job["metadata"]["labels"]
    assert labels.items() >= monitor["selector"]["matchLabels"].items()
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] == job["spec"]["containers"][0]["ports"][0]["name"]
    options = yaml.safe_load(next(iter(manifests["ConfigMap"]["data"].values())))
    assert parse_duration(options["metrics_linger"]) >= 2 * parse_duration(endpoint["interval"])
    assert parse_duration(endpoint["scrapeTimeout"]) < parse_duration(endpoint["interval"])
    shipped = yaml.safe_load((ROOT / "grafana" / "prometheus" / "prometheus.yml").read_text())["global"]
    assert (endpoint["interval"], endpoint["scrapeTimeout"]) == (shipped["scrape_interval"], shipped["scrape_timeout"])
