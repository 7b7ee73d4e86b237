"""Whether the values of trtexec's options are of their kind: trtexec reads `10s` as 10 and `abc` as an exception."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loadtrt.errors import UsageError
from loadtrt.printing import shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.cli.trtexec_options import TrtexecOption

_NUMBER = r"(\d{1,12}(\.\d*)?|\.\d+)"
_SHAPES = r"[^,]+:(scalar|\d{1,12}(x\d{1,12})*)"
_FILES = r"[^,]+:[^,]+"
_PERCENT = r"(100(\.0*)?|\d{1,2}(\.\d*)?|\.\d+)"
# By what stands for a value in the table of options: how it is written, and in words. Files and folders may be any.
_KINDS = {
    "N": (r"\d{1,9}", "a whole number, such as 4"),
    "SECONDS": (_NUMBER, "a number of seconds, such as 10"),
    "MS": (_NUMBER, "a number of milliseconds, such as 200"),
    "MIB": (_NUMBER, "a number of MiB, such as 4096"),
    "X": (rf"{_NUMBER}([eE][+-]?\d{{1,3}})?", "a number of 0 or more, such as 0.01"),
    "SIZE": (rf"-[12]|{_NUMBER}[%BKMGbkmg]?", "a size, such as 512M or 50%"),
    "LIST": (rf"{_PERCENT}(,{_PERCENT})*", "percentages from 0 to 100, such as 90,99"),
}
_FROM_ONE = (r"0*[1-9]\d{0,8}", "a whole number of at least 1, such as 4")
_ANY_LIMIT = (r"-1|\d{1,9}", "a whole number, or -1 for none")
_SEVERAL_SHAPES = (rf"{_SHAPES}(,{_SHAPES})*", "inputs with their sizes, such as data:1x3x224x224")
_SEVERAL_FILES = (rf"{_FILES}(,{_FILES})*", "names with their files, such as data:data.bin")
_POOL = rf"(workspace|dlaSRAM|dlaLocalDRAM|dlaGlobalDRAM|tacticSharedMem):{_NUMBER}[BKMGbkmg]?"
# Options whose values are of a kind of their own.
_OWN_KINDS = {
    **dict.fromkeys(("streams", "infStreams", "batch", "maxBatch"), _FROM_ONE),
    **dict.fromkeys(("maxTactics", "l2LimitForTiling"), _ANY_LIMIT),
    **dict.fromkeys(("shapes", "minShapes", "optShapes", "maxShapes"), _SEVERAL_SHAPES),
    **dict.fromkeys(("minShapesCalib", "optShapesCalib", "maxShapesCalib"), _SEVERAL_SHAPES),
    **dict.fromkeys(("loadInputs", "loadRefOutputs"), _SEVERAL_FILES),
    "duration": (rf"-1|{_NUMBER}", "a number of seconds, such as 10, or -1 for no end"),
    "memPoolSize": (rf"{_POOL}(,{_POOL})*", "pools with their sizes, such as workspace:4096"),
    "tacticSources": (r"[+-]\w+(,[+-]\w+)*", "names behind + or -, such as -CUDNN,+CUBLAS"),
}
_WORDS = {
    "accuracyAlgorithm": ("l0", "l1", "l2", "lInf", "cos"),
    "allocationStrategy": ("static", "profile", "runtime"),
    "hardwareCompatibilityLevel": ("none", "ampere+", "sameComputeCapability"),
    "nvtxMode": ("default", "verbose", "none"),
    "precisionConstraints": ("none", "prefer", "obey"),
    "profilingVerbosity": ("layer_names_only", "detailed", "none", "default", "verbose"),
    "sparsity": ("disable", "enable", "force"),
    "tuningSearch": ("fast", "full", "mixed"),
    "useRuntime": ("full", "dispatch", "lean"),
}
VERBOSITIES = {"default": "layer_names_only", "verbose": "detailed"}  # trtexec's old words for these
# Words for opposite things, of which trtexec takes one without a word.
_OPPOSITES = (
    ("useCudaGraph", "noCudaGraph"),
    ("useSpinWait", "noSpinWait"),
    ("noDataTransfers", "includeDataTransfers"),
)


def require_kind(option: TrtexecOption, value: str) -> None:
    """Raise UsageError for a value that is not of the option's kind, and for one of a flag."""
    given = f"--{option.name}={shortened(value)}"
    if not option.value:
        if value not in ("", "1", "true"):  # trtexec takes any for true
            raise UsageError(f"{given}: --{option.name} takes no value: write --{option.name}, or leave it out")
    elif words := _WORDS.get(option.name):
        if value.lower() not in map(str.lower, words):
            raise UsageError(f"{given} is not one of {', '.join(words)}")
    else:
        form, told = _OWN_KINDS.get(option.name) or _KINDS.get(option.value.rstrip("+"), ("(?s:.+)", "a text"))
        if not re.fullmatch(form, value.replace(" ", "").replace("*", "_")):
            raise UsageError(f"{given} is not {told}")


def require_agreement(options: Sequence[tuple[str, str]]) -> None:
    """Raise UsageError where two words for one thing have different values."""
    given = dict(options)
    for one, other in _OPPOSITES:
        if one in given and other in given:
            raise UsageError(f"--{one} and --{other} exclude each other: leave one out")
    pools = dict(pool.rpartition(":")[::2] for pool in given.get("memPoolSize", "").split(","))
    for (one, ours), (other, theirs) in (
        (("streams", given.get("streams")), ("infStreams", given.get("infStreams"))),
        (("workspace", given.get("workspace")), ("memPoolSize", pools.get("workspace"))),
        (("nvtxMode", given.get("nvtxMode")), ("profilingVerbosity", given.get("profilingVerbosity"))),
    ):
        if ours is None or theirs is None:
            continue
        if VERBOSITIES.get(ours, ours).lstrip("0") != VERBOSITIES.get(theirs, theirs).removesuffix("M").lstrip("0"):
            raise UsageError(
                f"--{one}={given[one]} and --{other}={given[other]} are two names of one option: leave one out"
            )
