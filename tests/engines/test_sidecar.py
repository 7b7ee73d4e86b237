"""What a run keeps of the build of its plan, by the file beside it. TensorRT is a fake here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter

from loadtrt.asked.config import RunConfig
from loadtrt.cuda.runtime import DeviceProperties
from loadtrt.engines.plan import Sidecar, SidecarTensor, read_sidecar, sha256, sidecar_of
from loadtrt.engines.plan_engine import load_tensorrt
from loadtrt.errors import UsageError
from loadtrt.results.engine_info import EngineInfo
from tensorrt_bench import Bench, bench_of, write_plan

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT = {
    "model": "googlenet.onnx",
    "model_sha256": "1" * 64,
    "options": {"fp16": True, "profiles": [{"data": [[1, 3], [8, 3], [16, 3]]}]},
    "precision": "the builder may use FP16",
    "flavour": "tensorrt",
    "flavour_version": "8.6.1",
    "gpu": "Fake H100, compute capability 9.0",
    "build_ns": 31_000_000_000,
}


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a sidecar beside a plan, which it belongs to but for `changed`; a fake GPU for engines."""
    gpu = DeviceProperties(0, "Fake H100", (9, 0), 132, 80 << 30, "0")
    monkeypatch.setattr("loadtrt.engines.plan_engine.device_properties", lambda _: gpu)

    def write(plan: Path, **changed: Any) -> Path:
        of_plan = {"plan_sha256": sha256(plan), "plan_bytes": plan.stat().st_size}
        tensors = (SidecarTensor(name="data", input=True, dtype="fp32", shape=(-1, 3, 224, 224)),)
        facts: dict[str, Any] = {**KEPT, **of_plan, "loadtrt_version": "0.1.0", "targets": (), "tensors": tensors}
        sidecar_of(plan).write_text(Sidecar.model_validate({**facts, **changed}).model_dump_json())
        return sidecar_of(plan)

    return write


def _info(bench: Bench, **options: Any) -> EngineInfo:
    given = {"engine": bench.path, "allow_host_code": True, "batch": 1, **options}
    engine = load_tensorrt(RunConfig.of(**given).model)
    engine.close()
    return engine.info


def test_a_run_says_what_its_plan_was_made_of(bench: Bench, beside: Callable[..., Path]) -> None:
    """Law: in every flavour, and it comes back from JSON as it went in; without a sidecar there is nothing, and no
    note either."""
    assert (_info(bench).build, _info(bench).notes) == (None, ())
    beside(Path(bench.path))
    info = _info(bench)
    assert info.build == KEPT
    assert info.notes == ()
    schema = TypeAdapter(EngineInfo)
    assert schema.validate_json(schema.dump_json(info)) == info


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("{", "is not the sidecar of a build"), ('{"schema_version": 2}', "schema_version"), (None, "another plan")],
)
def test_a_sidecar_that_does_not_fit_is_a_note(
    text: str | None, sentence: str, beside: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Law: broken, of a later loadtrt or another plan's: the run goes on without it, and says so."""
    bench = bench_of("10", monkeypatch, tmp_path)
    file = beside(Path(bench.path), plan_sha256="0" * 64)
    if text is not None:
        file.write_text(text)
    info = _info(bench)
    assert info.build is None
    (note,) = info.notes
    assert note.startswith("what the plan was built from is not known: ")
    assert sentence in note


@pytest.mark.parametrize("wrong", ["true", '"12"'])
def test_true_and_text_are_no_numbers(wrong: str, beside: Callable[..., Path], tmp_path: Path) -> None:
    """As in results."""
    plan = Path(write_plan(tmp_path / "p.plan"))
    file = beside(plan)
    assert read_sidecar(plan) is not None
    file.write_text(file.read_text().replace('"build_ns":31000000000', f'"build_ns":{wrong}'))
    with pytest.raises(UsageError, match=rf"^{file} is not the sidecar of a build: build_ns: .* is not a whole number"):
        read_sidecar(plan)


def test_what_no_inspector_tells_the_build_may(
    flavour: str, bench: Bench, beside: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: a verdict on --fp16 that TensorRT cannot give is followed by what was asked of the build; one that it gives
    stands alone."""
    outputs = [{"Format/Datatype": "Row major linear FP16"}]
    layer = {"Name": "l", "LayerType": "conv", "Inputs": [], "Outputs": outputs, "TacticName": "t"}
    bench.world.layers = {"Layers": [layer]}
    beside(Path(bench.path))
    verdict = _info(bench, fp16=True).precision
    if flavour in ("lean", "dispatch"):
        assert verdict.endswith("has no engine inspector; its build: the builder may use FP16")
        beside(Path(bench.path), precision="")
        assert _info(bench, fp16=True).precision.endswith("has no engine inspector")
    else:
        assert verdict == "confirmed: 1 of 1 layers compute in FP16"


def test_a_run_json_from_before_there_were_sidecars_loads() -> None:
    """Law: what is not there is None."""
    old = {
        "kind": "tensorrt",
        "name": "a.plan",
        "flavour": "tensorrt",
        "version": "10.16.1.11",
        "device": "H100",
        "sha256": "0" * 64,
        "batch": 1,
        "tensors": [],
        "precision": "",
        "mode": {},
        "notes": [],
    }
    assert TypeAdapter(EngineInfo).validate_json(json.dumps(old)).build is None
