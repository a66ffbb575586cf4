"""Quantised networks on devices that name an `isa`: what chains of layers cost there, and their
programs.

Takes: a model's nodes and layers.  Leaves: costs by layer: a layer's share of the cycles of the
whole network's program, in which tensors keep their layouts from layer to layer; and for a part of
a plan the program that runs it. Networks that are no quantised ones have the costs of single
kernels (`kernels.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.commands.planning.kernels import Kernels
from csp_embed.errors import InputError
from csp_embed.ir.network import Device
from csp_embed.network.onnx.layers import Layer
from csp_embed.network.onnx.net import Net
from csp_embed.network.quantised.graph import Graph
from csp_embed.network.quantised.onnx.graph import read_net
from csp_embed.network.quantised.onnx.values import Real, Stored
from csp_embed.run.device_parts import Part
from csp_embed.run.devices import clock_of

if TYPE_CHECKING:
    from csp_embed.compiler.chains.programs import Chain, Chains

Array = NDArray[Any]
Progress = Callable[[str, int, int], None]


@dataclass
class Quantised:
    """A model read as a quantised network. known: what tensors of the model are there. node: of
    each operator, the number of the model's node that it stands for."""

    net: Net
    graph: Graph
    known: Mapping[str, Stored | Real]
    node: Mapping[str, int]
    progress: Progress | None = None
    _chains: dict[tuple[str | None, str | None], Chains] = field(default_factory=dict)

    @staticmethod
    def of(net: Net, progress: Progress | None = None) -> Quantised:
        """Raises: InputError where the model is no quantised network."""
        graph, known = read_net(net)
        maker = {o: i for i, n in enumerate(net.nodes) for o in n.output if o}
        named = {n.name: i for i, n in enumerate(net.nodes)}
        # A stored tensor may stand for several of the model's: the first one's node makes it.
        first: dict[str, int] = {}
        for name, value in known.items():
            if name in maker:
                first[value.tensor] = min(maker[name], first.get(value.tensor, maker[name]))
        node: dict[str, int] = {}
        for op in graph.operators:
            at = named.get(op.name, first.get(op.output, maker.get(op.output)))
            # Every operator comes from a node; without it no layer could be told its cost.
            assert at is not None, f"{op.name} stands for no node"
            node[op.name] = at
        return Quantised(net, graph, known, node, progress)

    def operators(self, nodes: Collection[int]) -> list[str]:
        """Those that these nodes stand for, in order."""
        return [op.name for op in self.graph.operators if self.node[op.name] in nodes]

    def chains(self, device: Device) -> Chains:
        """Of the device's machine; equal machines share them."""
        from csp_embed.compiler.chains.programs import Chains
        from csp_embed.machine.load import load_isa

        key = device.isa, device.vta_config
        if key not in self._chains:
            isa = load_isa(device.isa or "vta", device.vta_config)
            self._chains[key] = Chains(self.graph, isa, tell=self.progress)
        return self._chains[key]

    def why_not(self, layer: Layer) -> str | None:
        """Why a layer cannot be cut out in stored tensors, whatever the machine."""
        for name in layer.reads:
            if not isinstance(self.known.get(name), Stored):
                return f"it reads {name!r}, which is no quantised tensor"
        for name in layer.makes:
            if name not in self.known:
                return f"it makes {name!r}, which is no quantised tensor"
        return None if self.operators(layer.nodes) else "it has no integer operator"

    def build_part(self, part: Part, device: Device) -> PartOnMachine:
        """The part as one program. Raises: InputError where the machine does not compute all of
        it."""
        chain = self.chains(device).chain(self.operators(part.nodes))
        if not chain.whole:
            name, why = next(iter(chain.host.items()), (part.tasks[0], "it takes several programs"))
            raise InputError(
                f"{device.name} cannot run {part.name} as one program",
                where=name, why=why,
                hint="plan again: csp-embed partition MODEL --platform FILE -o plan.json",
            )  # fmt: skip
        return PartOnMachine(chain, part, self.graph, self.known)


@dataclass(frozen=True)
class PartOnMachine:
    """A part's program between tensors of the model."""

    chain: Chain
    part: Part
    graph: Graph
    known: Mapping[str, Stored | Real]

    @property
    def cycles(self) -> int:
        return self.chain.cycles

    def stored(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """What the part reads, by the names of stored tensors."""
        return {self.known[n].tensor: feeds[n] for n in self.part.reads}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The part's tensors, by the functional simulator."""
        values = self.chain.run(self.stored(feeds))
        out: dict[str, Array] = {}
        for name in self.part.makes:
            value = self.known[name]
            found = values[value.tensor]
            # A real result is what the stored one stands for: the host's last step.
            out[name] = found if isinstance(value, Stored) else self._real(value.tensor, found)
        return out

    def write(self, path: Path, feeds: Mapping[str, Array]) -> None:
        """The program file, which `check`, `simulate` and `certify` take; none for views alone."""
        from csp_embed.machine.program_file import write_program

        program = self.chain.program(self.stored(feeds))
        if program is not None:
            write_program(path, program)

    def _real(self, name: str, values: Array) -> Array:
        t = self.graph.tensors[name]
        # As DequantizeLinear has it: an integer difference, one product in float32.
        difference = (values.astype(np.int32) - t.zero).astype(np.float32)
        return difference * np.float32(t.scales[0])


class DeviceCosts:
    """Costs of layers on devices that name an `isa`; a text says why a machine cannot run one.

    placed: device by task of a plan whose programs are built afterwards: there a layer has no cost
    yet, and nowhere else one at all. network: the model as a quantised network, once asked for;
    unread: why it is none. chained: devices whose costs are of programs.
    """

    def __init__(
        self, assume_int8: bool, progress: Progress | None = None,
        placed: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.kernels = Kernels(assume_int8, progress)
        self.progress, self.placed = progress, placed
        self.network: Quantised | None = None
        self.unread: InputError | None = None
        self.chained: set[str] = set()

    def __call__(self, net: Net, layer: Layer, device: Device) -> tuple[float, str] | str:
        if self.network is None and self.unread is None:
            try:
                self.network = Quantised.of(net, self.progress)
            except InputError as error:
                self.unread = error
        if self.network is None or not _reads_instructions(device):
            return self.kernels(net, layer, device)
        clock = clock_of(device)
        self.chained.add(device.name)
        network = self.network
        why = network.why_not(layer)
        if why is not None:
            return why
        if self.placed is not None:
            here = self.placed.get(layer.name) == device.name
            return (0.0, "a program, not built yet") if here else "the plan puts it elsewhere"
        names = network.operators(layer.nodes)
        chain, of = self._chain(network, device, names)
        if chain is None:
            return of
        host = [chain.host[n] for n in names if n in chain.host]
        if host:
            return host[0]
        cycles = sum(chain.layers.get(n, 0) for n in names)
        return cycles / (clock * 1e3), f"{cycles} cycles in the program of {of} at {clock:g} MHz"

    def _chain(
        self, network: Quantised, device: Device, names: list[str]
    ) -> tuple[Chain | None, str]:
        """(the chain in which a layer is priced, of what it is), or (None, why there is none)."""
        chains = network.chains(device)
        try:
            return chains.whole(), "the whole network"
        except InputError:
            # Too large for the machine in one piece: its layers may still fit.
            pass
        try:
            return chains.chain(names), "this layer alone"
        except InputError as error:
            return None, f"{error.what}: {error.why}"


def _reads_instructions(device: Device) -> bool:
    """Whether networks are built for its machine; those that run C or commands have kernels."""
    from csp_embed.machine.load import load_isa

    isa = load_isa(device.isa or "vta", device.vta_config)
    return isa.program is None and isa.commands is None
