"""A quantised network, layer by layer: lowered, compiled, run on the simulated machine, compared.

A first form: every layer that the machine computes is a program of its own, its tensors pass
through the host in between; the other layers are the reference interpreter's.  It is not yet one
program.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.compiler.driver import Options, compile
from csp_embed.compiler.kernel import Kernel
from csp_embed.compiler.setting import silent
from csp_embed.errors import Infeasible
from csp_embed.ir.operator import Operator
from csp_embed.machine.costs import costs_of
from csp_embed.machine.spec import Isa
from csp_embed.network.lower.layer import Lowered, lower
from csp_embed.network.quantised import graph as g
from csp_embed.network.quantised import reference
from csp_embed.ops.bound import bound_cycles

Array = NDArray[Any]


@dataclass(frozen=True)
class Layer:
    """One operator of the network in the report.

    where: "accelerator" or "host". why: what was proved, or the reason for the host. cycles: of all
    its passes; bound_cycles: of one pass in its plain form; extra_cycles: of the second pass, which
    only results of both signs need. elements, differences: of its tensor over all inputs, compared
    with the reference. The host's have no cycles: None.
    """

    name: str
    kind: str
    where: str
    why: str
    macs: int
    elements: int
    differences: int
    programs: int = 0
    cycles: int | None = None
    bound_cycles: int | None = None
    extra_cycles: int | None = None

    @property
    def exact(self) -> bool:
        return self.differences == 0

    def document(self) -> dict[str, Any]:
        return {**self.__dict__, "exact": self.exact}


@dataclass(frozen=True)
class Built:
    """graph: what was built. layers: in order. values: of each input, every tensor by name, as the
    machine and the host made it."""

    graph: g.Graph
    isa: Isa
    layers: tuple[Layer, ...]
    values: tuple[Mapping[str, Array], ...]
    seconds: float

    def document(self) -> dict[str, Any]:
        """What `csp-embed build --json` prints. Sums over the accelerator's layers. status: equal,
        unequal, or host where no layer is the accelerator's and so nothing was compared."""
        on = [layer for layer in self.layers if layer.where == "accelerator"]
        return {
            "status": "unequal" if self.differences else "equal" if on else "host",
            "model": self.graph.name,
            "profile": self.graph.profile,
            "machine": f"{self.isa.name} {self.isa.config_name}",
            "one_program": False,
            "inputs": len(self.values),
            "elements": sum(layer.elements for layer in on),
            "differences": self.differences,
            "cycles": sum(layer.cycles or 0 for layer in on),
            "bound_cycles": sum(layer.bound_cycles or 0 for layer in on),
            "macs": sum(layer.macs for layer in self.layers),
            "macs_on_accelerator": sum(layer.macs for layer in on),
            "segments": sum(layer.programs for layer in on),
            "seconds": round(self.seconds, 2),
            "notes": list(self.graph.notes),
            "layers": [layer.document() for layer in self.layers],
        }

    @property
    def differences(self) -> int:
        return sum(layer.differences for layer in self.layers)


def build(
    graph: g.Graph,
    isa: Isa,
    inputs: Sequence[Mapping[str, Array]],
    *,
    options: Options | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Built:
    """Builds a network and runs it on each of `inputs` (arrays by the names of graph.inputs, in the
    model's own batch).

    The machine's layers read what the machine stored before, so that an error would travel as it
    does on a board; every layer's tensor is compared with the reference's.
    Raises: InputError for inputs that do not fit; as `compile` for what it refuses.
    """
    start = time.perf_counter()
    tell = progress or silent
    wanted = [reference.run(graph, feeds) for feeds in inputs]
    found = [{name: np.asarray(feeds[name]) for name in graph.inputs} for feeds in inputs]
    programs = _Programs(isa, options or Options())
    layers: list[Layer] = []
    for at, op in enumerate(graph.operators):
        tell(op.name, at, len(graph.operators))
        made = _lowered(graph, op, programs)
        for values in found:
            values[op.output] = (
                reference.step(graph, op, values)
                if isinstance(made, str)
                else _run(graph, op, made, programs, values)
            )
        wrong = sum(
            int((values[op.output] != expected[op.output]).sum())
            for values, expected in zip(found, wanted, strict=True)
        )
        layers.append(_layer(graph, op, made, programs, wrong, len(inputs)))
    return Built(graph, isa, tuple(layers), tuple(found), time.perf_counter() - start)


class _Programs:
    """Kernels by formula and shapes: layers that differ in their constants share one."""

    def __init__(self, isa: Isa, options: Options) -> None:
        self.isa, self.options = isa, options
        self.made: dict[tuple[Any, ...], Kernel] = {}

    def kernel(self, op: Operator) -> Kernel:
        key = (op.text(), *((n, t.shape, t.constant) for n, t in sorted(op.tensors.items())))
        if key not in self.made:
            kernel = compile(op, self.isa, options=self.options)
            assert isinstance(kernel, Kernel)
            self.made[key] = kernel
        return self.made[key]


def _lowered(graph: g.Graph, op: g.Operator, programs: _Programs) -> Lowered | str:
    made = lower(graph, op)
    if isinstance(made, str):
        return made
    try:
        for one in made.passes:
            programs.kernel(one.op)
    except Infeasible as error:
        return error.what
    return made


def _run(
    graph: g.Graph,
    op: g.Operator,
    made: Lowered,
    programs: _Programs,
    values: Mapping[str, Array],
) -> Array:
    x = made.operand(values[op.inputs[0]])
    result: Array | None = None
    for one in made.passes:
        operands: dict[str, Array] = {"x": x, **one.constants}
        if one.added is not None:
            assert result is not None
            operands["z"] = result.astype(np.int32) - one.added
        result = programs.kernel(one.op).run(**operands)
    assert result is not None
    return result.reshape(graph.tensors[op.output].shape)


def _layer(
    graph: g.Graph, op: g.Operator, made: Lowered | str, programs: _Programs, wrong: int, runs: int
) -> Layer:
    macs, elements = graph.macs(op), graph.tensors[op.output].elements * runs
    if isinstance(made, str):
        return Layer(op.name, op.kind, "host", made, macs, elements, wrong)
    kernels = [programs.kernel(one.op) for one in made.passes]
    cycles = [kernel.cycles or 0 for kernel in kernels]
    first = kernels[0]
    bound = bound_cycles(first.operator, first.isa, costs_of(first.isa, first.memory))
    return Layer(
        op.name, op.kind, "accelerator", made.proof, macs, elements, wrong, len(cycles),
        sum(cycles), bound, sum(cycles[1:]),
    )  # fmt: skip
