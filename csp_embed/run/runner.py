"""What runs the parts of one device: the interface, and what goes in and out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from csp_embed.network.onnx.runtime import FAST
from csp_embed.run.device_parts import Part
from csp_embed.run.turn import Turn

Array = NDArray[Any]
MANY = 1 << 16  # lanes of a device that takes as many requests as there are samples
# How a part's time was found: said beside each figure.
MEASURED, SIMULATED, BY_COST = "measured", "simulated", "by cost"


@dataclass(frozen=True)
class Done:
    """One run of one part."""

    part: int
    outputs: Mapping[str, Array]


@dataclass(frozen=True)
class Ran:
    """One run of one part among others. ms: what the device itself took, without the way there."""

    outputs: Mapping[str, Array]
    ms: float


@dataclass(frozen=True)
class Timing:
    """How parts are measured: the median of `runs` after `warm_ups`, by clock "wall" or "cpu"."""

    runs: int = 10
    warm_ups: int = 3
    clock: str = "wall"


class Runner(Protocol):
    """One device. `load` again replaces a part's model; form: see `open_session`. `start`
    returns at once; `finish` waits for the part that was started. `run` does both, from one thread
    for each of the `lanes`; with a turn it may keep tensors of that sample, gives back at least
    those that the turn asks for, and what it did not give back is left out of `feeds`. `time` gives
    (ms, how): measured alone, cycles / clock, or the predicted cost."""

    lanes: int

    def load(self, part: Part, path: Path, form: str = FAST) -> None: ...
    def start(self, part: Part, feeds: Mapping[str, Array]) -> None: ...
    def ready(self, timeout: float) -> bool: ...
    def finish(self) -> Done: ...
    def run(self, part: Part, feeds: Mapping[str, Array], turn: Turn | None = None) -> Ran: ...
    def time(self, part: Part, feeds: Mapping[str, Array], timing: Timing) -> tuple[float, str]: ...
    def close(self) -> None: ...
