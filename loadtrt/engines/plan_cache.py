"""Plans that `loadtrt run` has built of models, kept by content: the same model, options, TensorRT and GPU build once.

An entry is a folder STEM-KEY with model.plan, its sidecar and its log. It is renamed into place whole, so that readers
see all of it or nothing, and of two processes that build the same the slower takes what the faster has put there. Any
entry may be deleted at any time, but for the moment in which it is loaded.

Loading a plan is trusting it, and the name of an entry is no secret: entries of other users than this one and root, and
those that others may write, are not used.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from loadtrt.cuda.runtime import device_count, device_properties
from loadtrt.engines.batch_size import BatchSize, batch_size
from loadtrt.engines.build_config import BuildOptions
from loadtrt.engines.build_model import read_source
from loadtrt.engines.flavour import INSTEAD_OF_RTX, unsupported_gpu
from loadtrt.engines.onnx_model import decide_sizes, outputs_of
from loadtrt.engines.plan import Sidecar, read_sidecar, sha256, sidecar_of
from loadtrt.engines.plan_builder import build_plan, progress_text
from loadtrt.engines.shapes import FixedSizes, takes_larger
from loadtrt.engines.toolchain import choose_toolchain, preflight
from loadtrt.errors import EngineError, LoadtrtError, UsageError
from loadtrt.files import temporary_folder
from loadtrt.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from loadtrt.asked.model import Model
    from loadtrt.cuda.runtime import DeviceProperties
    from loadtrt.engines.build_model import Source
    from loadtrt.engines.shapes import Sizes
    from loadtrt.engines.toolchain import Progress, Toolchain
    from loadtrt.load.tensors import TensorSpec

FORMAT = 2  # of entries and keys; higher when what loadtrt makes of a model before it builds changes
_PLAN = "model.plan"
_KEY_DIGITS = 16
_STEM_LENGTH = 60
_BUILDERS: dict[str, Literal["tensorrt", "rtx"]] = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}
# Options that count by what they name (plugins, the device) or come to (the inputs' shapes), not as they are given.
_COUNTED_OTHERWISE = {"flavour", "device", "plugins", "batch", "shapes"}
_BUILDING = ".building-"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_REMEDY = "set LOADTRT_CACHE to a folder that only you can write"
_LEFT_BEHIND_S = 24 * 3600  # no build takes as long


@dataclass(frozen=True, slots=True)
class CachedPlan:
    """A plan that was built from a model.

    sizes: what of the asked sizes the plan leaves open, one for each kind of request.
    batch: inferences of a request, where the options or the model say; None where the plan's sizes are all there is.
    notes: what the user should read; the first says where the plan comes from.
    larger_batch: whether the model leaves the batch open.
    """

    path: Path
    sizes: tuple[Sizes, ...]
    batch: BatchSize | None
    notes: tuple[str, ...]
    larger_batch: bool


def cached_plan(
    config: Model, say: Callable[[str], None] | None = None, status: Callable[[str], None] | None = None
) -> CachedPlan:
    """The plan of the model `config.engine`, an ONNX file or zoo:NAME, for GPU `config.device`: kept, or built now.

    `say` is given sentences to keep, `status`, a few times a second while building, one that the next replaces. Raises
    UsageError (options, files, open sizes, a cache that cannot be written), EngineError (no GPU, no TensorRT that
    builds, a model that it refuses), KeyboardInterrupt, after which nothing is left behind.
    """
    part = config.parts[0]
    options = BuildOptions(
        flavour=_builder_of(config),
        device=config.device,
        batch=part.batch,
        shapes=part.shapes,
        fp16=config.fp16,
        plugins=config.plugins,
    )
    if len(config.parts) > 1:
        raise UsageError(
            f"{config.engine} would be built for one size, and a mix or batcher has several: build a plan with a range "
            "first (loadtrt build --min-shapes …, --max-shapes …), or add --on onnxruntime"
        )
    source = read_source(config.engine, options)
    outputs = outputs_of(source.model)
    sizes = decide_sizes(source.model, config.engine, config.parts, source.external, runtime="TensorRT")
    (inputs,) = sizes.parts
    shapes = {spec.name: spec.shape for spec in inputs}
    # What the model's names and --shapes say of the batch is lost in what is built, where all sizes are fixed.
    batch = batch_size(sizes.inputs, shapes, outputs, batch=part.batch, inferences=part.inferences_per_request)
    firsts = {shape[0] for shape in shapes.values() if shape}
    first = next((size for size in (part.batch, batch.size) if size in firsts), None)
    options = replace(options, batch=first, shapes={name: shapes[name] for name in part.shapes})
    tool = choose_toolchain(options.flavour)
    device_count()  # raises where there is no GPU: for RTX preflight would ask for a --target, which no run has
    preflight(tool, options)
    gpu = device_properties(config.device)
    if (refused := unsupported_gpu(tool.flavour, gpu.compute_capability)) is not None:
        raise EngineError(f"{refused}, which this GPU ({gpu.name}) has: {INSTEAD_OF_RTX}")
    key = _key(source, inputs, options, tool, gpu)
    entry, sidecar, fault = _find(_folder(), _stem(config.engine), key)
    if sidecar is not None:
        built_on = datetime.fromtimestamp((entry / _PLAN).stat().st_mtime, UTC).date()
        note = f"taken from the cache, {entry / _PLAN}, {_built_by(sidecar)} on {built_on}"
    else:
        if say is not None:
            again = f"the plan in the cache {fault}, so it is built again: " if fault else ""
            say(f"{again}building {config.engine} with {tool.flavour} for {gpu.name}, once: it is kept in {entry}")
        show = None if status is None else lambda progress: status(progress_text(progress))
        sidecar = _build(source, options, entry, show)
        instead = f", instead of one that {fault}" if fault else ""
        note = f"{_built_by(sidecar)}, kept in {entry / _PLAN}{instead}"
    kept = FixedSizes(first, {}, part.shape_values, part.optimization_profile)
    counted, notes = batch if batch.known else None, (note, *source.notes, *sizes.notes)
    return CachedPlan(entry / _PLAN, (kept,), counted, notes, takes_larger(sizes.inputs, shapes))


def _builder_of(config: Model) -> Literal["tensorrt", "rtx"] | None:
    if config.module is None:
        return None
    name = config.module.removesuffix("_bindings")
    if name not in _BUILDERS:
        raise UsageError(
            f"--module {config.module} cannot build a plan of {config.engine}: choose {' or '.join(_BUILDERS)}, or "
            "leave --module out"
        )
    return _BUILDERS[name]


def _key(
    source: Source, inputs: Sequence[TensorSpec], options: BuildOptions, tool: Toolchain, gpu: DeviceProperties
) -> str:
    """The first digits of the SHA-256 over all that decides what is built."""
    counted = {
        "format": FORMAT,
        "model": source.sha256,
        "weights": [sha256(file) for file in source.external.files] if source.external else [],
        "inputs": {spec.name: spec.shape for spec in inputs},
        "options": {name: value for name, value in options.given().items() if name not in _COUNTED_OTHERWISE},
        "plugins": [sha256(file) for file in options.plugins],
        "tensorrt": [tool.flavour.name, tool.flavour.version],
        "gpu": [gpu.name, gpu.compute_capability],
    }
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:_KEY_DIGITS]


def _folder() -> Path:
    """Where plans are kept: $LOADTRT_CACHE, $XDG_CACHE_HOME/loadtrt/plans or ~/.cache/loadtrt/plans."""
    own = os.environ.get("LOADTRT_CACHE")
    if own:
        return Path(own).absolute()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if shared.is_absolute():  # the XDG specification: a relative path is ignored
        return shared / "loadtrt" / "plans"
    try:
        return Path.home() / ".cache" / "loadtrt" / "plans"
    except RuntimeError:
        raise UsageError("plans have no folder to be kept in, as there is no home folder: set LOADTRT_CACHE") from None


def _stem(engine: str) -> str:
    """The model's name, as part of a file's name."""
    stem = re.sub(r"[^A-Za-z0-9_.]+", "-", Path(engine.removeprefix("zoo:")).stem)
    return stem.strip("-.")[:_STEM_LENGTH] or "model"


class _UntrustedError(UsageError):
    """A file of an entry that somebody else may have written. fault: what is wrong, without the remedy."""

    def __init__(self, fault: str) -> None:
        super().__init__(f"{fault}: {_REMEDY}")
        self.fault = fault


@contextmanager
def opened_plan(plan: Path) -> Iterator[Path]:
    """The plan of an entry under a name that stays that of the checked one, whatever happens to the entry's own name.

    Nobody but this user and root may write the folder, the plan or the sidecar, and none of them is a link. Raises
    UsageError; sentences of errors inside are of the entry.
    """
    with ExitStack() as stack:
        folder = _checked(plan.parent, None, stack)
        for file in (plan, sidecar_of(plan)):
            with ExitStack() as closed:
                _checked(file, folder, closed)
        opened = Path(f"/proc/self/fd/{folder}")
        try:
            yield opened / plan.name
        except LoadtrtError as error:
            error.args = (str(error).replace(str(opened), str(plan.parent)),)
            raise


def _checked(path: Path, folder: int | None, stack: ExitStack) -> int:
    """The descriptor of a file in `folder`, or of a folder; opened, then checked. `stack` closes it."""
    try:
        name = path if folder is None else path.name
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _UntrustedError(f"{path} is a symbolic link") from None
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    stack.callback(os.close, descriptor)
    status = os.fstat(descriptor)
    if status.st_uid not in (os.geteuid(), 0):
        raise _UntrustedError(f"{path} belongs to user {status.st_uid}, neither to this user nor to root")
    if status.st_mode & _OTHERS_WRITE:
        raise _UntrustedError(f"others may write {path}")
    if not (stat.S_ISDIR if folder is None else stat.S_ISREG)(status.st_mode):
        raise UsageError(f"{path} is not a {'folder' if folder is None else 'regular file'}")
    return descriptor


def _find(folder: Path, stem: str, key: str) -> tuple[Path, Sidecar | None, str]:
    """The entry with this key and its sidecar; without a usable one the entry to build, and what is wrong with the one
    that is there, as `_read` says it.

    The key alone decides: a model that has been renamed or copied is the same model.
    """
    own = folder / f"{stem}-{key}"
    fault = ""
    for entry in (own, *sorted(folder.glob(f"*-{key}"))):
        sidecar, of_entry = _read(entry)
        if sidecar is not None:
            return entry, sidecar, ""
        fault = fault or of_entry
    if os.path.lexists(own) and os.geteuid() not in (0, own.lstat().st_uid):
        own = folder / f"{stem}-{os.geteuid()}-{key}"  # beside another user's, which cannot be replaced
    return own, None, fault


def _read(entry: Path) -> tuple[Sidecar | None, str]:
    """The sidecar of a whole entry that may be trusted; else None and what is wrong with it, "" where there is none."""
    if not os.path.lexists(entry):  # unlike Path.exists, raises nothing without permission
        return None, ""
    try:
        with opened_plan(entry / _PLAN) as plan:
            return read_sidecar(plan, sha256(plan)), ""
    except _UntrustedError as error:
        return None, f"is not trusted ({error.fault})"
    except UsageError as error:
        return None, f"is damaged ({error})"


def _build(source: Source, options: BuildOptions, entry: Path, show: Callable[[Progress], None] | None) -> Sidecar:
    """Build into a temporary folder, then rename that to `entry`. Returns the sidecar of the entry."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(entry.parent)
        with temporary_folder(_BUILDING, entry.parent) as temporary:
            folder = temporary / "built"  # others cannot read the temporary folder itself
            folder.mkdir()
            _require_private(folder, entry.parent)
            built = build_plan(source, folder / _PLAN, options, show, rescue=False)
            for path in folder.iterdir():
                _make_private(path)
            return _settle(folder, entry) or built.sidecar
    except (OSError, UsageError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        raise UsageError(
            f"the plan cannot be kept in {entry.parent}: {cause.strerror}: set LOADTRT_CACHE to a folder that can be "
            "written and has room"
        ) from None


def _require_private(folder: Path, cache: Path) -> None:
    """Raise UsageError, before minutes of building, where files cannot be made that only this user may write, as on
    vfat, SMB and NFS. folder: one in `cache`, empty."""
    probe = folder / _PLAN
    probe.touch()
    try:
        for path in (folder, probe):
            _make_private(path)
        with ExitStack() as stack:
            _checked(probe, _checked(folder, None, stack), stack)
    except _UntrustedError:
        raise UsageError(
            f"a plan kept in {cache} could not be trusted, as files there belong to another user or others may write "
            f"them: {_REMEDY}"
        ) from None
    probe.unlink()


def _make_private(path: Path) -> None:
    """Take from others the right to write, which a umask such as 002 gives them."""
    mode = path.stat().st_mode
    if mode & _OTHERS_WRITE:
        with suppress(PermissionError):  # vfat, where `_require_private` says what to do
            path.chmod(mode & ~_OTHERS_WRITE)


def _settle(folder: Path, entry: Path) -> Sidecar | None:
    """Rename `folder` to `entry`. Returns the sidecar of an entry that another process has made meanwhile: that one
    stays, as the process may be loading it."""
    try:
        folder.rename(entry)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        other, _ = _read(entry)
        if other is not None:
            return other
        entry.rename(folder.with_name("damaged"))  # deleted with the temporary folder
        folder.rename(entry)
    return None


def _remove_left_behind(folder: Path) -> None:
    """Delete the temporary folders of builds that were killed."""
    for leftover in folder.glob(f"{_BUILDING}*"):
        with suppress(OSError):  # another user's, or deleted meanwhile
            if time.time() - leftover.stat().st_mtime > _LEFT_BEHIND_S:
                shutil.rmtree(leftover)


def _built_by(sidecar: Sidecar) -> str:
    return f"built by {sidecar.flavour} {sidecar.flavour_version} in {format_duration(sidecar.build_ns)}"
