"""Reads the `meaning` of an instruction: loops, addresses and the statement over its points.

Takes: the text (Python syntax, see isa_specs/README.md).  Leaves: `Compute`, the parts that engines
need (which field bounds which loop, which micro-op field and factors make each address, which
lanes the statement joins), or the checked copy loop of a load or store.
Assumes nothing: what does not fit the template is refused with the offending line.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass

from csp_embed.machine.spec import Operand


class MeaningError(Exception):
    """(line within the text, from 1; reason)."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True)
class Compute:
    """The parts of a contract or map meaning; `roles` are those of spec.Instruction."""

    roles: Mapping[str, str]
    operands: tuple[Operand, ...]
    uop_memory: str
    statement: str
    local_names: tuple[str, ...]


# Shared by all three formats: what Python cannot parse, none of them can.
def parse(text: str) -> list[ast.stmt]:
    """The statements of a meaning.

    Raises: MeaningError where it is not in Python's syntax.
    """
    try:
        return ast.parse(text).body
    except SyntaxError as error:
        raise MeaningError(error.lineno or 1, f"does not parse: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise MeaningError(1, "does not parse") from error


def read_compute(text: str, kind: str, lanes: Mapping[str, tuple[str, ...]]) -> Compute:
    """The parts of a compute meaning. `lanes`: memory -> its lane dimensions.

    Raises: MeaningError where the text does not fit the template of its kind.
    """
    # Engines know one shape: three loops, addresses, one statement. All else is only names.
    loops, body = _loops(parse(text))
    roles = {
        "iter_out": _field_bound(loops[0]),
        "iter_in": _field_bound(loops[1]),
    }
    roles["uop_begin"], roles["uop_end"] = _two_bounds(loops[2])
    counters = tuple(loop.target.id for loop in loops if isinstance(loop.target, ast.Name))
    addresses: dict[str, tuple[str, str, str, str]] = {}
    # The last statement does the work; those before it make addresses.
    for statement in body[:-1]:
        name, parts = _address(statement, counters)
        addresses[name] = parts
    core = body[-1]
    if kind == "contract":
        core = _split_reset(core, roles)
        refs = _contract_refs(core)
    else:
        refs = _map_refs(core, roles)
    operands = tuple(
        _operand(role, ref, addresses, lanes) for role, ref in zip(_ROLES, refs, strict=False)
    )
    if kind == "contract":
        _check_contract(core, operands)
    elif operands[0].dims != operands[1].dims or operands[0].memory != operands[1].memory:
        # Both in one memory, lane by lane: hardware reads and writes the accumulators in place.
        raise MeaningError(core.lineno, "both tensors of a map must be the same memory and lanes")
    # An address without use would be a micro-op field that does nothing.
    unused = set(addresses) - {_address_name(ref) for ref in refs}
    if unused:
        raise MeaningError(1, f"address '{min(unused)}' is computed and never used")
    # One micro-op names all addresses, so they come from one memory.
    uop_memory = _one({a[0] for a in addresses.values()})
    local_names = (*counters, *addresses)
    # Three loops, and one name for each address.
    if len(set(local_names)) != 3 + len(body) - 1:
        raise MeaningError(1, "a loop variable or address name stands twice")
    return Compute(roles, operands, uop_memory, ast.unparse(core), local_names)


_ROLES = ("dst", "lhs", "rhs")


def _one(names: set[str]) -> str:
    if len(names) != 1:
        raise MeaningError(1, f"addresses must come from one micro-op memory, not {sorted(names)}")
    return names.pop()


def _loops(body: list[ast.stmt]) -> tuple[list[ast.For], list[ast.stmt]]:
    loops: list[ast.For] = []
    # Only a loop alone in its block nests; one beside other statements ends the descent.
    while len(body) == 1 and isinstance(body[0], ast.For):
        loops.append(body[0])
        body = body[0].body
    if len(loops) != 3 or not body:
        line = body[0].lineno if body else 1
        raise MeaningError(
            line,
            f"a compute meaning has three nested loops (outer, inner, micro-ops), not {len(loops)}",
        )
    return loops, body


def _range_args(loop: ast.For) -> list[ast.expr]:
    match loop:
        case ast.For(
            target=ast.Name(),
            iter=ast.Call(func=ast.Name(id="range"), args=args, keywords=[]),
            orelse=[],
        ):
            return args
        case _:
            pass
    raise MeaningError(loop.lineno, "a loop reads `for name in range(…):`")


def _field_bound(loop: ast.For) -> str:
    match _range_args(loop):
        # A field alone: bounds with arithmetic would need an adder that engines do not model.
        case [ast.Name(id=name)]:
            return name
        case _:
            pass
    raise MeaningError(loop.lineno, "this loop must be bounded by one field: range(field)")


def _two_bounds(loop: ast.For) -> tuple[str, str]:
    match _range_args(loop):
        # The micro-op list: begin and end are fields of their own.
        case [ast.Name(id=first), ast.Name(id=last)]:
            return first, last
        case _:
            pass
    raise MeaningError(loop.lineno, "the micro-op loop reads range(begin_field, end_field)")


def _address(
    statement: ast.stmt, counters: tuple[str, ...]
) -> tuple[str, tuple[str, str, str, str]]:
    """`name = MEM[n].field + y * factor + x * factor` -> name, (MEM, field, both factors)."""
    outer, inner, step = counters
    match statement:
        case ast.Assign(
            targets=[ast.Name(id=name)],
            value=ast.BinOp(
                left=ast.BinOp(
                    left=ast.Attribute(
                        value=ast.Subscript(value=ast.Name(id=memory), slice=ast.Name(id=index)),
                        attr=field,
                    ),
                    op=ast.Add(),
                    right=ast.BinOp(
                        left=ast.Name(id=c0), op=ast.Mult(), right=ast.Name(id=factor_out)
                    ),
                ),
                op=ast.Add(),
                right=ast.BinOp(left=ast.Name(id=c1), op=ast.Mult(), right=ast.Name(id=factor_in)),
            ),
        ) if (index, c0, c1) == (step, outer, inner):
            return name, (memory, field, factor_out, factor_in)
        case _:
            pass
    # Loops in this order: first the outer one's factor, then the inner one's.
    raise MeaningError(
        statement.lineno,
        f"an address reads `name = UOPS[{step}].field + {outer} * factor + {inner} * factor`",
    )


# roles is filled on the way: which field resets is known only where it is found.
def _split_reset(core: ast.stmt, roles: dict[str, str]) -> ast.stmt:
    match core:
        case ast.If(
            test=ast.Name(id=flag),
            body=[ast.Assign(targets=[cleared], value=ast.Constant(value=0))],
            orelse=[ast.AugAssign(target=target) as add],
        ) if ast.unparse(cleared) == ast.unparse(target):
            roles["reset"] = flag
            # The rest of the analysis sees a plain contraction.
            return add
        # Without a reset it can be read; compilable.py refuses to compile for it.
        case ast.AugAssign():
            return core
        case _:
            pass
    raise MeaningError(
        core.lineno, "a contraction ends with `if reset: D[d][..] = 0` and `else: D[d][..] += …`"
    )


def _contract_refs(core: ast.stmt) -> list[ast.expr]:
    match core:
        case ast.AugAssign(
            target=target,
            op=ast.Add(),
            value=ast.BinOp(left=left, op=ast.Mult(), right=right),
        ):
            return [target, left, right]
        case _:
            pass
    raise MeaningError(core.lineno, "a contraction reads `D[d][..] += L[l][..] * R[r][..]`")


def _map_refs(core: ast.stmt, roles: dict[str, str]) -> list[ast.expr]:
    match core:
        case ast.Assign(
            targets=[target],
            value=ast.Call(
                func=ast.Name(id=op),
                args=[
                    first,
                    ast.IfExp(test=ast.Name(id=use_imm), body=ast.Name(id=imm), orelse=other),
                ],
                keywords=[],
            ),
        ) if ast.unparse(first) == ast.unparse(target):
            roles.update(op=op, use_imm=use_imm, imm=imm)
            return [target, other]
        case _:
            pass
    raise MeaningError(
        core.lineno, "a map reads `D[d][..] = op(D[d][..], imm if use_imm else D[s][..])`"
    )


def _reference(ref: ast.expr) -> tuple[str, str, tuple[str, ...]]:
    """`MEM[address][b, o]` -> memory, address, dims."""
    match ref:
        # Lanes as a tuple, a single lane, or none: Python has three forms of them.
        case ast.Subscript(
            value=ast.Subscript(value=ast.Name(id=memory), slice=ast.Name(id=address)),
            slice=ast.Tuple(elts=elts),
        ) if all(isinstance(e, ast.Name) for e in elts):
            return memory, address, tuple(e.id for e in elts if isinstance(e, ast.Name))
        case ast.Subscript(
            value=ast.Subscript(value=ast.Name(id=memory), slice=ast.Name(id=address)),
            slice=ast.Name(id=dim),
        ):
            return memory, address, (dim,)
        case ast.Subscript(value=ast.Name(id=memory), slice=ast.Name(id=address)):
            return memory, address, ()
        case _:
            pass
    raise MeaningError(ref.lineno, f"'{ast.unparse(ref)}' should read `MEMORY[address][dims]`")


def _address_name(ref: ast.expr) -> str:
    return _reference(ref)[1]


def _operand(
    role: str,
    ref: ast.expr,
    addresses: Mapping[str, tuple[str, str, str, str]],
    lanes: Mapping[str, tuple[str, ...]],
) -> Operand:
    memory, address, dims = _reference(ref)
    if memory not in lanes:
        raise MeaningError(ref.lineno, f"unknown memory '{memory}' (known: {', '.join(lanes)})")
    if address not in addresses:
        raise MeaningError(ref.lineno, f"address '{address}' is not computed above")
    known = {d for names in lanes.values() for d in names}
    # Two messages: a name that no memory has, and a lane of another memory.
    strange = [d for d in dims if d not in known]
    if strange:
        raise MeaningError(
            ref.lineno, f"unknown dimension '{strange[0]}' (known: {', '.join(sorted(known))})"
        )
    # In the memory's order: lanes are stored row-major, and another order would be a transposition.
    if dims != lanes[memory]:
        raise MeaningError(
            ref.lineno,
            f"lanes of {memory} are [{', '.join(lanes[memory])}], not [{', '.join(dims)}]",
        )
    _, uop_field, factor_out, factor_in = addresses[address]
    return Operand(role, memory, dims, uop_field, factor_out, factor_in)


def _check_contract(core: ast.stmt, operands: tuple[Operand, ...]) -> None:
    dst, lhs, rhs = operands
    factors = set(lhs.dims) | set(rhs.dims)
    # A lane of the result that neither factor has would hold the same sum many times.
    lost = [d for d in dst.dims if d not in factors]
    if lost:
        raise MeaningError(
            core.lineno, f"dimension '{lost[0]}' of the result stands in neither factor"
        )


def transfer_text(kind: str, roles: Mapping[str, str]) -> str:
    """The only meaning of a load or store that engines know, in the spec's own field names."""
    # Padding roles stand all or not at all (instructions.py).
    top, bottom = roles.get("y_pad_0"), roles.get("y_pad_1")
    left, right = roles.get("x_pad_0"), roles.get("x_pad_1")
    rows, columns, stride = roles["y_size"], roles["x_size"], roles["x_stride"]
    sram, dram = roles["sram"], roles["dram"]
    if kind == "store":
        return (
            f"for y in range({rows}):\n"
            f"  for x in range({columns}):\n"
            f"    DRAM[{dram} + y * {stride} + x] = SRAM[{sram} + y * {columns} + x]\n"
        )
    if top is None:
        return (
            f"for y in range({rows}):\n"
            f"  for x in range({columns}):\n"
            f"    SRAM[{sram} + y * {columns} + x] = DRAM[{dram} + y * {stride} + x]\n"
        )
    # One row of SRAM holds padding too, and rows lie without gaps.
    pitch = f"({left} + {columns} + {right})"
    return (
        # A width of 0 is a token alone: the whole transfer does nothing, padding included.
        f"for y in range({top} + {rows} + {bottom} if {columns} else 0):\n"
        f"  for x in range{pitch}:\n"
        f"    if {top} <= y < {top} + {rows} and {left} <= x < {left} + {columns}:\n"
        f"      SRAM[{sram} + y * {pitch} + x] = "
        f"DRAM[{dram} + (y - {top}) * {stride} + x - {left}]\n"
        f"    else:\n"
        f"      SRAM[{sram} + y * {pitch} + x] = 0\n"
    )


def check_transfer(text: str, kind: str, roles: Mapping[str, str]) -> str:
    """Checks that `text` says what engines do; returns its innermost statement.

    Raises: MeaningError with the expected text.
    """
    # Trees are compared, so that blanks, comments and quotes are free.
    got, expected = parse(text), parse(transfer_text(kind, roles))
    if ast.dump(ast.Module(got, [])) != ast.dump(ast.Module(expected, [])):
        raise MeaningError(
            1,
            f"a {kind} with these fields must read\n{transfer_text(kind, roles)}",
        )
    assignments = [n for s in got for n in ast.walk(s) if isinstance(n, ast.Assign)]
    return ast.unparse(assignments[0])
