"""What `csp-embed isa check` does beyond reading a spec: it compiles small operators for the
machine, runs the programs from the stated meanings alone and compares with NumPy.

Takes: an Isa.  Leaves: findings, one for each operator. Nothing here trusts the compiler's own
verdict: values come from the spec interpreter, which walks the text of the meanings with the
hardware's rule for shadows, and expected values from the few lines of NumPy below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed import ops
from csp_embed.compiler.driver import compile
from csp_embed.compiler.kernel import Kernel
from csp_embed.compiler.outcome import Outcome
from csp_embed.compiler.request.options import Options
from csp_embed.compiler.search.measuring import Meter
from csp_embed.errors import CspEmbedError, Infeasible, InputError
from csp_embed.ir.operator import Operator
from csp_embed.machine import interpreter
from csp_embed.machine.compilable import refusals
from csp_embed.machine.costs import costs_of
from csp_embed.machine.spec import Isa
from csp_embed.sim.check import check_program

Ints = NDArray[np.int64]
Tensors = dict[str, NDArray[Any]]

# Elements left of each memory where tiling itself is tried: a program for fewer is one for more.
FEW = 4
# A step of more points is run by the fast simulator: the interpreter takes microseconds a point.
INTERPRETED_POINTS = 4096
# Any right program will do: the search is kept short.
_QUICK = Options(top=2, schedules=2, refine=4)


@dataclass(frozen=True)
class Trial:
    """One operator: the instruction that it is about, how it is made, and its value by NumPy."""

    name: str
    instruction: str
    make: Callable[[], Operator]
    expected: Callable[[Tensors], Ints]
    few: bool = False


def run(isa: Isa, seed: int = 0) -> list[Outcome]:
    """All trials on one machine, in a fixed order.

    Raises: SpecError where nothing can be compiled for the machine.
    """
    # The first refusal is raised, as for every compilation.
    for error in refusals(isa):
        raise error
    Meter(isa, costs_of(isa))  # incomplete costs are refused here
    return [_try(isa, trial, seed) for trial in trials(isa)]


def trials(isa: Isa) -> Iterator[Trial]:
    """The operators that are tried: a few lanes more than one block, so that padding occurs."""
    contract, mapped = isa.of_kind("contract"), isa.of_kind("map")
    lanes = {d: isa.dims[d] for o in contract.operands for d in o.dims}
    o, b = lanes.get("o", 1), lanes.get("b", 1)
    # Dimensions of other names sum as `i` does, or are left with one value.
    # One product for all summed dimensions: the smallest matrix that fills a step.
    i = int(np.prod([n for d, n in lanes.items() if d not in ("o", "b")], dtype=np.int64))
    # Beyond one block in every dimension, so that padding occurs.
    sizes = {"m": o + 1 + (o < 4), "n": b + 1, "k": 2 * i + 1}
    name = contract.name
    yield Trial("matmul", name, lambda: ops.matmul(**sizes), _matmul)
    yield Trial(
        "matmul, shift, bias, clip", name,
        lambda: ops.matmul(**sizes, shift=5, bias=True, bias_range=3000, clip=(-90, 101)),
        lambda t: np.clip((_matmul(t) >> 5) + t["b"], -90, 101),
    )  # fmt: skip
    # Any int32 bias: no schedule may assume that it is small.
    yield Trial(
        "matmul, any bias before the shift", name,
        lambda: ops.matmul(**sizes, shift=3, bias_before_shift=True),
        lambda t: _wrap(_matmul(t) + t["b"]) >> 3,
    )  # fmt: skip
    yield Trial(
        # Few elements of memory force tiles, which the sizes alone would not.
        "matmul in many tiles", name,
        lambda: ops.matmul(m=2 * o + 1, n=2 * b, k=3 * i + 1, shift=2, bias=True),
        lambda t: _wrap((_matmul(t) >> 2) + t["b"]), few=True,
    )  # fmt: skip
    yield Trial(
        "convolution with padding", name,
        lambda: ops.conv2d(n=1, c=min(i, 24) + 1, h=2, w=3, k=min(o, 24) + 1, r=2, s=2, pad=1),
        lambda t: _convolution(t["x"], t["w"], 1),
    )  # fmt: skip
    # Operations that not every implementation has are not emitted, hence not tried.
    functions = [p.function for p in mapped.ops if p.portable]
    for function in dict.fromkeys(functions):
        yield from _elementwise(mapped.name, function, b * o)
    if {"min", "max"} <= set(functions):
        for kind, make in (("max", ops.max_pool2d), ("min", _min_pool2d)):
            yield Trial(
                f"{kind} pool", mapped.name,
                lambda make=make: make(n=1, c=min(o, 40) + 1, h=5, w=6, r=2, s=2, stride=2),
                lambda t, kind=kind: _pool(t["x"], kind),
            )  # fmt: skip


def _elementwise(name: str, function: str, lanes: int) -> Iterator[Trial]:
    """The form with a constant and the form with a second tensor of one operation."""
    # 3 fits every immediate and shifts something out.
    constant = 3
    shape = (min(lanes, 200) + 2, 3)
    yield Trial(
        f"{function} of a constant", name,
        lambda: ops.elementwise(shape, [(function, constant)]),
        lambda t: _apply(function, t["x"].astype(np.int64), np.int64(constant)),
    )  # fmt: skip
    if function != "shr":  # amounts from a tensor are not portable
        yield Trial(
            f"{function} of two tensors", name,
            lambda: ops.elementwise(shape, [(function, "z")]),
            lambda t: _apply(function, t["x"].astype(np.int64), t["z"].astype(np.int64)),
            few=True,
        )  # fmt: skip


def _min_pool2d(**sizes: int) -> Operator:
    n, c, h, w, r, s = (sizes[k] for k in ("n", "c", "h", "w", "r", "s"))
    return ops.parse_formula(
        f"y[n,c,p,q] min= x[n,c,{r}*p+r,{s}*q+s]; r < {r}; s < {s}", {"x": (n, c, h, w)}
    )


def _wrap(values: Ints) -> Ints:
    """int64 as the int32 that keeps its low bits."""
    return values.astype(np.int64).astype(np.int32).astype(np.int64)


def _matmul(t: Tensors) -> Ints:
    return _wrap(t["x"].astype(np.int64) @ t["w"].astype(np.int64).T)


# Written out, so that it has nothing in common with the compiler's formulas.
def _convolution(x: Any, w: Any, pad: int) -> Ints:
    """Stride 1, one image at a time, summed over filter places."""
    wide = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    rows, columns = (wide.shape[2 + d] - w.shape[2 + d] + 1 for d in (0, 1))
    total = np.zeros((x.shape[0], w.shape[0], rows, columns), np.int64)
    for r in range(w.shape[2]):
        for s in range(w.shape[3]):
            part = wide[:, :, r : r + rows, s : s + columns]
            total += np.einsum("nchw,kc->nkhw", part, w[:, :, r, s].astype(np.int64))
    return _wrap(total)


def _pool(x: Any, kind: str) -> Ints:
    n, c, h, w = (*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
    blocks = x[:, :, : 2 * h, : 2 * w].astype(np.int64).reshape(n, c, h, 2, w, 2)
    return blocks.max((3, 5)) if kind == "max" else blocks.min((3, 5))


def _apply(function: str, x: Ints, other: Ints | np.int64) -> Ints:
    match function:
        case "add":
            return _wrap(x + other)
        case "mul":
            return _wrap(x * other)
        case "min":
            return np.minimum(x, other)
        case "max":
            return np.maximum(x, other)
        case _:
            return x >> other


def random_tensors(op: Operator, seed: int) -> Tensors:
    """Random over the whole range of each type, within what the operator promises."""
    # What the operator promises of a bias is what the program may rely on.
    rng = np.random.default_rng(seed)
    bounds = {s.access.tensor: s.bias_range for s in op.epilogue if s.access is not None}
    found: Tensors = {}
    for name, tensor in op.tensors.items():
        if name == op.out.tensor:
            continue
        info = np.iinfo(tensor.dtype)
        most = bounds.get(name)
        low, high = (info.min, info.max) if most is None else (-most, most)
        found[name] = rng.integers(low, high, tensor.shape, tensor.dtype, endpoint=True)
    return found


def _small(isa: Isa) -> Isa:
    """The machine as if every implementation had few elements only."""
    few = [replace(m, portable_depth=min(m.portable_depth, FEW)) for m in isa.memories]
    return replace(isa, memories=tuple(few))


def _try(isa: Isa, trial: Trial, seed: int) -> Outcome:
    where = isa.where(f"instructions.{trial.instruction}")
    # Without costs no cycles are simulated: only values matter here.
    machine = replace(_small(isa) if trial.few else isa, costs={})
    try:
        op = trial.make()
        kernel = compile(op, machine, options=_QUICK)
        tensors = random_tensors(op, seed)
        assert isinstance(kernel, Kernel)  # source/suite.py tries machines that run C
        program = kernel.loaded(tensors)
        # Rules before values: a race may still give the right numbers.
        problems = check_program(isa, program, values=False)
        if problems:
            return Outcome(trial.name, "wrong", problems[0].text, where)
        got = _values(isa, kernel, program)
    except (Infeasible, InputError) as error:
        # The plainest operator is what the instruction is there for.
        kind = "wrong" if trial.name == "matmul" else "cannot"
        return Outcome(trial.name, kind, error.why or error.what, error.where or where)
    except CspEmbedError as error:
        text = f"{error.what} ({error.why})" if error.why else error.what
        return Outcome(trial.name, "wrong", text, where)
    # Results are int8: low bits of what NumPy has.
    want = trial.expected(tensors).astype(np.int8)
    if np.array_equal(got, want):
        return Outcome(trial.name, "equal", f"{want.size} values of {op.formula()}", where)
    index = tuple(int(n) for n in np.argwhere(got != want)[0])
    text = f"{op.formula()}: y{list(index)} is {got[index]}, NumPy has {want[index]}"
    return Outcome(trial.name, "wrong", text, where)


def _values(isa: Isa, kernel: Kernel, program: Any) -> NDArray[Any]:
    """What the program leaves in DRAM, as the operator's result."""
    contract = isa.of_kind("contract")
    points = np.prod([isa.dims[d] for d in {d for o in contract.operands for d in o.dims}])
    # Too many points for the interpreter; the fast simulator has its own tests.
    if points > INTERPRETED_POINTS:
        return kernel.program(program.tensors).tensors[kernel.operator.out.tensor]
    address, blank = program.after[0]
    # latched: stores read the shadow, as hardware does.
    image = interpreter.run(isa, program, latched=True)
    return kernel.result(np.frombuffer(image.read(address, len(blank)), np.uint8))
