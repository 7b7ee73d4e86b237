"""A plan's header, and the choice of a TensorRT for it, from the file alone."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import struct
import sys
from typing import TYPE_CHECKING

import pytest

from fake_tensorrt import World, make
from loadtrt.engines.flavour import FLAVOURS, choose_flavour, find_flavours, refusal_of
from loadtrt.engines.plan import looks_like_plan, read_header
from loadtrt.errors import EngineError, UsageError
from tensorrt_bench import install, plan_bytes, write_plan

if TYPE_CHECKING:
    from pathlib import Path


def test_header_of_a_tensorrt_plan(tmp_path: Path) -> None:
    """Law: family, version, size and digest are the file's; without a LEAN section there is no host code."""
    path = tmp_path / "any.name"
    write_plan(path, version=(8, 6, 1, 6))
    header = read_header(path)
    assert (header.family, header.version, header.built_by) == ("tensorrt", (8, 6, 1, 6), "TensorRT 8.6.1.6")
    assert header.size_bytes == header.engine_bytes == path.stat().st_size
    assert not header.carries_host_code
    assert header.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert looks_like_plan(path)


def test_a_section_tagged_lean_is_host_code(tmp_path: Path) -> None:
    """Law: the LEAN section's size is the host code's, and the engine is the rest (seen on 8.6 plans: NAEL at 32)."""
    header = read_header(write_plan(tmp_path / "p", host_code=True))
    assert header.carries_host_code
    assert header.host_code_bytes == 100
    assert header.engine_bytes == header.size_bytes - 100


@pytest.mark.parametrize(
    ("mask", "targets"), [(0x14, ("8.6", "12.0")), (0x7E, ()), (0x01, ("7.5",)), (0x20, ("12.1",))]
)
def test_header_of_an_rtx_plan(tmp_path: Path, mask: int, targets: tuple[str, ...]) -> None:
    """Law: an RTX plan's mask names its GPUs; the mask of an unrestricted build names none."""
    header = read_header(write_plan(tmp_path / "p", version=(1, 7, 1, 116), magic=b"vtrt", targets=mask))
    assert (header.family, header.built_by) == ("rtx", "TensorRT-RTX 1.7.1.116")
    assert header.compute_capabilities == targets


ONNX = b"\x08\x09\x12\x07pytorch\x1a\x031.0:\x10" + bytes(64)
LFS = b"version https://git-lfs.github.com/spec/v1\n"
ULTRALYTICS = struct.pack("<I", 13) + b'{"stride": 3}' + plan_bytes()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (plan_bytes()[:20], "is cut short: it has 20 bytes"),
        (plan_bytes()[:-1], "is cut short: its header says"),
        (plan_bytes() + b"more", "has 4 bytes after its end"),
        (plan_bytes(serialization=3), "serialization version 3"),
        (plan_bytes(magic=b"ptrt"), "older than 8.6"),
        (ONNX, "it is an ONNX model"),
        (ULTRALYTICS, "begins with 17 bytes of metadata.*tail -c [+]18"),
        (b"PK\x03\x04" + bytes(32), "zip archive, such as TorchScript"),
        (b"\x80\x02}q\x00.", "it is a Python pickle"),
        (b"\xfd7zXZ\x00" + bytes(16), "compressed \\(xz\\); unpack it first with `xz -d`"),
        (b"\x1f\x8b\x08" + bytes(16), "`gunzip`"),
        (LFS, "git lfs pull"),
        (b"\x20\0\0\0TFL3" + bytes(16), "TensorFlow Lite"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (struct.pack("<Q", 20) + b'{"__metadata__": {}}', "safetensors"),
        (b"hello, this is no plan\n", "is a text file"),
        (bytes(40), "begins with b'.*x00', not with 'ftrt'"),
        (b"f", "is not a TensorRT plan"),
        (b"\x08", "is not a TensorRT plan"),
        (b"\x80", "is not a TensorRT plan"),
    ],
)
def test_files_that_are_no_whole_plan(tmp_path: Path, data: bytes, words: str) -> None:
    """Law: each kind of bad file has a sentence of its own that names the file, what it is and what to do."""
    path = tmp_path / "model.plan"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=words) as error:
        read_header(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["net.prototxt", "w.caffemodel"])
def test_files_of_caffe_are_to_be_built(tmp_path: Path, name: str) -> None:
    """By their names, as nothing else says so; a pointer in their place is still one."""
    path = tmp_path / name
    for data, words in (
        (b"layer { }", "a file of Caffe; build a plan with `loadtrt build --deploy"),
        (LFS, "git lfs pull"),
    ):
        path.write_bytes(data)
        with pytest.raises(UsageError, match=words):
            read_header(path)


@pytest.mark.parametrize("head", [4, 31, 63])
@pytest.mark.parametrize("magic", [b"ftrt", b"vtrt"])
def test_no_length_crashes_the_reader(tmp_path: Path, head: int, magic: bytes) -> None:
    """Law: a file cut anywhere is a UsageError."""
    path = tmp_path / "model.plan"
    path.write_bytes(plan_bytes(magic=magic)[:head])
    with pytest.raises(UsageError, match="cut short"):
        read_header(path)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    """Law: missing files, directories, pipes and impossible names are UsageErrors, and none of them blocks."""
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path / "none", "cannot read plan"),
        (tmp_path, "Is a directory"),
        (tmp_path / "pipe", "is not a regular file"),
        ("a\0b", "cannot read plan"),
    ):
        with pytest.raises(UsageError, match=words):
            read_header(path)
        assert not looks_like_plan(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_files_that_may_not_be_read(tmp_path: Path) -> None:
    """Law: a file without read permission is a UsageError with the system's reason."""
    path = tmp_path / "p"
    write_plan(path)
    path.chmod(0)
    with pytest.raises(UsageError, match="Permission denied"):
        read_header(path)


def _add(monkeypatch: pytest.MonkeyPatch, version: str, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, make(version, name, World()))


@pytest.mark.parametrize(
    ("installed", "plan", "chosen"),
    [
        ({"tensorrt": "10.16.1.11", "tensorrt_lean": "10.16.1.11"}, {"version": (10, 16, 1, 11)}, "tensorrt"),
        (
            {"tensorrt": "11.4.0.1", "tensorrt_lean": "10.16.1.11"},
            {"version": (8, 6, 0, 12), "host_code": True},
            "lean",
        ),
        ({"tensorrt_dispatch": "10.16.1.11"}, {"version": (8, 6, 0, 12), "host_code": True}, "dispatch"),
        ({"tensorrt_dispatch_bindings": "10.16.1.11"}, {"version": (8, 6, 0, 12), "host_code": True}, "dispatch"),
        ({"tensorrt_dispatch": "11.4.0.106"}, {"version": (10, 16, 1, 11), "host_code": True}, "dispatch"),
        ({"tensorrt": "8.6.1"}, {"version": (8, 6, 0, 12)}, "tensorrt"),
        ({"tensorrt_lean": "10.16.1.11"}, {"version": (10, 16, 1, 11)}, "lean"),
        ({"tensorrt": "10.16.1.11", "tensorrt_rtx": "1.7.1.116"}, {"version": (1, 7, 1, 116), "magic": b"vtrt"}, "rtx"),
    ],
)
def test_the_first_flavour_that_can_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], plan: dict[str, object], chosen: str
) -> None:
    """Law: of tensorrt, lean, dispatch the first that can run the plan; RTX plans go to RTX; *_bindings alone serve."""
    install(monkeypatch, "0", name="unused")
    for name, version in installed.items():
        _add(monkeypatch, version, name)
    flavour = choose_flavour(read_header(write_plan(tmp_path / "p", **plan)))
    assert flavour.name.endswith(chosen)


@pytest.mark.parametrize(
    ("installed", "plan", "words"),
    [
        ({}, {"version": (8, 6, 0, 12), "host_code": True}, "is not installed.*loadtrt.dispatch.*dispatch-cu13<11"),
        ({}, {"version": (10, 9, 0, 34), "host_code": True}, r"pip install 'loadtrt\[dispatch\]'$"),
        (
            {},
            {"version": (10, 9, 0, 34)},
            r"tensorrt or tensorrt_lean or tensorrt_dispatch is not.*tensorrt-cu12==10\.9\.0\.\*",
        ),
        ({"tensorrt": "11.4.0.1"}, {"version": (8, 6, 0, 12), "host_code": True}, "plans of TensorRT 8 any more"),
        (
            {"tensorrt": "10.9.0.34"},
            {"version": (10, 16, 1, 11), "host_code": True},
            "10.9.0.34 is older than the plan",
        ),
        ({}, {"version": (1, 7, 1, 116), "magic": b"vtrt"}, r"tensorrt_rtx is not.*tensorrt-rtx-cu13==1\.7\.1\.\*"),
    ],
)
def test_no_flavour_for_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], plan: dict[str, object], words: str
) -> None:
    """Law: a certain mismatch is refused before loading; the sentence says who built it, why not, what to install."""
    install(monkeypatch, "0", name="unused")
    for name, version in installed.items():
        _add(monkeypatch, version, name)
    with pytest.raises(EngineError, match=words):
        choose_flavour(read_header(write_plan(tmp_path / "p", **plan)))


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_lean", "tensorrt_dispatch"])
def test_where_only_the_library_can_tell_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Law: no header tells whether a plan without a lean runtime is version-compatible: what is installed is asked,
    and `refusal_of` has what to say should it refuse. With a lean runtime from a library the versions decide."""
    install(monkeypatch, "10.16.1.11", name)
    header = read_header(write_plan(tmp_path / "p", version=(8, 6, 0, 12)))
    flavour = choose_flavour(header)
    assert flavour.name == name
    assert refusal_of(header, flavour)
    assert refusal_of(header, flavour, lean=True) is None
    assert choose_flavour(header, lean=True).name == name
    install(monkeypatch, "11.4.0.106", name)
    with pytest.raises(EngineError, match="plans of TensorRT 8 any more"):
        choose_flavour(header, lean=True)


def test_module_overrides_the_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: --module names the flavour, with or without _bindings; of the wrong family or unknown it is a UsageError."""
    install(monkeypatch, "10.16.1.11")
    _add(monkeypatch, "10.16.1.11", "tensorrt_lean")
    header = read_header(write_plan(tmp_path / "p"))
    assert choose_flavour(header, "tensorrt_lean").name == "tensorrt_lean"
    assert choose_flavour(header, "tensorrt_lean_bindings").name == "tensorrt_lean"
    with pytest.raises(UsageError, match="leave --module out, or choose tensorrt or"):
        choose_flavour(header, "tensorrt_rtx")
    with pytest.raises(UsageError, match="not a TensorRT module: choose one of tensorrt"):
        choose_flavour(header, "torch")
    with pytest.raises(EngineError, match=r"--module tensorrt_dispatch cannot run.*is not installed"):
        choose_flavour(header, "tensorrt_dispatch")


def test_broken_installations_are_found_not_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: an import that fails, for whatever reason, becomes that flavour's reason; a foreign module is told apart."""
    install(monkeypatch, "0", name="unused")
    for name in FLAVOURS:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')")
    (tmp_path / "tensorrt_lean.py").write_text("import tensorrt_lean_missing_part")
    (tmp_path / "tensorrt_dispatch.py").write_text("x = 1")
    (tmp_path / "tensorrt_rtx.py").write_text("raise RuntimeError('wrong CPU')")
    monkeypatch.syspath_prepend(tmp_path)
    reasons = {found.name: found.reason for found in find_flavours()}
    assert "libnvinfer.so.10: cannot open" in reasons["tensorrt"]
    assert "needs the module tensorrt_lean_missing_part" in reasons["tensorrt_lean"]
    assert "is not TensorRT: the module at" in reasons["tensorrt_dispatch"]
    assert "wrong CPU" in reasons["tensorrt_rtx"]
    for name in FLAVOURS:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", FLAVOURS)
def test_real_modules_have_every_name_that_the_adapter_uses(name: str) -> None:
    """Law: what the adapter asks without looking is in every real TensorRT (skipped where it is not installed)."""
    if importlib.util.find_spec(name) is None and importlib.util.find_spec(f"{name}_bindings") is None:
        pytest.skip(f"{name} is not installed")
    flavour = next(found.flavour for found in find_flavours() if found.name == name)
    if flavour is None:
        pytest.skip(f"{name} does not import here")
    module = flavour.module
    engine = """num_io_tensors get_tensor_name get_tensor_mode get_tensor_dtype get_tensor_shape get_tensor_location
        get_tensor_format_desc get_tensor_bytes_per_component get_tensor_components_per_element
        get_tensor_vectorized_dim get_tensor_profile_shape num_optimization_profiles create_execution_context
        num_aux_streams num_layers name refittable"""
    context = """set_optimization_profile_async active_optimization_profile set_input_shape infer_shapes nvtx_verbosity
        get_tensor_shape get_max_output_size set_tensor_address execute_async_v3"""
    for owner, names in ((module.ICudaEngine, engine), (module.IExecutionContext, context)):
        assert [part for part in names.split() if not hasattr(owner, part)] == []
    assert [part for part in ("Dims", "get_plugin_registry") if not hasattr(module, part)] == []
    assert tuple(module.Dims((2, 3))) == (2, 3)
    if flavour.capabilities.rtx_config:
        assert "EAGER" in module.DynamicShapesKernelSpecializationStrategy.__members__
        assert "DISABLED" in module.CudaGraphStrategy.__members__
