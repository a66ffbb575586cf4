"""Adding an epilogue tensor by multiply-accumulate instead of an elementwise step.

A multiply-accumulate against a constant operand element adds sum_i v_i * f_i to each lane. With v =
(m, …, m, 1), m the
largest operand value, every integer of magnitude up to m*m*(lanes-1) + m is such a sum with factors
f_i in range. It costs one
step a vector where an elementwise step with a tensor costs two and needs the tensor in the
accumulator memory.
"""

from __future__ import annotations

from csp_embed.ir.schedule import BiasTrick
from csp_embed.schedule.inputs import Problem


def constants(lanes: int, largest: int = 127) -> tuple[int, ...]:
    """Lane values of the constant operand."""
    return (largest,) * (lanes - 1) + (1,)


def reach(values: tuple[int, ...], largest: int = 127) -> int:
    """Largest magnitude such that every integer up to it can be factored."""
    return values[0] * largest * (len(values) - 1) + largest if len(values) > 1 else largest


def find(problem: Problem, ranges: dict[int, int]) -> BiasTrick | None:
    """The first tensor step that the trick carries. ranges: step number -> largest magnitude
    known.
    """
    if problem.rhs is None:
        return None
    operands = {o.role: o for o in problem.instruction.operands}
    lhs, rhs, dst = operands["lhs"], operands["rhs"], operands["dst"]
    reduction = [d for d in lhs.dims if d in rhs.dims and d not in dst.dims]
    alone = (set(lhs.dims) ^ set(rhs.dims)) - set(dst.dims)
    if alone:
        return None  # a dimension that one factor alone sums over: the values would count again
    lanes = 1
    for d in reduction:
        lanes *= problem.isa.dims[d]
    values = constants(lanes)
    for i, m in problem.adds.items():
        step = problem.epilogue[i]
        if step.op != "add" or i not in ranges or ranges[i] > reach(values):
            continue
        layout = problem.embedding.layouts[m.operand]
        if layout.fused or layout.equal:
            continue
        dim_of = {d.name: d.dim for d in problem.embedding.digits}
        moved = {dim_of[n] for coefs in layout.digit_coef for n, k in coefs.items() if k}
        if not moved & set(rhs.dims):
            side = "lhs"
        elif not moved & set(lhs.dims):
            side = "rhs"
        else:
            continue
        return BiasTrick(i, values, side)
    return None
