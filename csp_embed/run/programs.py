"""A device whose parts are programs of their own, run by the functional simulator; its time is
cycles over the clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from csp_embed.errors import InputError
from csp_embed.ir.network import Device
from csp_embed.network.onnx.runtime import FAST
from csp_embed.run.device_parts import Part
from csp_embed.run.devices import Inside, clock_of
from csp_embed.run.runner import SIMULATED, Array, Done, Ran, Timing
from csp_embed.run.turn import Turn


class PartProgram(Protocol):
    """One part, built. run: the tensors that it makes, by their names in the model. write: its
    program file, with these inputs; nothing where nothing is computed."""

    @property
    def cycles(self) -> int: ...
    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]: ...
    def write(self, path: Path, feeds: Mapping[str, Array]) -> None: ...


BuildPart = Callable[[Part, Device], PartProgram]


class ProgramSimulator(Inside):
    """Runs every part as one program. Equal inputs give equal outputs, so that a repeated run is
    answered from the first."""

    def __init__(self, device: Device, build: BuildPart) -> None:
        super().__init__()
        self.device, self.build, self.clock = device, build, clock_of(device)
        self.programs: dict[int, PartProgram] = {}
        self.names: dict[int, str] = {}
        self.seen: dict[int, tuple[dict[str, Array], Done]] = {}

    def load(self, part: Part, path: Path, form: str = FAST) -> None:
        # Its form is the machine's: loaded again it is the same program.
        if part.index not in self.programs:
            self.programs[part.index] = self.build(part, self.device)
            self.names[part.index] = part.name

    def start(self, part: Part, feeds: Mapping[str, Array]) -> None:
        given = {n: feeds[n] for n in part.reads}
        known = self.seen.get(part.index)
        # Simulating takes seconds, and measuring repeats equal inputs.
        if known is not None and all(np.array_equal(given[n], known[0][n]) for n in given):
            self.result = known[1]
            return
        self.result = Done(part.index, self.programs[part.index].run(given))
        self.seen[part.index] = given, self.result

    def write(self, folder: Path) -> None:
        """The programs that have run, as files named after their parts."""
        for index, (feeds, _) in self.seen.items():
            self.programs[index].write(folder / f"{self.names[index]}.npz", feeds)

    def run(self, part: Part, feeds: Mapping[str, Array], turn: Turn | None = None) -> Ran:
        # A rate would be that of the simulator, not of the device.
        raise InputError(
            f"{self.device.name} is simulated, cycle by cycle: it has no rate of its own",
            hint="leave out --in-flight, or put its layers elsewhere with --fix",
        )

    def time(self, part: Part, feeds: Mapping[str, Array], timing: Timing) -> tuple[float, str]:
        return self.programs[part.index].cycles / (self.clock * 1e3), SIMULATED
