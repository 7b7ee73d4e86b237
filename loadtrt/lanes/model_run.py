"""A model of a run: its engine, its load, and what has been measured of it so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from loadtrt.errors import EngineError, UsageError, shortage_of
from loadtrt.lanes.scheduler import Load
from loadtrt.load.dealing import of_one_host
from loadtrt.load.request_sizes import Batcher, draw

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.model import Model
    from loadtrt.engines.engine import Engine
    from loadtrt.engines.reference import Reference
    from loadtrt.lanes.recorder import Recorder
    from loadtrt.lanes.scheduler import Driven
    from loadtrt.lanes.shared_router import SharedRouter
    from loadtrt.load.dealing import Deal
    from loadtrt.load.inputs import InputOrigin
    from loadtrt.load.tensors import Arrays
    from loadtrt.records.board import Board
    from loadtrt.results.engine_info import Verification
    from loadtrt.results.precisions import Deviation

    OnTick: TypeAlias = Callable[["Phase", int, int, int], None]  # phase, elapsed ns, submitted, completed

Phase = Literal["verify", "warm-up", "measure"]


@dataclass(slots=True)
class Session:
    """What a run has measured so far: complete after `run_session`, and truthful at any moment before.

    recorder, driven: of the measuring phase; None until it began.
    deviation: of a quiet request's outputs from a reference, where there is one.
    verification: outputs under load compared with those of a quiet run, where asked for.
    failure: the sentence of what ended the run.
    fault: the exception, where nobody expected it.
    clocks_settled: whether the GPU's clocks were steady after warm-up; None where that is not known.
    ended_early: why measuring ended before its time, though nothing went wrong.
    began_at: when measuring began, Unix time in ns.
    began_error_ns: the greatest error of `began_at`.
    late_start_ns: how long after the instant that was asked for measuring began; None where none was.
    origins, notes: where the values of each input come from, and what the user should read about them.
    pace_ns: the longest time without a completion that a completion has ended, where that was over a second, else 0;
        None while nothing was completed.
    trace: what the trace holds, as `ModelResult.trace` has it.
    router: what the requests are routed by among workers; None where they are not.
    outputs: of one quiet request with the first input set, after measuring, where the configuration asks for them; or
        the sentence of why there are none.
    """

    allocate_ns: int = 0
    compile_ns: int = 0
    verify_ns: int = 0
    warmup_ns: int = 0
    warmup_requests: int = 0
    recorder: Recorder | None = None
    driven: Driven | None = None
    deviation: Deviation | None = None
    verification: Verification | None = None
    interrupted: bool = False
    failure: str | None = None
    fault: Exception | None = None
    clocks_settled: bool | None = None
    ended_early: str | None = None
    began_at: int | None = None
    began_error_ns: int = 0
    late_start_ns: int | None = None
    input_sets: int = 1
    origins: Mapping[str, InputOrigin] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    pace_ns: int | None = None
    outputs: Arrays | str | None = None
    trace: str = ""
    router: SharedRouter | None = None

    def fail(self, error: Exception) -> None:
        """Note what ended the run of this model."""
        self.failure = str(error) if isinstance(error, EngineError) else shortage_of(error)
        if self.failure is None:
            self.failure = f"a fault in loadtrt itself: {type(error).__name__}: {error}"
            self.fault = error


@dataclass(slots=True, eq=False)
class ModelRun:
    """A model of a run, whose engine is loaded, and what is measured of it.

    name: of the model in the configuration.
    inputs: the input sets, as lanes/input_sets.py makes them.
    on_tick: called as (phase, elapsed ns, submitted, completed) at each phase's beginning, with zeros, and about once a
        second.
    board: the memory that observers read: the phases, and the rows of the measuring phase.
    allocated: the lanes are allocated with these inputs, by an earlier run.
    reference: what the outputs for the first input set are compared with, before anything is counted.
    routing: descriptor of the memory by which the workers of this host route requests; None where there is none.
    """

    engine: Engine
    model: Model
    inputs: Sequence[Arrays]
    session: Session
    name: str = ""
    on_tick: OnTick | None = None
    board: Board | None = None
    allocated: bool = False
    reference: Reference | None = None
    routing: int | None = None

    def load(self, config: RunConfig) -> Load:
        """The load to measure. Raises UsageError for arrivals that cannot be drawn."""
        model, session = self.model, self.session
        due, places = config.due(model)
        session.trace = model.load.digest(config.keys(model))
        session.input_sets = len(self.inputs) // len(model.parts)
        order: Sequence[int] = range(len(self.inputs))
        if model.mix_parts:
            seed = model.seed if config.deal is None or due is not None else config.deal.seed(model.seed)
            order = draw([part.weight for part in model.mix_parts], session.input_sets, seed)
            if places is not None and len(places):
                order = np.resize(order, places[-1] + 1)[places].tolist()
        router, deal = None, config.deal
        if due is not None and deal is not None and deal.pooled:
            if config.max_duration is not None:  # workers do not stop at the same ns
                due = due[: np.searchsorted(due, config.max_duration, side="right")]
            sizes = order if model.mix_parts else ()
            session.router = router = self._router(deal, due, sizes)
            order = [0] * len(due) if sizes else order
        return Load(
            due=due,
            least_ns=config.least_ns(model),
            least_requests=config.own_requests(model) or 0,
            most_ns=config.max_duration,
            drain_ns=config.drain,
            order=order,
            most_waiting=model.max_queue,
            batcher=None if model.batching is None else Batcher(model.batching, session.input_sets),
            router=router,
        )

    def _router(self, deal: Deal, due: npt.NDArray[np.int64], sizes: Sequence[int]) -> SharedRouter:
        """What the requests are routed by. Raises UsageError where no other worker can know of them."""
        from loadtrt.lanes.shared_router import SharedRouter

        if self.routing is None:
            raise UsageError(of_one_host(deal.routing))
        return SharedRouter.join(self.routing, deal, due, self.places, self.model.seed, sizes)

    @property
    def failed(self) -> bool:
        """Whether its run is over, as something went wrong."""
        return self.session.failure is not None

    @property
    def places(self) -> int:
        """Buffer sets of all lanes."""
        return self.engine.contexts * self.engine.buffers

    @property
    def items(self) -> list[int]:
        """As `items_of`."""
        return items_of(self.engine, self.model, len(self.inputs))

    def begin(self, phase: Phase) -> None:
        """A phase begins."""
        if self.board is not None:
            self.board.enter(phase)
        if self.on_tick is not None:
            self.on_tick(phase, 0, 0, 0)

    def ticker(self, phase: Phase, began: int, before: int = 0) -> Callable[[int, int], None] | None:
        """What tells `on_tick` how far a phase is. before: number of requests of its earlier loads."""
        on_tick, engine = self.on_tick, self.engine
        if on_tick is None:
            return None
        return lambda submitted, completed: on_tick(
            phase, engine.now_ns() - began, before + submitted, before + completed
        )


def tickers(on_tick: OnTick | None, models: int) -> list[OnTick | None]:
    """An `on_tick` for each of several models, which tell one of all models together: where the latest phase is, with
    the sums of the requests."""
    if on_tick is None or models == 1:
        return [on_tick] * models
    counts = [(0, 0)] * models
    begun: list[Phase] = []

    def ticker(place: int) -> OnTick:
        def tick(phase: Phase, elapsed_ns: int, submitted: int, completed: int) -> None:
            if phase not in begun:
                begun.append(phase)
                counts[:] = [(0, 0)] * models
                on_tick(phase, 0, 0, 0)
            if elapsed_ns:
                counts[place] = submitted, completed
                on_tick(phase, elapsed_ns, *map(sum, zip(*counts, strict=True)))

        return tick

    return [ticker(place) for place in range(models)]


def unfailed(runs: Sequence[ModelRun]) -> list[ModelRun]:
    """Those that go on."""
    return [run for run in runs if not run.failed]


def items_of(engine: Engine, model: Model, sets: int) -> list[int]:
    """Inferences in a request with each input set, one number where all have the same. A batcher's requests are single,
    whatever batch they go with."""
    if model.batcher is not None:
        return [1]
    if model.mix is None:
        return [engine.info.batch]
    return [batch for batch in engine.batches for _ in range(sets // len(engine.parts))]
