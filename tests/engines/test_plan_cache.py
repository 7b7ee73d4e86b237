"""Plans of models, kept by content: on a fake TensorRT with a builder and a runtime, and a fake GPU."""

from __future__ import annotations

import errno
import logging
import os
import resource
import shutil
import signal
import stat
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import onnx
import pytest
from onnx import TensorProto, helper
from test_build import SIZE, conv

import fake_builder
from loadtrt.asked.config import RunConfig
from loadtrt.engines import plan_cache
from loadtrt.engines.build_config import BuildOptions
from loadtrt.engines.build_model import read_source
from loadtrt.engines.open import open_engine
from loadtrt.engines.plan import read_sidecar, sidecar_of
from loadtrt.engines.plan_builder import build_plan
from loadtrt.engines.plan_cache import cached_plan, opened_plan
from loadtrt.engines.tensorrt import load_plan
from loadtrt.errors import EngineError, UsageError
from plan_rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VERSIONS = pytest.mark.parametrize("version", ["8.6", "10", "11"])


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Rig:
    return Rig("10", monkeypatch, tmp_path)


@VERSIONS
def test_a_model_is_built_once(version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: the second run builds nothing and drives the same plan; both engines are called what --engine said, and say
    where the plan comes from and what it was made of."""
    rig = Rig(version, monkeypatch, tmp_path)
    said: list[str] = []
    first = open_engine(rig.config().model, said.append)
    first.close()
    second = open_engine(rig.config().model, said.append)
    second.close()
    assert rig.builds == 1
    (name,) = rig.names()
    assert name.startswith("conv-")
    plan = rig.folder / name / "model.plan"
    assert {path.name for path in plan.parent.iterdir()} == {f"model.plan{end}" for end in ("", ".json", ".log")}
    assert first.info.name == second.info.name == rig.model
    assert first.info.sha256 == second.info.sha256
    assert (first.info.kind, first.info.batch) == ("tensorrt", 2)
    built = f"built by tensorrt {fake_builder.VERSIONS[version]} in "
    assert first.info.notes[0].startswith(built)
    assert first.info.notes[0].endswith(f", kept in {plan}")
    assert second.info.notes[0].startswith(f"taken from the cache, {plan}, {built}")
    assert first.info.build == second.info.build
    assert first.info.build is not None
    assert first.info.build["options"] == {"batch": 2}
    assert said == [f"building {rig.model} with tensorrt {rig.module.__version__} for Fake H100, once: it is kept in "
                    f"{plan.parent}"]  # fmt: skip


def test_the_same_by_other_words_is_the_same_plan(rig: Rig, tmp_path: Path) -> None:
    """Law: the key is of the content: another name or place of the model, --shapes for --batch, the second of two like
    GPUs and the default spelt out find the same plan."""
    plan = rig.plan()
    copied = tmp_path / "elsewhere.onnx"
    shutil.copy(rig.model, copied)
    same: list[dict[str, Any]] = [
        {"engine": str(copied)},
        {"batch": None, "shapes": {"x": (2, *SIZE)}},
        {"device": 1},
        {"module": "tensorrt"},
        {"contexts": 4, "rate": 100},
    ]
    assert [rig.plan(**options) for options in same] == [plan] * len(same)
    assert rig.builds == 1


def test_whatever_changes_the_plan_changes_its_key(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: shapes, precision, a plugin's bytes, the model's bytes, those of its external data, the GPU, its compute
    capability, TensorRT's version and the cache's own format each have a plan of their own."""
    plugin = tmp_path / "plugin.so"
    plugin.write_bytes(b"\x7fELF1")
    rig.module.get_plugin_registry = type("Registry", (), {"load_library": lambda *_: object()})
    found = [rig.plan(), rig.plan(batch=4), rig.plan(fp16=True), rig.plan(plugins=(str(plugin),))]
    plugin.write_bytes(b"\x7fELF2")
    found.append(rig.plan(plugins=(str(plugin),)))
    model = onnx.load(rig.model)
    model.graph.node[0].name = "other"
    onnx.save(model, rig.model)
    found.append(rig.plan())
    conv(tmp_path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    found.append(rig.plan())
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[::-1])
    found.append(rig.plan())
    rig.gpu = replace(rig.gpu, name="Fake H200")
    found.append(rig.plan())
    rig.gpu = replace(rig.gpu, compute_capability=(10, 0))
    found.append(rig.plan())
    rig.module.__version__ = "10.16.1.12"
    found.append(rig.plan())
    monkeypatch.setattr(plan_cache, "FORMAT", plan_cache.FORMAT + 1)
    found.append(rig.plan())
    assert len(set(found)) == len(found) == rig.builds


def test_the_batch_is_what_shapes_decide(rig: Rig, tmp_path: Path) -> None:
    """Law: a plan has no open sizes any more, but its batch is that of the size which the model leaves open."""
    values: dict[str, list[str | int | None]] = {"x": ["N", 3], "scale": [1, 3]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 3))
    graph = helper.make_graph([helper.make_node("Mul", ["x", "scale"], ["y"])], "test", inputs, [output])
    onnx.save(helper.make_model(graph), tmp_path / "two.onnx")
    found = cached_plan(rig.config(engine=str(tmp_path / "two.onnx"), batch=None, shapes={"x": (8, 3)}).model).sizes
    assert [(sizes.batch, sizes.shapes) for sizes in found] == [(8, {})]


def test_a_mix_of_one_part_is_one_plan(rig: Rig, tmp_path: Path) -> None:
    """Law: the plan is built for the part's batch, and for --shapes with that batch."""
    values: dict[str, list[str | int | None]] = {"x": ["N", "S"], "scale": [1, "S"]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", "S"))
    graph = helper.make_graph([helper.make_node("Mul", ["x", "scale"], ["y"])], "test", inputs, [output])
    onnx.save(helper.make_model(graph), tmp_path / "two.onnx")
    shapes = {"x": (1, 64), "scale": (1, 64)}
    options = {"engine": str(tmp_path / "two.onnx"), "batch": None, "shapes": shapes}
    mixed = cached_plan(rig.config(**options, mix="8:1").model)
    assert mixed.sizes[0].batch == 8
    plain = cached_plan(rig.config(**{**options, "shapes": {"x": (8, 64), "scale": (1, 64)}}).model)
    assert (mixed.path, rig.builds) == (plain.path, 1)


def test_the_zoo_has_batch_1_by_default_and_says_so(rig: Rig) -> None:
    """Law: as with ONNX Runtime and `loadtrt build`."""
    found = cached_plan(RunConfig.of(engine="zoo:googlenet").model)
    assert found.sizes[0].batch == 1
    assert "batch 1" in found.notes[1]
    assert {name.partition("-")[0] for name in rig.names()} == {"googlenet"}


def _cut(plan: Path) -> None:
    plan.write_bytes(plan.read_bytes()[:-1])


def _flip(plan: Path) -> None:
    data = bytearray(plan.read_bytes())
    data[-1] ^= 1
    plan.write_bytes(data)


def _another_sidecar(plan: Path) -> None:
    found = read_sidecar(plan)
    assert found is not None
    sidecar_of(plan).write_text(found.model_copy(update={"plan_sha256": "0" * 64}).model_dump_json())


def _no_folder(plan: Path) -> None:
    shutil.rmtree(plan.parent)
    plan.parent.write_text("")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": _cut,
    "a bit": _flip,
    "no plan": lambda plan: plan.unlink(),
    "no sidecar": lambda plan: sidecar_of(plan).unlink(),
    "sidecar cut": lambda plan: sidecar_of(plan).write_text("{"),
    "another sidecar": _another_sidecar,
    "a file": _no_folder,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_plan_is_built_again(damage: str, rig: Rig) -> None:
    """Law: an entry whose bytes are not those that were built is replaced by a good one in its place, with a word."""
    plan = rig.plan()
    good = plan.read_bytes()
    DAMAGES[damage](plan)
    said: list[str] = []
    again = cached_plan(rig.config().model, said.append)
    assert (again.path, plan.read_bytes()) == (plan, good)
    assert "damaged" in said[0]
    assert "instead of one that is damaged" in again.notes[0]
    rig.plan()
    assert rig.builds == 2
    assert rig.names() == {plan.parent.name}


def _linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


PARTS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda plan: plan.parent,
    "plan": lambda plan: plan,
    "sidecar": sidecar_of,
}
DISTRUSTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "of another user": (lambda path: os.chown(path, 12345, -1), "{} belongs to user 12345, neither to this user nor"),
    "of a group": (lambda path: path.chmod(path.stat().st_mode | 0o020), "others may write {}"),
    "of all": (lambda path: path.chmod(0o777), "others may write {}"),
    "a link": (_linked, "{} is a symbolic link"),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", DISTRUSTED)
def test_what_somebody_else_may_have_written_is_built_again(kind: str, part: str, rig: Rig) -> None:
    """Law: an entry is taken only where nobody but this user and root can have written its folder, plan or sidecar."""
    if kind == "of another user" and os.geteuid():
        pytest.skip("only root can give files away")
    plan = rig.plan()
    distrust, sentence = DISTRUSTED[kind]
    path = PARTS[part](plan)
    distrust(path)
    said: list[str] = []
    again = cached_plan(rig.config().model, said.append)
    assert f"the plan in the cache is not trusted ({sentence.format(path)}" in said[0]
    assert "), so it is built again: " in said[0]
    assert "LOADTRT_CACHE" not in said[0]
    assert "instead of one that is not trusted" in again.notes[0]
    assert (again.path, rig.plan(), rig.builds) == (plan, plan, 2)


def test_users_of_one_cache_have_entries_of_their_own(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another user has put there cannot be replaced, so the own entry stands beside it."""
    if os.geteuid():
        pytest.skip("only root can give files away")
    theirs = rig.plan()
    os.chown(theirs.parent, 12345, -1)
    monkeypatch.setattr("os.geteuid", lambda: 54321)
    said: list[str] = []
    mine = cached_plan(rig.config().model, said.append).path
    assert f"{theirs.parent} belongs to user 12345" in said[0]
    assert mine.parent.name == theirs.parent.name.replace("conv-", "conv-54321-")
    assert (rig.plan(), rig.builds) == (mine, 2)
    assert rig.names() == {mine.parent.name, theirs.parent.name}


def test_an_entry_that_others_brought_hides_no_own_one(rig: Rig) -> None:
    """Under another name with the same key, first in order: the own one is still found, and without it nothing is
    taken."""
    plan = rig.plan()
    key = plan.parent.name.rpartition("-")[2]
    brought = plan.parent.with_name(f"a-{key}")
    shutil.copytree(plan.parent, brought)
    brought.chmod(0o777)
    assert (rig.plan(), rig.builds) == (plan, 1)
    shutil.rmtree(plan.parent)
    assert (rig.plan(), rig.builds) == (plan, 2)


def test_a_renamed_entry_is_found(rig: Rig) -> None:
    """The key alone decides."""
    plan = rig.plan()
    key = plan.parent.name.rpartition("-")[2]
    renamed = plan.parent.rename(plan.parent.with_name(f"other-{key}"))
    assert (rig.plan(), rig.builds) == (renamed / plan.name, 1)


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_an_entry_is_trusted_whatever_the_umask(umask: int, rig: Rig) -> None:
    """Where new files are writable for a group or for all, those of an entry are not."""
    before = os.umask(umask)
    try:
        plans = [rig.plan(), rig.plan()]
    finally:
        os.umask(before)
    assert (plans[0], rig.builds) == (plans[1], 1)


def test_what_is_loaded_is_what_was_checked(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another entry under the name, between the check and the loading, is checked as well; and once it is opened, its
    name no longer counts."""
    config = rig.config().model
    cached = cached_plan(config)
    with opened_plan(cached.path) as plan:
        good = plan.read_bytes()
        moved = cached.path.parent.rename(rig.folder / "moved")
        shutil.copytree(moved, cached.path.parent)
        _flip(cached.path)
        assert plan.read_bytes() == good
        with pytest.raises(UsageError, match=f"^{cached.path} is gone$"), opened_plan(cached.path) as other:
            raise UsageError(f"{other} is gone")
    cached.path.parent.chmod(0o777)
    remedy = "set LOADTRT_CACHE to a folder that only you can write"
    with pytest.raises(UsageError, match=f"^others may write {cached.path.parent}: {remedy}$"):
        load_plan(config, cached)


def test_the_loaded_plan_has_the_name_of_the_entry(rig: Rig) -> None:
    cached = cached_plan(rig.config().model)
    plan = load_plan(rig.config().model, cached)
    assert plan.header.path == cached.path
    plan.close()


@pytest.mark.parametrize("damaged", [False, True])
def test_the_slower_of_two_builders_takes_the_plan_of_the_faster(damaged: bool, rig: Rig) -> None:
    """Law: what another process put there while this one was building stays, for it may be loading it; also where both
    found a damaged one."""
    if damaged:
        _cut(rig.plan())
    faster: list[tuple[Path, int]] = []

    def overtaken() -> None:
        rig.during = lambda: None
        plan = rig.plan()
        faster.append((plan, plan.stat().st_ino))

    rig.during = overtaken
    plan = rig.plan()
    assert [(plan, plan.stat().st_ino)] == faster
    assert rig.builds == 2 + damaged
    assert rig.names() == {plan.parent.name}


def test_two_builders_at_once_are_both_right(rig: Rig) -> None:
    """Law: whichever ends first, both have a whole plan."""
    both = threading.Barrier(2, timeout=300)
    rig.during = both.wait
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(rig.plan())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [found[0]] * 2
    rig.plan()
    assert rig.builds == 2
    assert rig.names() == {found[0].parent.name}


def test_an_interrupted_build_leaves_nothing(rig: Rig) -> None:
    """Law: Ctrl-C while building is KeyboardInterrupt, the cache is as before, and the next run builds."""
    main = threading.main_thread().ident
    assert main is not None
    rig.during = lambda: signal.pthread_kill(main, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        open_engine(rig.config().model)
    assert rig.names() == set()
    rig.during = lambda: None
    assert rig.plan().exists()


def test_a_refused_model_leaves_nothing_and_names_the_cpu(rig: Rig) -> None:
    """Law: where TensorRT cannot, the sentence says why and that ONNX Runtime may."""
    rig.told.fails = "Odd thing"
    with pytest.raises(
        EngineError, match=r"cannot build .*conv\.onnx; TensorRT says Odd thing \(--on onnxruntime runs"
    ):
        open_engine(rig.config().model)
    assert rig.names() == set()


def test_a_cache_that_cannot_be_made(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: one sentence says where, why and what to set."""
    monkeypatch.setenv("LOADTRT_CACHE", f"{rig.model}/plans")
    with pytest.raises(UsageError, match=r"cannot be kept in .*/conv\.onnx/plans: Not a directory: set LOADTRT_CACHE"):
        rig.plan()
    assert rig.builds == 0


@contextmanager
def _room(bytes_: int) -> Iterator[None]:
    """No file may grow beyond this: as on a full disk, writing fails half-way, even for root."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [64, 256])
def test_a_cache_without_room(room: int, rig: Rig, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Law: the same where the plan (106 bytes) or its sidecar does not fit: one sentence, no traceback of the log that
    did not fit either, and nothing stays. `loadtrt build` says it in its own words."""
    rig.during = lambda: logging.getLogger("loadtrt.tensorrt").info("x" * 300)
    with _room(room), pytest.raises(UsageError, match=r"cannot be kept in .*: File too large: set LOADTRT_CACHE"):
        rig.plan()
    options = BuildOptions(batch=2)
    with _room(room), pytest.raises(UsageError, match=r"cannot write .*/a\.plan.*: File too large"):
        build_plan(read_source(rig.model, options), tmp_path / "a.plan", options)
    assert capfd.readouterr().err == ""
    assert rig.names() == set()


def test_a_cache_without_room_saves_no_plan_elsewhere(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be built again; that of `loadtrt build`, which takes the same minutes, was asked for."""
    for name in ("working", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "working")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr("loadtrt.files._replace", Mock(side_effect=full))
    with pytest.raises(UsageError, match=r"cannot be kept in .*: No space left on device: set LOADTRT_CACHE"):
        rig.plan()
    assert rig.builds == 1
    assert [path for name in ("working", "temporary") for path in (tmp_path / name).iterdir()] == []
    options = BuildOptions(batch=2)
    with pytest.raises(UsageError, match=r"cannot write plan .*; it is saved as .*/working/loadtrt-saved-.*a\.plan$"):
        build_plan(read_source(rig.model, options), tmp_path / "a.plan", options)


@pytest.mark.parametrize("part", ["folders", "files"])
@pytest.mark.parametrize("kind", ["of another user", "writable for others", "no chmod"])
def test_a_cache_that_cannot_be_private_is_refused_before_building(
    kind: str, part: str, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on vfat, SMB and squashed NFS, where owner and mode are those of the mount: the plan would not be loaded."""
    fstat = os.fstat

    def of_the_mount(descriptor: int) -> os.stat_result:
        status = fstat(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if not path.startswith(str(rig.folder)) or stat.S_ISDIR(status.st_mode) != (part == "folders"):
            return status
        if kind == "of another user":
            return os.stat_result((*status[:4], 12345, *status[5:]))
        return os.stat_result((status.st_mode | 0o022, *status[1:]))

    def refused(path: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fstat", of_the_mount)
    if kind == "no chmod":
        monkeypatch.setattr(Path, "chmod", refused)
    umask = os.umask(0o002)
    try:
        with pytest.raises(
            UsageError, match=f"^a plan kept in {rig.folder} .*: set LOADTRT_CACHE to a folder that only"
        ):
            rig.plan()
    finally:
        os.umask(umask)
    assert rig.builds == 0
    assert rig.names() == set()


def test_what_killed_builds_left_is_removed_after_a_day(rig: Rig) -> None:
    """Law: the next build removes it, and leaves alone what may still be at work."""
    for name, age_s in ((".building-old", 25 * 3600), (".building-young", 3600)):
        (rig.folder / name).mkdir(parents=True)
        (rig.folder / name / "model.plan.log").write_text("")
        then = (rig.folder / name).stat().st_mtime - age_s
        os.utime(rig.folder / name, (then, then))
    plan = rig.plan()
    assert rig.names() == {".building-young", plan.parent.name}


def test_where_plans_are_kept(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: $LOADTRT_CACHE, else $XDG_CACHE_HOME (an absolute one) with loadtrt/plans, else ~/.cache with the same."""
    monkeypatch.delenv("LOADTRT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert rig.plan().parents[1] == tmp_path / "xdg" / "loadtrt" / "plans"
    monkeypatch.setenv("XDG_CACHE_HOME", "xdg")
    assert rig.plan().parents[1] == tmp_path / "home" / ".cache" / "loadtrt" / "plans"
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
    with pytest.raises(UsageError, match="there is no home folder: set LOADTRT_CACHE"):
        rig.plan()


def test_progress_is_told(rig: Rig) -> None:
    """Law: while the builder is at work, `status` is given one sentence after the other."""
    told = threading.Event()
    sentences: list[str] = []

    def status(sentence: str) -> None:
        sentences.append(sentence)
        told.set()

    rig.during = lambda: told.wait(30)
    cached_plan(rig.config().model, None, status)
    assert sentences[0].startswith("building, ")
    assert "0%" in sentences[0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"module": "tensorrt_lean"}, "--module tensorrt_lean cannot build a plan of .*: choose tensorrt or tensorrt_"),
        ({"module": "numpy"}, "--module numpy cannot build a plan of"),
        ({"plugins": ("missing.so",)}, "cannot read missing.so: No such file"),
        ({"batch": None}, r"x fp32\[N,3,8,8\] leaves its first dimension open: add --batch N"),
        ({"shapes": {"z": (1,)}}, "--shapes names 'z'"),
        ({"device": 2}, "--device 2 does not exist; CUDA sees 2"),
        ({"engine": "missing.onnx"}, "cannot read model missing.onnx"),
        ({"engine": "zoo:googlent"}, "did you mean 'googlenet'"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(options: dict[str, Any], sentence: str, rig: Rig) -> None:
    """Law: said before anything is built or made in the cache."""
    with pytest.raises(UsageError, match=sentence) as caught:
        open_engine(rig.config(**options).model)
    assert "\n" not in str(caught.value)
    assert (rig.builds, rig.folder.exists()) == (0, False)


def test_a_gpu_without_a_builder_is_told_with_both_ways_out(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: never the CPU in silence on a machine with a GPU."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"pip install 'loadtrt\[tensorrt\]'.*--on onnxruntime runs the model"):
        open_engine(rig.config().model)


def test_tensorrt_without_a_gpu_is_told(rig: Rig) -> None:
    """Law: --on tensorrt says what CUDA says; --on auto takes the CPU."""
    rig.told.gpus = 0
    with pytest.raises(EngineError, match=r"cudaErrorNoDevice.*--on onnxruntime runs the model"):
        open_engine(rig.config(on="tensorrt").model)
    engine = open_engine(rig.config().model)
    assert engine.info.kind == "onnxruntime"
    engine.close()
