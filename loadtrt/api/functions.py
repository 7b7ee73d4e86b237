"""The functions of `import loadtrt`: what they take, return and raise.

They check what they are given and hand on (measuring.py, judging.py), so that the pages of documentation that are made
of docstrings have them side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.api.given import Configuration, FileName
    from loadtrt.report.result_files import Result
    from loadtrt.results.capacity_result import CapacityResult, SweepResult
    from loadtrt.results.fleet_result import FleetResult
    from loadtrt.results.interference_result import InterferenceResult
    from loadtrt.results.placement_result import PlacementResult
    from loadtrt.results.profile_result import ProfileResult
    from loadtrt.results.repeat_result import RepeatResult
    from loadtrt.results.run_result import RunResult
    from loadtrt.stats.profiles import LayerComparison
    from loadtrt.stats.regression import Comparison


def run(config: Configuration | None = None, *, start_at: int | None = None, **options: Any) -> RunResult:
    """Drive an engine with load, and return how fast and how late it was: `loadtrt run`.

        loadtrt.run(engine="googlenet16.trt", contexts=4, rate="500/s", objective="latency.p99 < 10ms")

    config: a configuration, or the file of one (YAML or a run.json); None for none. Options win over it.
    start_at: when to begin to measure, Unix time in ns; None: at once. Everything else is done before.
    options: options of `loadtrt run` by name. Texts are as on the command line ("10s", "500/s", "16x3x224x224"); bare
        numbers are seconds and requests per second. numpy's numbers and paths are taken, too.

    The run is made in a thread with an event loop of its own, and this call waits for it: it works in a notebook, where
    an event loop is running. What else this process computes meanwhile delays requests, and the result says so.
    Nothing is printed, and no file is written.

    Ctrl-C, or the notebook's interrupt, lets requests in flight finish, and the result is returned with the outcome
    "interrupted". The second one gives them up, and KeyboardInterrupt is raised; so it is where the engine is still
    being opened. The third leaves whatever hangs behind.

    Raises UsageError for options and files, and EngineError (of which CudaError is a kind) for an engine that cannot
    be opened. A run that fails while it measures returns its result, with the outcome "failed".
    """
    from loadtrt.api.measuring import running

    return running(config, start_at, options).result()


async def run_async(config: Configuration | None = None, *, start_at: int | None = None, **options: Any) -> RunResult:
    """`run`, awaited on asyncio, whose event loop goes on meanwhile.

    A cancellation of the task does what Ctrl-C does to `run`: the first one is answered by the result, with the outcome
    "interrupted", and the second one raises CancelledError.
    """
    from loadtrt.api.measuring import running

    return await running(config, start_at, options).awaited()


def sweep(config: Configuration | None = None, **options: Any) -> SweepResult:
    """Run at each point of a grid, and return all runs with their knee and Pareto front: `loadtrt sweep`.

        loadtrt.sweep(engine="googlenet16.trt", contexts=[1, 2, 4, 8], batch=[1, 16])
        loadtrt.sweep(engine="googlenet16.trt", contexts=4, rate="500/s..3000/s:6")

    config: as for `run`.
    options: options of `loadtrt sweep` by name. An axis takes a list of values, or the text of the command line; a
        value by itself is an axis of one. all=True measures every point. json="sweep.json" keeps the result after each
        point, and resume=True continues an unfinished one; force=True writes over what the file holds.

    Threads, Ctrl-C and errors are as for `run`. An interrupted sweep has the points that were measured. Raises
    EngineError where no point could be measured; a point that fails beside others is kept with its failure.
    """
    from loadtrt.api.measuring import sweeping

    return sweeping(config, options).result()


async def sweep_async(config: Configuration | None = None, **options: Any) -> SweepResult:
    """`sweep`, awaited as `run_async` is."""
    from loadtrt.api.measuring import sweeping

    return await sweeping(config, options).awaited()


def capacity(config: Configuration | None = None, **options: Any) -> CapacityResult:
    """Find the highest arrival rate that meets the objectives, and confirm it: `loadtrt capacity`.

        found = loadtrt.capacity(engine="googlenet16.trt", objective="latency.p99 < 10ms", contexts=[1, 2, 4])
        found.best.confirmed_per_s

    config: as for `run`; its load is left out.
    options: options of `loadtrt capacity` by name. contexts and batch take lists of candidates. json, resume and force
        are as for `sweep`.

    Threads, Ctrl-C and errors are as for `run`. An interrupted search has the trials that were made. Raises EngineError
    where no candidate's engine could be opened.
    """
    from loadtrt.api.measuring import searching

    return searching(config, options).result()


async def capacity_async(config: Configuration | None = None, **options: Any) -> CapacityResult:
    """`capacity`, awaited as `run_async` is."""
    from loadtrt.api.measuring import searching

    return await searching(config, options).awaited()


def interference(config: Configuration | None = None, **options: Any) -> InterferenceResult:
    """Measure how models on one device slow each other down, and what protects them: `loadtrt interference`.

        pair = loadtrt.interference(engines=["a.plan", "b.plan"], neighbour=["50%", "closed"], share="streams,priority")
        pair.to_pandas()[["model", "neighbour", "neighbour_level", "share", "p99_ratio", "p99_low", "p99_high"]]

    config: as for `run`; models of its own beside those of the options.
    options: options of `loadtrt interference` by name. engines is a list; models has the options of each by name, as
        for `run`. share and neighbour take lists, or the text of the command line. stressors=True measures each model
        beside stressors, too; stressor has your own by name. json, resume and force are as for `sweep`.

    Threads, Ctrl-C and errors are as for `run`. An interrupted measurement has the cells that were measured. Raises
    EngineError where no cell could be; one that fails beside others is kept with its failure.
    """
    from loadtrt.api.measuring import interfering

    return interfering(config, options).result()


async def interference_async(config: Configuration | None = None, **options: Any) -> InterferenceResult:
    """`interference`, awaited as `run_async` is."""
    from loadtrt.api.measuring import interfering

    return await interfering(config, options).awaited()


def profile(config: Configuration | None = None, **options: Any) -> ProfileResult:
    """Time each layer of an engine, alone on its device: `loadtrt profile`.

    config: as for `run`; its load, lanes and files are left out.
    options: options of `loadtrt profile` by name.

    Threads, Ctrl-C and errors are as for `run`. Times compare layers: throughput and latency are those of `run`.
    """
    from loadtrt.api.measuring import profiling

    return profiling(config, options).result()


async def profile_async(config: Configuration | None = None, **options: Any) -> ProfileResult:
    """`profile`, awaited as `run_async` is."""
    from loadtrt.api.measuring import profiling

    return await profiling(config, options).awaited()


@overload
def plan_capacity(measurements: Mapping[str, Result | FileName], /, **options: Any) -> PlacementResult: ...


@overload
def plan_capacity(*measurements: Result | FileName, **options: Any) -> FleetResult: ...


def plan_capacity(*measurements: Any, **options: Any) -> FleetResult | PlacementResult:
    """Compute how many GPUs a demand needs, for each policy that routes requests: `loadtrt plan-capacity`.

        loadtrt.plan_capacity(found, demand="5000/s", growth="30%", headroom="20%", spares=1)
        loadtrt.plan_capacity({"a": found, "b": "b.json"}, demand={"a": 3000, "b": 800}, together=pair)

    measurements: results, or their files: one of `capacity` or `sweep`, or several of `run`. Of several models the
        capacity of each alone, by name.
    options: options of `loadtrt plan-capacity` by name; exactly one of demand, demand_inferences, stages and trace.
        Shares are texts such as "30%", or numbers below 1. Of several models demand is by name, and together has what
        was measured beside each other: one result or file, or a list.

    Threads and Ctrl-C are as for `run`; an interrupted plan has the policies that were computed. Raises UsageError for
    options, files, and objectives that cannot be predicted.
    """
    from loadtrt.api.judging import planning

    return planning(measurements, options).result()


@overload
async def plan_capacity_async(measurements: Mapping[str, Result | FileName], /, **options: Any) -> PlacementResult: ...


@overload
async def plan_capacity_async(*measurements: Result | FileName, **options: Any) -> FleetResult: ...


async def plan_capacity_async(*measurements: Any, **options: Any) -> FleetResult | PlacementResult:
    """`plan_capacity`, awaited as `run_async` is."""
    from loadtrt.api.judging import planning

    return await planning(measurements, options).awaited()


@overload
def compare(
    a: RunResult | RepeatResult | Sequence[RunResult],
    b: RunResult | RepeatResult | Sequence[RunResult],
    *,
    fail_if: str | Sequence[str] = (),
) -> Comparison: ...


@overload
def compare(a: ProfileResult, b: ProfileResult) -> LayerComparison: ...


@overload
def compare(
    a: RunResult | RepeatResult | ProfileResult | FileName | Sequence[RunResult | FileName],
    b: RunResult | RepeatResult | ProfileResult | FileName | Sequence[RunResult | FileName],
    *,
    fail_if: str | Sequence[str] = (),
    layer_info_a: FileName | None = None,
    layer_info_b: FileName | None = None,
) -> Comparison | LayerComparison: ...


def compare(
    a: Any,
    b: Any,
    *,
    fail_if: str | Sequence[str] = (),
    layer_info_a: FileName | None = None,
    layer_info_b: FileName | None = None,
) -> Comparison | LayerComparison:
    """Compare two results side by side: `loadtrt compare`.

        loadtrt.compare(before, after, fail_if=["latency.p99 +5%", "throughput -3%"]).thresholds[0].verdict

    a, b: a result of `run`, or its file; a list of several, which measures the variance between runs; or two of
        `profile`. Files may be trtexec's (--exportTimes, --exportProfile), too.
    fail_if: thresholds on what may be worse in b, which are judged in `thresholds`.
    layer_info_a, layer_info_b: files of trtexec's --exportLayerInfo, for its profiles.

    Runs give a Comparison: B/A of each number, with a 95 % confidence interval. Profiles give a LayerComparison. Raises
    UsageError for files, thresholds, and sides that cannot be compared.
    """
    from loadtrt.api.judging import compare as compared

    return compared(a, b, fail_if, layer_info_a, layer_info_b)


def merge(*results: RunResult | FileName) -> RunResult:
    """Merge the results of the workers of a fleet into one: `loadtrt merge`.

        loadtrt.merge("0.json", "1.json").model.throughput

    results: of `run` with `worker`, or their files; or some of them merged already.

    Workers without a result are lost: what the others measured is kept, and the outcome is "failed". Raises UsageError
    for files, for results of no worker, of two fleets, and for two of one worker.
    """
    from loadtrt.api.judging import merge as merged

    return merged(results)


def read(path: FileName) -> Result:
    """Read a result: of `run`, `sweep`, `capacity`, `interference`, `plan_capacity`, `profile` or `compare`, as
    `Result.write` and the commands' --json write it. It equals the result that was written.

    Raises UsageError for a file that is missing, damaged, or of something else.
    """
    from loadtrt.api.judging import read as read_result

    return read_result(path)
