"""An operator as plain C loops: what a machine's contraction cannot do, and says so.

Takes: Operator.  Leaves: C text without a machine's templates. The C compiler may make vectors of
it; nothing is searched.
"""

from __future__ import annotations

from csp_embed.ir.operator import Access, Affine, Operator, Step
from csp_embed.targets.source.names import identifier, variable
from csp_embed.targets.source.written.text import CTYPES, affine, narrow

# Larger rows go one result at a time.
ROW = 4096  # longest row of results that a kernel keeps on its stack
_NEUTRAL = {"contract": 0, "map": 0, "max": -128, "min": 127}


def plain_kernel(op: Operator, name: str, threads: int = 1) -> tuple[list[str], tuple[str, ...]]:
    """(lines of the function, its tensors in order, the result last)."""
    out = op.out.tensor
    inputs = [t for t in op.tensors if t != out]
    parameters = [f"const {CTYPES[op.tensors[t].dtype]} *restrict {identifier(t)}" for t in inputs]
    parameters.append(f"{CTYPES[op.out_dtype]} *restrict {identifier(out)}")
    head = f"void {name}({', '.join(parameters)})"
    # Names of axes may be no names of C.
    names = {a: variable(a, n) for n, a in enumerate(op.axes)}
    lines = [f"{head};", f"{head} {{"]
    # Tensors that the formula never reads are arguments all the same.
    read = {a.tensor for a in (op.lhs, op.rhs, *(s.access for s in op.epilogue)) if a is not None}
    lines += [f"  (void){identifier(t)};" for t in inputs if t not in read]
    if threads > 1 and op.out_axes:
        lines.append(f"#pragma omp parallel for num_threads({threads})")
    # Rows first: they make vectors; single results serve everything else.
    whole = _row(op, names) or _single(op, names)
    return [*lines, *whole, "}"], (*inputs, out)


def _single(op: Operator, names: dict[str, str]) -> list[str]:
    """One result after the other."""
    lines, indent = [], "  "
    for axis in op.out_axes:
        lines.append(_loop(names[axis], op.axes[axis], indent))
        indent += "  "
    lines += [] if lines else ["  "]
    lines[-1] += " {"
    inside = _conditions(op, op.out, names)
    if inside:
        # At a ragged end of a mixed-radix index such points do not exist.
        lines.append(f"{indent}if (!({' && '.join(inside)})) continue;")
    # Unsigned: sums wrap, which signed ones in C may not.
    lines.append(f"{indent}uint32_t sum = (uint32_t)({_NEUTRAL[op.kind]});")
    lines += _point(op, names, indent)
    lines.append(f"{indent}int32_t v = (int32_t)sum;")
    for step in op.epilogue:
        lines += _step(op, step, names, indent)
    lines.append(f"{indent}{_element(op, op.out, names)} = ({CTYPES[op.out_dtype]})v;")
    return [*lines, f"{indent[2:]}}}"]


def _row(op: Operator, names: dict[str, str]) -> list[str] | None:
    """Maxima or minima of a row at once: compilers make vectors of the innermost loop, which has
    no conditions. None where the results do not lie in rows of a sensible length."""
    # Only maxima and minima: sums of rows would need wider rows.
    if op.kind not in ("max", "min") or not op.reduced_axes or not op.out_axes:
        return None
    axis = op.out_axes[-1]
    extent, var = op.axes[axis], names[axis]
    dtype = op.tensors[op.lhs.tensor].dtype
    # Short rows gain nothing.
    if dtype != "int8" or not 4 <= extent <= ROW or _conditions(op, op.out, names):
        return None
    lines, indent = [], "  "
    for other in op.out_axes[:-1]:
        lines.append(_loop(names[other], op.axes[other], indent) + " {")
        indent += "  "
    head = _loop(var, extent, indent)
    lines += [
        f"{indent}{CTYPES[dtype]} row_[{extent}];",
        f"{head} row_[{var}] = {_NEUTRAL[op.kind]};",
    ]
    outer, depth = indent, indent
    for other in op.reduced_axes:
        lines.append(_loop(names[other], op.axes[other], depth) + " {")
        depth += "  "
    fixed, narrowed = _row_conditions(op, axis, names)
    if fixed:
        lines.append(f"{depth}if (!({' && '.join(fixed)})) continue;")
    # Where the window leaves the tensor, the row's range is cut instead of tested.
    low, high = "0", str(extent)
    if narrowed:
        lines.append(f"{depth}ptrdiff_t low = 0, high = {extent};")
        lines += [f"{depth}{line}" for line in narrowed]
        low, high = "low", "high"
    sign = ">" if op.kind == "max" else "<"
    value = _element(op, op.lhs, names)
    lines += [
        f"{depth}for (ptrdiff_t {var} = {low}; {var} < {high}; {var}++)",
        f"{depth}  row_[{var}] = {value} {sign} row_[{var}] ? {value} : row_[{var}];",
    ]
    for _ in op.reduced_axes:
        depth = depth[2:]
        lines.append(f"{depth}}}")
    lines += [f"{head} {{", f"{outer}  int32_t v = row_[{var}];"]
    for step in op.epilogue:
        lines += _step(op, step, names, outer + "  ")
    store = f"{_element(op, op.out, names)} = ({CTYPES[op.out_dtype]})v;"
    lines += [f"{outer}  {store}", f"{outer}}}"]
    for _ in op.out_axes[:-1]:
        indent = indent[2:]
        lines.append(f"{indent}}}")
    return lines


def _row_conditions(op: Operator, axis: str, names: dict[str, str]) -> tuple[list[str], list[str]]:
    """(conditions that the row's axis does not move; lines that cut its range by the others)."""
    fixed, narrowed = [], []
    for ix, size in zip(op.lhs.index, op.tensors[op.lhs.tensor].shape, strict=True):
        coef = dict(ix.terms).get(axis, 0)
        reach = [c * (op.axes[a] - 1) for a, c in ix.terms]
        below = ix.const + sum(min(0, r) for r in reach) < 0
        above = ix.const + sum(max(0, r) for r in reach) >= size
        if not coef:
            text = _index(ix, names)
            fixed += [f"{text} >= 0"] * below + [f"{text} < {size}"] * above
        # Conditions that the row's axis moves cut its range.
        elif below or above:
            rest = affine(ix.const, [(c, names[a]) for a, c in ix.terms if a != axis])
            narrowed += narrow(coef, rest, size)
    return fixed, narrowed


def _loop(var: str, extent: int, indent: str) -> str:
    return f"{indent}for (ptrdiff_t {var} = 0; {var} < {extent}; {var}++)"


def _point(op: Operator, names: dict[str, str], indent: str) -> list[str]:
    """The reduced loops and what a point adds to the sum."""
    lines = []
    for axis in op.reduced_axes:
        lines.append(_loop(names[axis], op.axes[axis], indent))
        indent += "  "
    accesses = [op.lhs, *([op.rhs] if op.rhs is not None else [])]
    conditions = [c for a in accesses for c in _conditions(op, a, names)]
    # Without a guard where no index can leave.
    guard = f"if ({' && '.join(conditions)}) " if conditions else ""
    left = _element(op, op.lhs, names)
    if op.rhs is not None:
        # Products of unsigned numbers wrap around, as the operator's do.
        what = f"sum += (uint32_t){left} * (uint32_t){_element(op, op.rhs, names)};"
    elif op.kind == "map":
        what = f"sum = (uint32_t){left};"
    else:
        sign = ">" if op.kind == "max" else "<"
        what = f"sum = {left} {sign} (int32_t)sum ? (uint32_t){left} : sum;"
    return [*lines, f"{indent}{guard}{what}"]


def _step(op: Operator, step: Step, names: dict[str, str], indent: str) -> list[str]:
    if step.access is None:
        other = "INT32_MIN" if step.imm == -(2**31) else str(step.imm)
    else:
        conditions = _conditions(op, step.access, names)
        element = _element(op, step.access, names)
        other = f"({' && '.join(conditions)} ? {element} : 0)" if conditions else element
    match step.op:
        case "add" | "mul":
            sign = "+" if step.op == "add" else "*"
            return [f"{indent}v = (int32_t)((uint32_t)v {sign} (uint32_t){other});"]
        case "max" | "min":
            sign = ">" if step.op == "max" else "<"
            return [f"{indent}v = v {sign} {other} ? v : {other};"]
    if step.imm is None:
        # Amounts from a tensor: five bits, as the operator has them.
        return [f"{indent}v = v >> ({other} & 31);"]
    if step.imm >= 0:
        return [f"{indent}v = v >> {min(step.imm, 31)};"]
    # Everything is shifted out; C does not define such shifts.
    if step.imm <= -32:
        return [f"{indent}v = 0;"]
    return [f"{indent}v = (int32_t)((uint32_t)v << {-step.imm});"]


def _index(ix: Affine, names: dict[str, str]) -> str:
    return affine(ix.const, [(c, names[a]) for a, c in ix.terms])


def _element(op: Operator, access: Access, names: dict[str, str]) -> str:
    stride, terms = 1, []
    for ix, size in zip(reversed(access.index), reversed(op.tensors[access.tensor].shape),
                        strict=True):  # fmt: skip
        terms.append((stride, f"({_index(ix, names)})"))
        stride *= size
    return f"{identifier(access.tensor)}[{affine(0, list(reversed(terms)))}]"


def _conditions(op: Operator, access: Access, names: dict[str, str]) -> list[str]:
    out = []
    for ix, size in zip(access.index, op.tensors[access.tensor].shape, strict=True):
        reach = [c * (op.axes[a] - 1) for a, c in ix.terms]
        text = _index(ix, names)
        # Only indices that can leave their range are tested.
        if ix.const + sum(min(0, r) for r in reach) < 0:
            out.append(f"{text} >= 0")
        if ix.const + sum(max(0, r) for r in reach) >= size:
            out.append(f"{text} < {size}")
    return out
