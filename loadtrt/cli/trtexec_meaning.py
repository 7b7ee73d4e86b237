"""What a command line of trtexec means: lines of loadtrt, and what has no counterpart."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from loadtrt.cli.trtexec_options import TRTEXEC
from loadtrt.cli.trtexec_values import VERBOSITIES
from loadtrt.errors import LoadtrtError, UsageError
from loadtrt.printing import shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

_STREAMS, _ITERATIONS, _DURATION_S, _WARMUP_MS = 1, 10, 3, 200  # trtexec's defaults, in all versions
_ENDLESS = "87600h"  # as --duration=-1 means; a signal ends a run and shows its result
_SHOWN = ("50", "90", "95", "99", "99.9")
# Options of a build that `run --engine MODEL`, which builds plans itself, has too.
_ALSO_RUN = ("--fp16", "--shapes", "--plugins", "--device")
# Flags and options with the same values, of the build and of the run.
_BUILD_FLAGS = (
    *("fp16", "bf16", "int8", "fp8", "best", "noTF32", "stronglyTyped", "versionCompatible", "vc"),
    *("excludeLeanRuntime", "refit", "stripWeights", "stripAllWeights", "weightless"),
)
_BUILD_VALUES = (
    *("calib", "builderOptimizationLevel", "maxAuxStreams", "timingCacheFile", "profilingVerbosity"),
    *("tacticSources", "useDLACore", "deploy", "model", "uff"),
)
_RUN_VALUES = ("exportTimes", "exportOutput", "useProfile", "leanDLLPath")
_PROFILE_VALUES = ("exportProfile", "exportLayerInfo")


@dataclass(frozen=True, slots=True)
class Given:
    """A command line of trtexec.

    options: name and value of each option, as they came.
    like: the version that is meant.
    others: the versions that it might be as well; none where the user said which.
    """

    options: tuple[tuple[str, str], ...]
    like: int
    others: tuple[int, ...] = ()


@dataclass(slots=True)
class Meant:
    """What a line of trtexec means here: lines of loadtrt without its name, and what is to be known of them."""

    commands: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def translate(given: Given, folder: Path | None) -> Meant:
    """What the line means. folder: for a plan that it builds and does not keep; None where lines are for the user to
    run, who needs the plan in a file. Raises UsageError for what trtexec refuses, too."""
    return _Translation(given, folder).meant()


class _Translation:
    """Takes the options of a line, one after the other; what is left then has no counterpart."""

    def __init__(self, given: Given, folder: Path | None) -> None:
        self._given, self._like, self._folder = given, given.like, folder
        self._left = {name: [value for other, value in given.options if other == name] for name, _ in given.options}
        self._build: list[str] = []
        self._run: list[str] = []
        self._meant = Meant()

    def meant(self) -> Meant:
        engine, onnx, plan = self._value("loadEngine"), self._value("onnx"), self._value("saveEngine")
        caffe = [name for name in ("deploy", "model", "uff") if name in self._left]
        skips = self._flag("skipInference") | self._flag("buildOnly")
        version_only = self._flag("getPlanVersionOnly")
        exports = [name for name in (*_RUN_VALUES[:2], *_PROFILE_VALUES, "dumpProfile") if name in self._left]
        self._require_model(engine, onnx, caffe, plan)
        if engine is None and onnx is not None:
            self._decide_open_sizes(onnx)
        self._take_build(onnx)
        self._take_run(engine)
        looks = self._flag("dumpLayerInfo") | self._flag("dumpOptimizationProfile")
        self._name_what_is_left(engine, runs=not (skips or (engine and version_only)))
        if engine and onnx:
            self._note("--onnx means nothing beside --loadEngine", False)
        for name in exports if skips else ():
            self._note(f"--{name} is of the run, which is skipped ('loadtrt profile' writes files of layers)", False)
        if engine and (version_only or skips):
            self._meant.commands.append(["inspect", engine])
            return self._meant
        made = engine
        if engine is None:
            source = [] if onnx is None else [onnx]
            whole = any(word.startswith("--") and word not in _ALSO_RUN for word in self._build)
            if onnx is not None and plan is None and not (whole or skips):
                made = onnx
                self._run += ["--fp16"] if "--fp16" in self._build else []
                kept = "the plan is built once and kept; without a GPU, ONNX Runtime serves the model"
                self._meant.notes.append(kept)
            else:
                network = next((value for name, value in self._given.options if name in caffe), "")
                stem = Path((onnx or network).rpartition(":")[2]).stem
                made = plan or str((self._folder or Path()) / f"{stem}.plan")
                if plan is None:
                    kept = f"stays in {made}, where" if self._folder is None else "is not kept, as"
                    self._meant.notes.append(f"the plan {kept} trtexec keeps none without --saveEngine")
                self._meant.commands.append(["build", *source, "-o", made, *self._build])
        if not skips:
            self._meant.commands.append(["run", "--engine", str(made), *self._run])
        if looks:
            self._meant.commands.append(["inspect", str(made)])
        return self._meant

    def _require_model(self, engine: str | None, onnx: str | None, caffe: Sequence[str], plan: str | None) -> None:
        if engine and plan:
            raise UsageError("--loadEngine and --saveEngine exclude each other, in trtexec too: leave one out")
        if engine is None and onnx is None and not caffe:
            raise UsageError("trtexec needs a model: add --loadEngine=FILE or --onnx=FILE")
        if onnx is not None and caffe:
            raise UsageError(f"--onnx and --{caffe[0]} both name a model: leave one out")
        if onnx is not None and "output" in self._left:
            raise UsageError("--output is for Caffe networks, and trtexec refuses it with --onnx: leave it out")
        dynamic = {"shapes", "minShapes", "optShapes", "maxShapes"} & self._left.keys()
        if (onnx is not None or dynamic) and {"batch", "maxBatch"} & self._left.keys():
            raise UsageError("trtexec refuses --batch and --maxBatch with ONNX models and with shapes: write --shapes")

    def _decide_open_sizes(self, onnx: str) -> None:
        """Give the open sizes of inputs without a shape as 1, as trtexec does, where the model can be read here."""
        from loadtrt.engines.build_model import inputs_of
        from loadtrt.engines.onnx_model import parse_model

        try:
            inputs = inputs_of(parse_model(Path(onnx))[0])
        except LoadtrtError:
            return  # which is said where the model is used
        options: list[str] = [name for name in ("minShapes", "optShapes", "maxShapes") if name in self._left]
        options = options or ["shapes"]
        named = {
            part.rpartition(":")[0].strip(" '")
            for name in options
            for part in ",".join(self._left.get(name, ())).split(",")
        }
        if any("*" in name for name in named):
            return  # which is refused
        ones = [
            f"{name}:{'x'.join(str(size if size > 0 else 1) for size in sizes)}"
            for name, sizes in inputs.items()
            if -1 in sizes and name not in named
        ]
        if ones:
            for name in options:
                self._left[name] = [",".join([*filter(None, [spec]), *ones]) for spec in self._left.get(name, [""])]
            self._meant.notes.append(f"open sizes without a shape are 1, as in trtexec: {','.join(ones)}")

    def _take_build(self, onnx: str | None) -> None:
        for name in _BUILD_FLAGS:
            if self._flag(name):
                self._build += [word for word in TRTEXEC[name].here.split()[1:] if word not in self._build]
        if self._like == 10 and {"--fp16", "--int8"} <= set(self._build) and "best" in dict(self._given.options):
            self._build.append("--bf16")
        for name in _BUILD_VALUES:
            if (value := self._value(name)) is not None:
                value = VERBOSITIES.get(value, value) if name == "profilingVerbosity" else value
                self._build += _written(TRTEXEC[name].here.split()[1], value)
        if (mode := self._value("nvtxMode")) is not None and "--profiling-verbosity" not in self._build:
            self._build += ["--profiling-verbosity", VERBOSITIES.get(mode, mode)]
        for names in self._values("output"):
            self._build += [word for name in names.split(",") for word in ("--output", name)]
        if (size := self._value("workspace")) is not None:
            self._build += ["--workspace", f"{size}MiB"]
        self._take_pools()
        self._take_levels()
        self._take_formats()
        self._take_profiles(onnx)

    def _take_pools(self) -> None:
        for pool in (self._value("memPoolSize") or "").split(","):
            name, _, size = pool.rpartition(":")
            if name == "workspace" and "--workspace" in self._build:
                continue  # by --workspace, which says the same
            if name == "workspace":
                self._build += ["--workspace", size if size[-1:].isalpha() else f"{size}MiB"]
            elif pool:
                own = f"the builder takes its own size of {name}"
                self._note(f"--memPoolSize={pool} has no counterpart here: {own}", True)

    def _take_levels(self) -> None:
        """Options whose values are words, of which some are flags here, some nothing, and some have no counterpart."""
        for name, none, flag in (("sparsity", "disable", "enable"), ("hardwareCompatibilityLevel", "none", "ampere+")):
            value = (self._value(name) or none).lower()
            if value == flag:
                self._build.append(TRTEXEC[name].here.split()[1])
            elif value != none:
                self._note(f"--{name}={value} has no counterpart here", True)
        if self._flag("allowGPUFallback") and "--dla" not in self._build:
            self._note("--allowGPUFallback needs --useDLACore, which is not given", False)

    def _take_formats(self) -> None:
        names = [name for name in ("inputIOFormats", "outputIOFormats") if name in self._left]
        formats = {name: set(str(self._value(name)).split(",")) for name in names}
        if len(names) == 2 and all(each == {"fp16:chw"} for each in formats.values()):
            self._build += ["--io", "fp16"]
            return
        for name, each in formats.items():
            if not each <= {"fp32:chw", "chw"}:
                self._note(f"--{name} has no counterpart here: inputs and outputs are FP32, and linear in memory", True)

    def _take_profiles(self, onnx: str | None) -> None:
        """Shapes of the build, as many profiles as there are: without any, those of --shapes are all of the profile."""
        found: dict[str, list[str]] = {name: self._values(name) for name in ("minShapes", "optShapes", "maxShapes")}
        profiles = self._values("profile")
        if not profiles and any(len(specs) > 1 for specs in found.values()):
            raise UsageError("several profiles need --profile=0, --profile=1 … before their shapes, in trtexec too")
        if profiles != [str(number) for number in range(len(profiles))]:
            raise UsageError("write the profiles in their order: --profile=0 and its shapes, then --profile=1 …")
        for name, specs in found.items():
            for spec in specs:
                self._build += [TRTEXEC[name].here.split()[1], _shapes(name, spec)]
        shapes = self._left.get("shapes", [])
        if onnx is not None and shapes and not any(found.values()):
            self._build += ["--shapes", _shapes("shapes", shapes[0])]
        elif not shapes and (best := found["optShapes"] or found["maxShapes"] or found["minShapes"]):
            number = int(self._left.get("useProfile", ["0"])[0])
            self._run += ["--shapes", _shapes("optShapes", best[min(number, len(best) - 1)])]

    def _take_run(self, engine: str | None) -> None:
        wanted = [*self._values("streams"), *self._values("infStreams")]  # which agree
        streams = int(wanted[0]) if wanted else _STREAMS
        iterations = int(self._value("iterations") or _ITERATIONS)
        duration, warmup = self._value("duration") or str(_DURATION_S), self._value("warmUp") or str(_WARMUP_MS)
        if streams != 1:
            self._run += ["--contexts", str(streams)]
        if self._flag("exposeDMA"):
            self._run += ["--buffers", "1"]
            self._note(f"--exposeDMA is --buffers 1 here: {TRTEXEC['exposeDMA'].note}", True)
        self._run += self._mode()
        self._run += ["--warmup", f"{warmup}ms", "--duration", _ENDLESS if duration.startswith("-") else f"{duration}s"]
        if iterations * streams:
            self._run += ["--requests", str(iterations * streams)]
        implicit = "1" if {"--deploy", "--model"} & set(self._build) else None  # whatever the network itself says
        if (batch := self._value("batch") or self._value("maxBatch") or implicit) is not None:
            (self._run if engine else self._build).extend(("--batch", batch))
        if (shapes := self._value("shapes")) is not None:
            self._run += ["--shapes", _shapes("shapes", shapes)]
        for part in filter(None, (self._value("loadInputs") or "").split(",")):
            self._run += ["--inputs", part.replace("'", "")]
        references = {part.rpartition(":")[2] for part in self._left.get("loadRefOutputs", [""])[0].split(",")}
        if len(references) == 1 and (file := references.pop()).endswith(".npz"):
            self._values("loadRefOutputs")
            self._run += ["--verify-against", file]
        for name in _RUN_VALUES:
            if (value := self._value(name)) is not None:
                self._run += _written(TRTEXEC[name].here, value)
        exports = [(name, value) for name in _PROFILE_VALUES if (value := self._value(name)) is not None]
        self._flag("separateProfileRun")
        if self._flag("dumpProfile") or exports:
            self._run.append("--profile")
        for name, value in exports:
            self._run += _written(TRTEXEC[name].here, value)
        plugins = [file for name in ("plugins", "staticPlugins", "dynamicPlugins") for file in self._values(name)]
        both = [word for file in plugins for word in ("--plugins", file)]
        both += ["--device", device] if (device := self._value("device")) not in (None, "0") else []
        self._run += both
        self._build += both
        if (runtime := self._value("useRuntime")) in ("lean", "dispatch"):
            self._run += ["--module", f"tensorrt_{runtime}"]
        if self._flag("verbose"):
            self._run += ["--trt-log", "-"]
        if unusual := sorted(set((self._value("percentile") or "").split(",")) - {"", *_SHOWN}):
            told = f"--percentile: p{', p'.join(unusual)} is not shown here"
            self._note(f"{told}; {TRTEXEC['percentile'].note}", False)

    def _mode(self) -> list[str]:
        """Graph, waiting and copies, which 11 has turned round, where they differ from loadtrt's."""
        new = self._like == 11
        graph = not self._flag("noCudaGraph") if new else self._flag("useCudaGraph")
        spin = not self._flag("noSpinWait") if new else self._flag("useSpinWait")
        copies = self._flag("includeDataTransfers") if new else not self._flag("noDataTransfers")
        for name in ("useCudaGraph", "useSpinWait", "noDataTransfers"):
            self._flag(name)  # which change nothing in 11
        unlike = [] if graph and "--dla" not in self._build else ["--no-graph"]
        unlike += [] if spin else ["--wait", "block"]
        return [*unlike, *([] if copies else ["--no-copies"])]

    def _name_what_is_left(self, engine: str | None, *, runs: bool) -> None:
        """Name what has no counterpart, and the options of a build where a plan is loaded."""
        if engine is not None and self._build:
            told = " ".join(word for word in self._build if word.startswith("--") and word not in _ALSO_RUN[1:])
            if told:
                self._note(f"build options have no effect on a loaded plan, as in trtexec: {told}", False)
        for name in self._left:
            option = TRTEXEC[name]
            told = f"is not taken over; {option.here} is near it:" if option.here else "has no counterpart here:"
            self._note(f"--{name} {told} {option.note}", option.matters)
        if runs:
            throughput = "inferences/s" if "batch" in dict(self._given.options) else "requests/s"
            self._meant.notes.append(
                "latency here begins when a request is due, and so includes waiting; what trtexec calls latency, the "
                f"time of copies and compute, is shown as device, and its throughput as {throughput}"
            )

    def _note(self, sentence: str, matters: bool) -> None:
        told = "what is measured may differ" if matters else "what is measured is the same"
        self._meant.notes.append(f"{sentence}; {told}")

    def _values(self, name: str) -> list[str]:
        return self._left.pop(name, [])

    def _value(self, name: str) -> str | None:
        return next(iter(self._values(name)), None)

    def _flag(self, name: str) -> bool:
        return bool(self._values(name))


def _written(option: str, value: str) -> list[str]:
    return [f"{option}={value}"] if value.startswith("-") else [option, value]


def _shapes(name: str, spec: str) -> str:
    """A specification of shapes as ours are: names without quotes, and no wildcards. Raises UsageError."""
    if "*" in spec:
        raise UsageError(f"--{name}={shortened(spec)}: names with * are not taken here: write each input's name")
    return spec.replace("'", "").replace(" ", "")
