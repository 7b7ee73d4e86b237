"""ONNX models on the CPU, by ONNX Runtime: the engine where there is no GPU, a second opinion where there is one."""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from time import perf_counter_ns
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from loadtrt.engines.batch_size import BatchSize, batch_size
from loadtrt.engines.engine import Completion
from loadtrt.engines.external_data import EXTERNAL_FOLDER
from loadtrt.engines.old_opsets import remedy
from loadtrt.engines.onnx_model import LEAVE_OUT, OnnxModel, read_model
from loadtrt.engines.shapes import InputShape, takes_larger
from loadtrt.engines.waiting import Wakeup
from loadtrt.environment import available_bytes, cpu_model, import_onnxruntime
from loadtrt.errors import EngineError
from loadtrt.load.tensors import TensorSpec, bytes_of, largest_of
from loadtrt.printing import shortened
from loadtrt.results.engine_info import EngineInfo, MemoryBill
from loadtrt.units import NEVER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from loadtrt.asked.model import Model
    from loadtrt.engines.external_data import ExternalData
    from loadtrt.engines.index_tables import Role
    from loadtrt.engines.plan_profile import Profiled, ProfileLength, Watch
    from loadtrt.engines.shapes import Sizes
    from loadtrt.load.tensors import Arrays
    from loadtrt.results.engine_info import ClockMapping


_OUT_OF_BOUNDS = re.compile(r"out of (data )?bounds|out of range|inclusive range|[Ii]nvalid ind(ex|ices?)\b")
# Where in ONNX Runtime's source an error arose, and the condition there.
_SOURCE = re.compile(
    r"\S+\.(?:h|hpp|cc|cpp|cuh?):\d+ "
    r"(?:.*? was false\. |[^.(]*::.*?\w\(.*?\)(?: const)?(?: \[with [^]]*\])?  ?|\w+ )?"
)


def load_onnxruntime(config: Model) -> OnnxRuntimeEngine:
    """The engine for `config.engine`, an .onnx file or zoo:NAME, on the CPU.

    Contexts are concurrent runs, one worker thread each. ONNX Runtime's intra-op threads belong to a session and all
    its runs share them: of T threads one is the caller's and T - 1 are the session's. So with one thread per context
    all contexts share one session and its weights; with more, each of several contexts has a session (and a copy of
    the weights) of its own, or its runs would find more threads than they were given, or fewer. Without
    `threads_per_context` the cores that this process may use are divided among the contexts.

    Raises UsageError for a file that cannot be read or is not an ONNX model, and for sizes left open by --batch and
    --shapes; EngineError for what ONNX Runtime refuses.
    """
    model = read_model(config)
    cores = len(os.sched_getaffinity(0))
    threads = config.threads_per_context or max(1, cores // config.contexts)
    sessions = config.contexts if threads > 1 else 1
    try:
        model, session = open_model(model, threads, config.contexts)
    except EngineError:
        if model.conversion is not None:  # leaving --fp16 out is a remedy only if the model runs in FP32
            open_model(read_model(config.model_copy(update={"fp16": False})), threads, config.contexts)
        raise
    notes = list(model.notes)
    outputs = _outputs(model, session)
    parts = tuple((*inputs, *outputs) for inputs in model.sizes.parts)
    batches = [_batch_of(model, part, sizes) for part, sizes in zip(parts, config.parts, strict=True)]
    largest = largest_of(parts)
    tensors, batch = parts[largest], batches[largest]
    notes += batch.notes

    if sessions > 1:
        notes.append(
            f"each context has a session and weights of its own, since its {threads} threads belong to a session: "
            f"with --threads-per-context 1 all contexts share one session"
        )
    notes += [
        f"the model does not say how large output {tensor} is: the memory bill leaves it out"
        for tensor in tensors
        if min(tensor.shape, default=0) < 0
    ]
    info = EngineInfo(
        kind="onnxruntime",
        name=config.engine,
        flavour="onnxruntime",
        version=_version(),
        device=f"{cpu_model()}, {cores} {'core' if cores == 1 else 'cores'}",
        sha256=model.sha256,
        batch=batch.size,
        batch_from=batch.reason,
        larger_batch=takes_larger(model.sizes.inputs, {spec.name: spec.shape for spec in parts[largest]}),
        tensors=tensors,
        precision=model.conversion.text if model.conversion else "",
        conversion=model.conversion,
        mode={
            "threads per context": str(threads),
            "sessions": str(sessions),
            "spinning": "on" if threads > 1 and config.contexts == 1 else "off",
        },
        notes=tuple(notes),
    )
    counts = tuple(item.size for item in batches)
    return OnnxRuntimeEngine(config.contexts, config.buffers, info, parts, counts, model, session, threads)


def _batch_of(model: OnnxModel, tensors: Sequence[TensorSpec], sizes: Sizes) -> BatchSize:
    """Inferences of a request, by the outputs that ONNX Runtime infers, too."""
    shapes = {tensor.name: tensor.shape for tensor in tensors if tensor.is_input}
    outputs = [InputShape(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors if not tensor.is_input]
    return batch_size(model.sizes.inputs, shapes, outputs, batch=sizes.batch, inferences=sizes.inferences_per_request)


@dataclass(slots=True)
class _Lane:
    session: Any
    outputs: list[Arrays]
    jobs: SimpleQueue[tuple[int, Arrays] | None] = field(default_factory=SimpleQueue)
    submitted: int = 0
    in_flight: int = 0


class OnnxRuntimeEngine:
    """The Engine protocol over onnxruntime.InferenceSession; made by `load_onnxruntime`.

    A run has no copies to measure: h2d_ns and d2h_ns are 0, and compute_ns is the whole of session.run(), which reads
    the input set in place. The worker thread stamps a completion as soon as run() is back in Python.
    """

    per_launch = 1
    clock = None

    def __init__(
        self,
        contexts: int,
        buffers: int,
        info: EngineInfo,
        parts: Sequence[Sequence[TensorSpec]],
        batches: Sequence[int],
        model: OnnxModel,
        session: Any,
        threads: int,
    ) -> None:
        self.contexts, self.buffers, self.parts, self.batches, self.info = contexts, buffers, parts, batches, info
        self._model, self._session, self._threads = model, session, threads
        self._options = import_onnxruntime().RunOptions()
        self._names = [tensor.name for tensor in info.tensors if not tensor.is_input]
        self._inputs: list[Arrays] = []
        self._lanes: list[_Lane] = []
        self._workers: list[threading.Thread] = []
        self._done: deque[Completion] = deque()
        self.wakeup = Wakeup()

    def memory(self, inputs: Sequence[Arrays]) -> MemoryBill:
        """Lanes hold outputs only: runs read the input sets in place. Scratch memory is unknown."""
        outputs = sum(tensor.nbytes for tensor in self.info.tensors if not tensor.is_input)
        return MemoryBill(
            contexts=self.contexts,
            buffers=self.buffers,
            weights_bytes=self._model.weights_bytes * int(self.info.mode["sessions"]),
            context_bytes=None,
            device_io_bytes=outputs,
            host_io_bytes=0,
            inputs_bytes=sum(array.nbytes for arrays in inputs for array in arrays.values()),
            free_bytes=available_bytes(),
        )

    def allocate(self, inputs: Sequence[Arrays]) -> None:
        self._inputs = list(inputs)
        shared = self.info.mode["sessions"] == "1"
        for number in range(self.contexts):
            own = number > 0 and not shared
            session = open_session(self._model, self._threads, self.contexts) if own else self._session
            self._lanes.append(_Lane(session, [{} for _ in range(self.buffers)]))
            worker = threading.Thread(target=self._serve, args=(number,), name=f"loadtrt-lane-{number}", daemon=True)
            try:
                worker.start()
            except RuntimeError as error:
                raise EngineError(f"no thread for context {number + 1} of {self.contexts}: {error}") from None
            self._workers.append(worker)

    def now_ns(self) -> int:
        return perf_counter_ns()

    def submit(self, lane: int, inputs: int) -> None:
        target = self._lanes[lane]
        if target.in_flight >= self.buffers:
            raise EngineError(
                f"lane {lane} has {target.in_flight} requests in flight, as many as buffers: wait for one first"
            )
        target.jobs.put((target.submitted % self.buffers, self._inputs[inputs]))
        target.submitted += 1
        target.in_flight += 1

    async def wait(self, until_ns: int, *, soon: bool = True) -> Sequence[Completion]:  # noqa: ARG002  # wakes on time
        while True:
            await self.wakeup.wait(0 if self._done else until_ns)
            if self._done or perf_counter_ns() >= until_ns:
                break
        completions = [self._done.popleft() for _ in range(len(self._done))]
        for completion in completions:
            self._lanes[completion.lane].in_flight -= 1
        return completions

    def next_look(self, *, soon: bool) -> int:  # noqa: ARG002  # threads notify
        """As Shares says."""
        return 0 if self._done else NEVER

    def outputs(self, lane: int, buffer: int) -> Arrays:
        """As the protocol says; nothing for a request that failed."""
        return self._lanes[lane].outputs[buffer]

    def profile(self, inputs: Arrays, length: ProfileLength, profiled: Profiled, watch: Watch) -> None:
        """As ProfilesLayers says."""
        from loadtrt.engines.onnx_profile import profile_model

        profile_model(self._model, self._threads, inputs, length, profiled, watch)

    def clock_mapping(self) -> ClockMapping | None:
        return None

    def close(self) -> None:
        self._options.terminate = True  # a run in progress ends at its next node
        for lane in self._lanes:
            lane.jobs.put(None)
        for worker in self._workers:
            worker.join()
        self._lanes.clear()
        self._workers.clear()
        self._session = None  # and with it its threads
        self.wakeup.close()

    def _serve(self, number: int) -> None:
        """A worker thread: runs its lane's requests in order until it meets None, or until the engine closes."""
        lane = self._lanes[number]
        while (job := lane.jobs.get()) is not None and not self._options.terminate:
            buffer, feeds = job
            error = None
            started_ns = perf_counter_ns()
            try:
                arrays = lane.session.run(self._names, feeds, self._options)
                completed_ns = perf_counter_ns()
                lane.outputs[buffer] = dict(zip(self._names, arrays, strict=True))
            except Exception as failure:  # whatever it is, it belongs to this request
                completed_ns = perf_counter_ns()
                lane.outputs[buffer] = {}
                error = sentence_of(failure, self._model.sizes.roles)
            self._done.append(Completion(number, buffer, completed_ns, 0, completed_ns - started_ns, 0, error))
            self.wakeup.notify()


def open_model(model: OnnxModel, threads: int, contexts: int) -> tuple[OnnxModel, Any]:
    """A session as `open_session` makes it, and the model in it: that without sizes, with a note, where ONNX Runtime
    refuses the one with them."""
    try:
        return model, open_session(model, threads, contexts)
    except EngineError as refusal:
        if not model.sizes.declared:
            raise
        note = f"the model's sizes are left open, as with them {refusal}"
        bare = replace(model.without_sizes(), notes=(*model.notes, note))
        return bare, open_session(bare, threads, contexts)


def open_session(
    model: OnnxModel, threads: int, contexts: int, *, trace: Path | None = None, optimised: Path | None = None
) -> Any:
    """An InferenceSession. Raises EngineError where ONNX Runtime refuses.

    threads: intra-op threads.
    contexts: how many sessions there will be.
    trace: profile every run into a file that begins so.
    optimised: write the model as it will run there.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if contexts > 1:
        # Idle pool threads spin before they sleep, which speeds up a run that has the machine to itself but takes the
        # cores away from the other contexts' runs, and from the scheduler.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if trace is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(trace)
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    try:
        return session_of(model.data, model.external, options)
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        converted = f" as loadtrt converted it to FP16 ({LEAVE_OUT})" if model.conversion else ""
        said = f"{sentence_of(error)}{remedy(model.opset, str(error))}"
        raise EngineError(f"ONNX Runtime {_version()} refuses {model.name}{converted}: {said}") from None


def session_of(data: bytes, external: ExternalData | None, options: Any) -> Any:
    """An InferenceSession of a serialized model on the CPU. Raises what ONNX Runtime raises."""
    if external:
        options.add_session_config_entry(EXTERNAL_FOLDER, str(external.folder))
    # enable_fallback=0: the fallback, from one provider to another, prints to stdout.
    providers = ["CPUExecutionProvider"]
    return import_onnxruntime().InferenceSession(data, options, providers=providers, enable_fallback=0)


def _outputs(model: OnnxModel, session: Any) -> list[TensorSpec]:
    """Output tensors with the shapes that ONNX Runtime infers from the inputs'; -1 (and no bytes) where it cannot."""
    specs = []
    for output in session.get_outputs():
        shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in output.shape)
        dtype = model.output_dtypes[output.name]
        specs.append(TensorSpec(output.name, False, dtype, shape, 0 if -1 in shape else bytes_of(dtype, shape)))
    return specs


def sentence_of(error: Exception, roles: Mapping[str, Role] = MappingProxyType({})) -> str:
    """What went wrong, on one line, without ONNX Runtime's prefix of codes and names of its source. roles: of the
    integer inputs of the request that failed; where these may be why, what bounds them is named."""
    said = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(str(error).split()))
    said = shortened(_SOURCE.sub("", said).rstrip("."), 400)
    beyond = bool(_OUT_OF_BOUNDS.search(said))
    wholes = [name for name, role in roles.items() if role == "size" or (beyond and role)]
    wholes = wholes or (list(roles) if beyond else [])
    if not wholes:
        return said
    known = re.search(r"inclusive range \[-?\d+,(\d+)\]", said)
    limits = f"0..{known[1]}" if known and [roles[name] for name in wholes] == ["index"] else "LOW..HIGH"
    which = f", where NAME is {' or '.join(map(shortened, wholes[:4]))}" if wholes[1:] else ""
    name = "NAME" if wholes[1:] else shortened(wholes[0])
    return f"{said}: bound random integers with --input-range {name}:{limits}{which}"


def _version() -> str:
    return str(import_onnxruntime().__version__)
