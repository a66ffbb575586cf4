"""Which copy out computes the steps behind the sums exactly, and with which settings.

Takes: an operator's epilogue and the copies out with their stated meanings.  Leaves: an `Epilogue`,
or Infeasible with the reason. Added tensors are moved in front of shifts (`(x >> s) + b` is
`(x + (b << s)) >> s`), where sums begin with them. What is left is a function of one sum. The
machine's own function is tried with settings that its fields allow, and with a constant added to
the sums; equal functions are proved, not sampled: both never fall, so they agree on a range where
they agree at its ends and either is constant there or the halves agree.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import Infeasible
from csp_embed.ir.operator import Operator, Step
from csp_embed.machine.commands.acts import Param
from csp_embed.machine.commands.functions import FUNCTIONS
from csp_embed.machine.commands.spec import CommandMachine
from csp_embed.machine.commands.transfers import Transfer
from csp_embed.targets.commands.rising import function_of, never_falls

Array = NDArray[Any]
_INT32 = (-(1 << 31), (1 << 31) - 1)


@dataclass(frozen=True)
class Epilogue:
    """store: the copy out. settings: parameters of its meaning. offset: added to every sum. shift:
    by how much added tensors are shifted left. byte: where the result's byte stands in what is
    stored (the low bits of a wider value are the result, as the operator keeps low bits)."""

    store: Transfer
    settings: Mapping[Param, int]
    offset: int = 0
    shift: int = 0
    byte: int = 0


def epilogue_of(
    op: Operator, machine: CommandMachine, stores: list[Transfer], adds: Mapping[int, int]
) -> Epilogue:
    """adds: epilogue step -> largest magnitude of its tensor, where known or promised.

    Raises: Infeasible where no copy out of the machine computes the steps exactly.
    """
    steps, shift, reach = _folded(op, adds)
    # |x| and |w| are at most 128, so that no product is larger than 2^14.
    terms = int(np.prod([op.axes[a] for a in op.reduced_axes], dtype=np.int64))
    low, high = -terms * 128 * 128 - reach, terms * 128 * 128 + reach
    if not op.epilogue or _bytes_of(steps) is not None:
        # The host sees the low byte of what is stored as it is, or a higher one behind a shift.
        for store in stores:
            byte = _bytes_of(steps) or 0
            # A value of `acc` alone is stored as it is, without the machine's own function.
            whole = isinstance(store.command.acts.value, ast.Name)
            if (
                whole
                and store.item > byte
                # Moving an added tensor in front of a shift is right only where no sum wraps.
                and ((low >= _INT32[0] and high <= _INT32[1]) or not shift)
            ):
                return Epilogue(store, {}, 0, shift, byte)
    if low < _INT32[0] or high > _INT32[1]:
        raise _refused(
            op,
            f"sums may lie in {low}..{high}, beyond int32",
            "fewer terms, or --bias-range for what is added",
        )
    wanted = _function(op, steps)
    if not _never_falls(op, steps, low, high):
        raise _refused(
            op, "the result keeps low bits of values that may not fit, and the machine saturates"
            " where it narrows", "--clip -128 127, or no epilogue at all (the sums' low bits)",
        )  # fmt: skip
    # Narrow stores first: they move the fewest bytes.
    for store in sorted(stores, key=lambda t: t.item):
        value = store.command.acts.value
        assert value is not None
        for settings in _settings(store, machine, value):
            named = _numbers(settings, machine)
            # Only rising functions can be proved equal at ends of ranges.
            if not never_falls(value, named):
                continue
            machine_function = function_of(value, named)
            # The plainest settings come first; the first that is equal is taken.
            for offset in _offsets(steps):
                # The offset must not make a sum wrap that did not before.
                if low + offset < _INT32[0] or high + offset > _INT32[1]:
                    continue

                def shifted(x: Array, o: int = offset, f: Any = machine_function) -> Array:
                    return f(x + o)

                if _equal(wanted, shifted, low, high):
                    return Epilogue(store, settings, offset, shift)
    shown = "; ".join(map(str, op.epilogue))
    raise _refused(
        op, f"no store computes `{shown}` of all sums in {low}..{high}: a shift keeps the floor,"
        " and the machine's own steps round or clip otherwise",
        "--clip 0 127 (ReLU), where rounding can be met; or no epilogue",
    )  # fmt: skip


def _refused(op: Operator, why: str, hint: str) -> Infeasible:
    return Infeasible(f"{op.name}'s epilogue cannot be computed exactly", where=op.text(), why=why,
                      hint=hint)  # fmt: skip


def _folded(op: Operator, adds: Mapping[int, int]) -> tuple[list[Step], int, int]:
    """(steps by constants, shift of added tensors, their reach): each added tensor moved in front.

    Raises: Infeasible where a tensor stands behind what it cannot pass."""
    steps: list[Step] = []
    shifts: set[int] = set()
    total, reach = 0, 0
    for n, step in enumerate(op.epilogue):
        if step.access is None:
            steps.append(step)
            total += (step.imm or 0) if step.op == "shr" else 0
            continue
        # (x >> s) + b is (x + (b << s)) >> s only for right shifts, and before any clip.
        passed = all(s.op in ("shr", "add") and (s.op == "add" or (s.imm or 0) >= 0) for s in steps)
        if step.op != "add" or not passed:
            raise _refused(op, f"`{step}` of a tensor behind `{'; '.join(map(str, steps))}`",
                           "tensors that are added before other steps")  # fmt: skip
        # All added tensors must be shifted by one amount: they are added to the same sums.
        shifts.add(total)
        if len(shifts) > 1:
            raise _refused(op, "two tensors are added with a shift between", "one of them")
        if n not in adds and total:
            raise _refused(op, f"`{step}` behind a shift, and nothing bounds its values",
                           "--bias-range N, or --bias-before-shift")  # fmt: skip
        # Unknown and unshifted: any int32, which still wraps as the operator does.
        reach += adds.get(n, 1 << 31) << total
    return steps, (shifts.pop() if shifts else 0), reach


def _bytes_of(steps: list[Step]) -> int | None:
    """Which byte of the sum is the result, where nothing but whole bytes is shifted out."""
    if all(s.op == "shr" and s.imm is not None and s.imm >= 0 for s in steps):
        total = sum(s.imm or 0 for s in steps)
        # Whole bytes: the host then reads a higher byte of what was stored.
        return total // 8 if total % 8 == 0 and total < 32 else None
    return None


def _function(op: Operator, steps: list[Step]) -> Callable[[Array], Array]:
    def run(x: Array) -> Array:
        out = x.astype(np.int64)
        for s in steps:
            assert s.imm is not None
            out = _apply(s.op, out, s.imm)
        # Low bits as the operator's result keeps them.
        return out.astype(op.out_dtype).astype(np.int64)

    return run


def _apply(name: str, x: Array, imm: int) -> Array:
    match name:
        case "shr":
            return x >> imm if imm >= 0 else x << -imm
        case "add":
            return x + imm
        case "max":
            return np.maximum(x, imm)
        case "min":
            return np.minimum(x, imm)
        case _:
            return x * imm


def _never_falls(op: Operator, steps: list[Step], low: int, high: int) -> bool:
    """No step wraps and none falls: then neither does their chain."""
    # Both ends are enough: each step is monotone.
    at = np.array([low, high], np.int64)
    for s in steps:
        assert s.imm is not None
        at = _apply(s.op, at, s.imm)
        if at.min() < _INT32[0] or at.max() > _INT32[1] or at[0] > at[1]:
            return False
    info = np.iinfo(op.out_dtype)
    return bool(info.min <= at[0] and at[1] <= info.max)


def _names(value: ast.expr, store: Transfer) -> list[Param]:
    # In the order of the text: the choices' product is walked in that order.
    found = list(dict.fromkeys(n.id for n in ast.walk(value) if isinstance(n, ast.Name)))
    fields = store.command.fields
    return [
        Param("field" if n in fields else "state", n)
        for n in found if n != "acc" and n not in FUNCTIONS
    ]  # fmt: skip


def _settings(
    store: Transfer, machine: CommandMachine, value: ast.expr
) -> Iterator[dict[Param, int]]:
    """Values to try for each parameter of the store's function, the plainest first."""
    params = _names(value, store)
    choices: list[list[int]] = []
    for p in params:
        state = machine.state.get(p.name)
        bits = p.kind == "state" and state is not None and state.dtype == "float32"
        if bits or p.name in _floats(value):
            choices.append(_scales())
        else:
            # 63: more than any shift; a wider field would make the search endless.
            choices.append(list(range(min(_most(p, store, machine), 63) + 1)))
    for values in itertools.product(*choices):
        yield dict(zip(params, values, strict=True))


def _floats(value: ast.expr) -> set[str]:
    """Names that are the bits of a float32."""
    return {
        n.args[0].id for n in ast.walk(value)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "as_float32"
        and isinstance(n.args[0], ast.Name)
    }  # fmt: skip


def _scales() -> list[int]:
    """Bits of powers of two from 1 down, and of the next float below each."""
    # The float below a power of two rounds halves down instead of to even.
    exact = [np.float32(2.0**-s) for s in range(31)]
    below = [np.nextafter(x, np.float32(0)) for x in exact]
    return [int(x.view(np.uint32)) for pair in zip(exact, below, strict=True) for x in pair]


def _most(param: Param, store: Transfer, machine: CommandMachine) -> int:
    if param.kind == "field":
        return store.command.fields[param.name].most
    # State takes what the field that sets it can carry.
    for c in machine.commands:
        setting = c.acts.settings.get(param.name)
        if setting is not None and setting.source.kind == "field":
            return c.fields[setting.source.name].most
    return 0


def _numbers(settings: Mapping[Param, int], machine: CommandMachine) -> dict[str, Any]:
    """Name -> its value in a store's function."""
    named: dict[str, Any] = {}
    for p, v in settings.items():
        state = machine.state.get(p.name)
        bits = p.kind == "state" and state is not None and state.dtype == "float32"
        # State of floats is given as its bits.
        named[p.name] = np.uint32(v).view(np.float32) if bits else v
    return named


def _offsets(steps: list[Step]) -> list[int]:
    """Constants that turn rounding into flooring: half of what is shifted out, less one or not."""
    # Rounding to nearest adds half; the constant takes it away again.
    total = sum(s.imm or 0 for s in steps if s.op == "shr")
    if not 0 < total < 31:
        return [0]
    half = 1 << (total - 1)
    return [0, 1 - half, -half]


def _equal(f: Callable[[Array], Array], g: Callable[[Array], Array], low: int, high: int) -> bool:
    """Whether two functions that never fall agree on low..high; see the module's text."""
    spans = np.array([[low, high]], np.int64)
    while len(spans):
        a, b = f(spans), g(spans)
        if not np.array_equal(a, b):
            return False
        if len(spans) > 1 << 20:
            return False  # as many values as that are no narrow result
        # Equal ends of functions that never fall: all between is equal too.
        open_ = (a[:, 0] != a[:, 1]) & (spans[:, 1] - spans[:, 0] > 1)
        left = spans[open_]
        middle = (left[:, 0] + left[:, 1]) // 2
        spans = np.concatenate([
            np.stack([left[:, 0], middle], axis=1), np.stack([middle, left[:, 1]], axis=1),
        ])  # fmt: skip
    return True
