"""The options of trtexec 8.6, 10.16 and 11.1 (samples/common/sampleOptions.cpp), and what they are here.

loadtrt/cli/trtexec_line.py carries out what is here; tests/cli/test_trtexec_line.py checks that it does, and that every
option which this table names exists.
"""

from __future__ import annotations

from dataclasses import dataclass

VERSIONS = (8, 10, 11)


@dataclass(frozen=True, slots=True)
class TrtexecOption:
    """An option of trtexec.

    name: without its dashes.
    versions: those that take it.
    value: what stands for its value: "" for a flag, and a text with "+" at its end for one that is repeated.
    here: what it is in loadtrt, in options of loadtrt; "" where it has no counterpart.
    note: what differs, or why there is no counterpart.
    matters: whether a measurement without it is of something else.
    """

    name: str
    versions: tuple[int, ...]
    value: str
    here: str
    note: str
    matters: bool

    @property
    def repeats(self) -> bool:
        return self.value.endswith("+")


# names | versions | value | here | note, with "!" before it where a measurement without the option is of something else
_TABLE = """
accuracyAlgorithm | 11 | NAME | --verify-tolerance | it bounds the largest deviation, whatever the algorithm
accuracyThreshold | 11 | X | --verify-tolerance | a share of the output's largest magnitude, and no loss of an algorithm
adjustForDLA | 10 11 | | | ! the parser does not rewrite layers for DLA
allocationStrategy | 10 11 | NAME | | each context has memory for its largest profile
allowGPUFallback | 8 10 11 | | build --dla | --dla always lets other layers run on the GPU
allowWeightStreaming | 10 11 | | | ! weights are not streamed
asyncFileReader | 10 11 | | | a plan is read before it is measured
atol rtol | 11 | X | --verify-tolerance | a share of the output's largest magnitude
avgRuns | 8 10 11 | N | | run.json has the numbers of each second
avgTiming | 8 10 11 | N | | ! the builder takes its own number of timings
batch | 8 | N | --batch |
best | 8 10 | | build --fp16 --int8 | FP8, BF16 and INT4 are not among them
bf16 | 10 | | build --bf16 |
buildDLAStandalone | 8 10 11 | | | ! no DLA loadable is built
builderOptimizationLevel | 8 10 11 | N | build --builder-optimization-level |
buildOnly | 8 | | build |
calib | 8 10 | FILE | build --calibration-cache |
calibProfile | 10 | N | | ! calibration takes the first profile
consistency | 8 10 11 | | | safety: plans for the safe runtime are not run
continue | 11 | | sweep --resume | builds are not tuned
cpuOnly | 10 11 | | build --target | of RTX, which builds without a GPU
decomposableAttentions | 10 11 | SPEC | | ! attention layers stay as the builder has them
deploy | 8 | FILE | build --deploy |
device | 8 10 11 | N | --device |
directIO | 8 10 11 | | | ! the builder may reformat at the network's boundaries
distributiveIndependence | 10 11 | | | ! the builder may choose kernels that depend on the batch
dryRun helpBuildRoute saveAllEngines | 11 | | | builds are not tuned
dumpKernelText | 10 11 | | | safety: plans for the safe runtime are not run
dumpLayerInfo | 8 10 11 | | inspect | prints the layers of the plan
dumpOptimizationProfile | 10 11 | | inspect | prints the profiles of the plan
dumpOutput | 8 10 11 | | --export-output | writes outputs to a file and prints none
dumpProfile | 8 10 11 | | --profile |
dumpRawBindingsToFile | 8 10 11 | | --export-output | writes outputs as JSON, in one file
dumpRefit | 8 10 11 | | | refittable weights are not listed
duration | 8 10 11 | SECONDS | --duration |
dynamicPlugins plugins staticPlugins | 8 10 11 | FILE+ | --plugins |
enablePluginOverride | 10 11 | | | ! the parser keeps to its own operators
errorOnTimingCacheMiss | 10 11 | | | a miss in the timing cache is timed
excludeLeanRuntime | 8 10 11 | | build --exclude-lean-runtime |
explicitBatch | 8 | | | batches are explicit in every model
explicitPrecision | 8 | | | TensorRT reads precision from the model's quantize nodes
exportLayerInfo | 8 10 11 | FILE | --export-layer-info | with --profile
exportOutput | 8 10 11 | FILE | --export-output |
exportProfile | 8 10 11 | FILE | --export-profile | with --profile
exportTimes | 8 10 11 | FILE | --export-times |
exposeDMA | 8 10 11 | | --buffers 1 | one request in flight: copies and compute do not overlap
fp16 | 8 10 | | build --fp16 | run --fp16 checks a plan
fp8 | 8 10 | | build --fp8 |
getPlanVersionOnly | 10 11 | | inspect |
hardwareCompatibilityLevel | 8 10 11 | NAME | build --hardware-compatible | ampere+ alone
help | 8 10 11 | | --help |
heuristic | 8 | | | ! the builder times all tactics
idleTime | 8 10 11 | MS | | ! no idle time between requests; --rate with --arrivals constant offers a rate
ignoreParsedPluginLibs | 8 10 11 | | | ! plugins that the parser finds stay in a version-compatible plan
includeDataTransfers | 11 | | --copies |
infStreams streams | 8 10 11 | N | --contexts |
inputIOFormats outputIOFormats | 8 10 11 | SPEC | build --io | fp32:chw and fp16:chw, for inputs and outputs together
int4 | 10 | | | ! no weights are quantized to INT4
int8 | 8 10 | | build --int8 | with calibration data, which are random without --calibration
iterations | 8 10 11 | N | --requests | for each context there, in all here
l2LimitForTiling | 10 11 | N | | ! the builder takes its own limit
layerDeviceTypes | 8 10 11 | SPEC | | ! --dla is for all layers
layerOutputTypes layerPrecision layerPrecisions | 8 10 | SPEC | | ! the builder chooses types of layers
leanDLLPath | 8 10 11 | FILE | --lean-library | for plans without their lean runtime
loadEngine | 8 10 11 | FILE | --engine |
loadInputs | 8 10 11 | SPEC | --inputs |
loadRefOutputs | 11 | SPEC | --verify-against | an .npz of outputs by name, or the ONNX model, in place of raw files
markDebug | 10 11 | NAMES | | ! no tensors are marked for debugging
markUnfusedTensorsAsDebugTensors | 10 11 | | | ! no tensors are marked for debugging
maxAuxStreams | 8 10 11 | N | build --max-aux-streams |
maxBatch | 8 | N | build --batch | a plan is built for one size
maxShapes | 8 10 11 | SPEC+ | build --max-shapes |
maxShapesCalib minShapesCalib optShapesCalib | 8 10 | SPEC | | ! calibration takes the shapes of the plan
maxTactics | 10 11 | N | | ! the builder times as many tactics as it likes
memPoolSize | 8 10 11 | SPEC | build --workspace | workspace alone
minShapes | 8 10 11 | SPEC+ | build --min-shapes |
minTiming | 8 | N | | ! the builder takes its own number of timings
model | 8 | FILE | build --model |
monitorMemory | 10 11 | | | every run prints and keeps its memory
noBuilderCache | 8 10 11 | | | the builder's own cache stays on
noCompilationCache | 10 11 | | | the builder's own cache stays on
noCudaGraph | 11 | | --no-graph |
noDataTransfers | 8 10 11 | | --no-copies |
noSpinWait | 11 | | --wait block |
noTF32 | 8 10 11 | | build --no-tf32 |
nvtxMode | 8 | NAME | build --profiling-verbosity |
onnx | 8 10 11 | FILE | build --onnx | run --engine builds the plan, too
optShapes | 8 10 11 | SPEC+ | build --opt-shapes |
output | 8 | NAME+ | build --output |
percentile | 8 10 11 | LIST | --objective | p50, p90, p95, p99 and p99.9 are always shown; --objective bounds any
persistentCacheRatio | 8 10 11 | X | | ! no L2 cache is set aside
pi pluginInstanceNorm | 10 11 | | | ! InstanceNorm stays TensorRT's own
precisionConstraints | 8 10 | NAME | | ! the builder chooses types of layers
preview | 8 10 11 | SPEC | | ! preview features stay as the builder has them
profile | 10 11 | N+ | build --min-shapes | given again for each profile
profilingVerbosity | 8 10 11 | NAME | build --profiling-verbosity | detailed without it
refit | 8 10 11 | | build --refit |
refitFromOnnx | 10 11 | FILE | | the weights of the plan stay
refPair | 11 | N+ | --verify-against | one reference, for the inputs of the first pair
remoteAutoTuningConfig | 10 11 | URL | | safety: plans for the safe runtime are not run
reportCapabilityDLA | 10 11 | | | --dla builds at once
restricted | 8 10 | | | safety: plans for the safe runtime are not run
runtimePlatform | 10 11 | NAME | | ! a plan is built for the platform that builds it
safe | 8 10 11 | | | ! safety: plans for the safe runtime are not run
safetyPlugins | 10 11 | SPEC+ | | safety: plans for the safe runtime are not run
saveAllDebugTensors saveDebugTensors | 10 11 | SPEC | | ! no tensors are marked for debugging
saveEngine | 8 10 11 | FILE | build --save-engine |
separateProfileRun | 8 10 11 | | --profile | always in a pass of its own
serialized | 8 10 11 | FILE | | safety: of trtexec_safe
setBuildRoute | 11 | SPEC | | ! the builder chooses its route
setPluginsToSerialize | 8 10 11 | FILE+ | | ! a plan holds no plugins
shapes | 8 10 11 | SPEC | --shapes |
skipInference | 8 10 11 | | build |
sleepTime | 8 10 11 | MS | | no request is delayed, and warm-up comes before measuring
sparsity | 8 10 11 | NAME | build --sparsity | force, which rewrites weights, is not there
std | 8 10 11 | | | safety: of trtexec_safe
stripAllWeights | 10 11 | | build --refit --strip-weights |
stripWeights | 10 11 | | build --strip-weights |
stronglyTyped | 10 11 | | build --strongly-typed |
tacticSources | 8 10 11 | SPEC | build --tactic-sources |
tempdir | 8 10 11 | FOLDER | | the runtime has its own temporary folder
tempfileControls | 8 10 11 | SPEC | | the runtime has its own temporary folder
threads | 8 10 11 | | | contexts never wait for each other: one task drives all
tilingOptimizationLevel | 10 11 | N | | ! the builder takes its own level
timeDeserialize | 8 10 11 | | | every run shows and keeps the time of loading
timeRefit | 8 10 11 | | | plans are not refitted
timingCacheFile | 8 10 11 | FILE | build --timing-cache |
tuneBuildRouteFile tuningCacheFile tuningResultFile | 11 | FILE | | builds are not tuned
tuneBuildRoutes | 11 | SPEC | | builds are not tuned
tuningSearch | 11 | NAME | | builds are not tuned
tuningTimeOut | 11 | SECONDS | | builds are not tuned
uff | 8 | FILE | build --uff | prints how a UFF model is converted
uffInput | 8 | SPEC+ | | a converted model has its own inputs
uffNHWC | 8 | | | a converted model has its own layout
uint8AsymmetricQuantizationDLA | 10 11 | | | ! zero points are as the parser takes them
useCudaGraph | 8 10 11 | | --graph | on by default
useDLACore | 8 10 11 | N | build --dla |
useManagedMemory | 8 10 11 | | | ! host and device have memory of their own
useProfile | 10 11 | N | --optimization-profile |
useRuntime | 8 10 11 | NAME | --module | tensorrt_lean, tensorrt_dispatch
useSpinWait | 8 10 11 | | --wait spin | on by default
vc versionCompatible | 8 10 11 | | build --version-compatible |
verbose | 8 10 11 | | --trt-log | the builder's log stands beside each plan
warmUp | 8 10 11 | MS | --warmup | with a unit: --warmup 200ms
weightless | 10 | | build --strip-weights |
weightStreamingBudget | 10 11 | SIZE | | ! weights are not streamed
workspace | 8 | MIB | build --workspace | with a unit: --workspace 1024MiB
"""


def _options(line: str) -> list[TrtexecOption]:
    names, versions, value, here, note = (part.strip() for part in f"{line} ".split("|", 4))
    those, why = tuple(map(int, versions.split())), note.removeprefix("!").strip()
    return [TrtexecOption(name, those, value, here, why, note.startswith("!")) for name in names.split()]


TRTEXEC = {option.name: option for line in _TABLE.strip().split("\n") for option in _options(line)}
