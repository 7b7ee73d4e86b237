"""What observers know of a run and what does not change while it goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RunFacts:
    """run: an id that no other run has; model: what `--engine` says, without its folder. rate: offered requests a
    second, None in a closed loop. duration_ns, requests: how long it will measure, 0 and None where not asked.
    objectives: (text, metric, quantile, bound in ns), in the order of Snapshot.good. information: engine, precision,
    mode, ... for people, label by label. items: inferences of a request with each input set, one number where all have
    the same; no page of metrics tells.
    """

    run: str
    model: str
    lanes: int
    batch: int
    rate: float | None
    duration_ns: int
    requests: int | None
    objectives: tuple[tuple[str, str, float, int], ...] = ()
    information: dict[str, str] = field(default_factory=dict)
    items: tuple[int, ...] = (1,)

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RunFacts:
        """The inverse of `to_json`."""
        given: dict[str, Any] = json.loads(text)
        objectives = tuple((text, metric, float(rank), int(bound)) for text, metric, rank, bound in given["objectives"])
        return cls(**{**given, "objectives": objectives, "items": tuple(given["items"])})
