"""An engine that is open for a model of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from loadtrt.engines.engine import Submits
from loadtrt.engines.open import open_engine
from loadtrt.errors import EngineError
from loadtrt.lanes.input_sets import inputs_for
from loadtrt.records.records import FAILED, OK

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from loadtrt.asked.model import Model
    from loadtrt.engines.engine import Engine
    from loadtrt.engines.reference import Reference
    from loadtrt.lanes.model_run import Session
    from loadtrt.load.inputs import InputSets
    from loadtrt.results.engine_info import MemoryBill
    from loadtrt.results.precisions import Deviation
    from loadtrt.runs.narrowed import Part
    from loadtrt.runs.watched import Talks


@dataclass(slots=True)
class Opened:
    """An engine that is open for one model.

    options: those that it was opened and is allocated with.
    inputs: those of all parts.
    verified: the models beside which outputs were compared with those of quiet requests, itself among them.
    reference: what outputs are compared with; deviation: what came of it, once a run has compared them.
    load_ns, allocate_ns: duration of loading and of allocating; None while no lanes are allocated.
    ways: how each part's earlier runs submitted, and the rates by which that was chosen: the best way depends on how
        many lanes there are.
    hangs: whether requests of the last run may still be in flight.
    broken: whether the last run failed or left the engine hanging, so that it is not used again.
    """

    engine: Engine
    options: dict[str, Any]
    inputs: InputSets
    bill: MemoryBill
    load_ns: int
    reference: Reference | None = None
    deviation: Deviation | None = None
    allocate_ns: int | None = None
    runs: int = 0
    verified: set[frozenset[str]] = field(default_factory=set)
    ways: dict[Part | None, tuple[int, Mapping[str, float | None]]] = field(default_factory=dict)
    hangs: bool = False
    broken: bool = False

    def allocate(self) -> None:
        """Make the lanes. Raises EngineError."""
        began = perf_counter_ns()
        self.engine.allocate(self.inputs.sets)
        self.allocate_ns = perf_counter_ns() - began

    def submit_as_before(self, part: Part | None) -> None:
        """As in the part's earlier runs, or in the usual way where there were none."""
        if isinstance(self.engine, Submits) and self.allocate_ns is not None:
            self.engine.use(*self.ways.get(part, (None, {})))

    def keep_way(self, part: Part | None) -> None:
        """For later runs of the part."""
        if isinstance(self.engine, Submits) and self.engine.way is not None:
            self.ways[part] = self.engine.way, self.engine.info.submit_rates


def open_model(model: Model, options: dict[str, Any], talks: Talks, also: Collection[str]) -> Opened:
    """Load an engine, make its inputs, count its memory. also: as for `open_engine`. Raises LoadtrtError."""
    began = perf_counter_ns()
    engine = open_engine(model, talks.say, talks.status, also)
    try:
        inputs = inputs_for(engine, model)
        return Opened(engine, options, inputs, engine.memory(inputs.sets), perf_counter_ns() - began)
    except BaseException:
        engine.close()
        raise


async def emptied(engine: Engine, session: Session, patience_ns: int) -> bool:
    """Whether nothing is in flight: the next run would take what the engine completes for its own requests."""
    recorder = session.recorder
    if recorder is None or session.failure is not None:
        return recorder is None and session.failure is None
    left = recorder.submitted - int(recorder.by_status[OK] + recorder.by_status[FAILED])
    give_up_ns = engine.now_ns() + patience_ns
    while left > 0 and engine.now_ns() < give_up_ns:
        try:
            left -= len(await engine.wait(give_up_ns))
        except EngineError:
            return False
    return left <= 0
