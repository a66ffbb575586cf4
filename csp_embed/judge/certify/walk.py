"""Runs a stream in the field: what each stored element is, as an expression in random values.

Lanes are summed with random weights, so that one number stands for an accumulator element: of
dst[b,o] += lhs[b,i] * rhs[o,i] the sum over b and o of weight * dst is a sum over i of two such
sums. Left factors keep one number per i, right ones too, accumulators one.

An accumulator element is `node` + value: a number for the form that is linear in products of
operands, and, once something else than a sum was done to it, the number of a node (0: none):
node = function(node + value, immediate or node + value). Nothing here knows a formula.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from csp_embed.jit import njit
from csp_embed.judge.certify.field import Ints, P, Values, multiply_add, plus, reduced, times
from csp_embed.judge.stream.table import CONTRACT, FUNCTIONS, LOAD, MAP, STORE, Row
from csp_embed.judge.stream.walk import locate

# What a memory's elements are to compute instructions; one memory may be several.
LEFT, RIGHT, SUM, CODE = 1, 2, 4, 8
MIN, MAX, ADD, SHR, MUL = (FUNCTIONS[name] for name in ("min", "max", "add", "shr", "mul"))
# Elements first .. end-1 of `memory` in DRAM lie at values[at:] in this role, their tensors (bits)
# at tags[tag:].
IMAGE = np.dtype([(k, np.int64) for k in ("memory", "role", "first", "end", "at", "tag")])
NODE = np.dtype([
    ("function", np.int64), ("immediate", np.int64), ("left", np.int64), ("right", np.int64),
    ("left_value", np.uint64), ("right_value", np.uint64), ("shape", np.int64),
])  # fmt: skip
STORED = np.dtype([("byte", np.int64), ("node", np.int64), ("value", np.uint64)])


class Node(Protocol):
    """A record of NODE. right: -1 where an immediate stands there."""

    function: int
    immediate: int | np.int64
    left: int
    right: int | np.int64
    left_value: np.uint64
    right_value: np.uint64
    shape: int


class Stored(Protocol):
    """A record of STORED: what one element of the result is."""

    byte: int
    node: int
    value: np.uint64


Bools = NDArray[np.bool_]
# An array of records; one of them has a type where it is taken out, which NumPy cannot tell.
Records = Any
# What `walk` says of its arguments, in the order of their parts.
Shape = tuple[Ints, Ints, Ints, tuple[int, int, int], Ints, Ints]
Dram = tuple[Records, Values, Ints]
Code = tuple[Ints, Records]
Side = tuple[Values, Ints, Bools]
Sides = tuple[Side, Side, Side]
NodesOf = tuple[Ints, NDArray[np.float64]]
# Why a walk ends early: state[2], with the instruction and an element in state[3:5].
UNWRITTEN, UNDECLARED, OWN_RESULT, NOT_SUMS, SHIFT, GROWTH = range(1, 7)
MOST_LEFT = 8  # Bits of a digit: a shift by more is a function, not a factor of a form.

_P = np.uint64(P)
_ZERO = np.uint64(0)


# Never called from Python: without wrappers they compile in half the time.
inner = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@inner
def _fetch(r: Row, y: int, side: int, slots: int, dram: Dram, to: Side, state: Ints) -> bool:
    """One row of a load in one role, from DRAM. False: not all of it is declared."""
    images, values, tags = dram
    held, marks, _ = to
    first = r.dram + y * r.x_stride
    for k in range(len(images)):
        m = images[k]
        # A row has to lie in one range: what lies between two of them is not in the file.
        if (
            m.memory != r.named
            or m.role != 1 << side
            or first < m.first
            or first + r.x_size > m.end
        ):
            continue
        e = r.sram + (r.y_pad_0 + y) * (r.x_pad_0 + r.x_size + r.x_pad_1) + r.x_pad_0
        source = m.at + (first - m.first) * slots
        # Elements were summed with their weights when the image was made, so a load is a copy.
        held[e * slots : (e + r.x_size) * slots] = values[source : source + r.x_size * slots]
        source = m.tag + first - m.first
        marks[e : e + r.x_size] = tags[source : source + r.x_size]
        return True
    state[2], state[4] = UNDECLARED, first
    return False


@inner
def _load(
    r: Row, machine: Shape, dram: Dram, program: Code, own: Ints, uops: Ints, sides: Sides,
    nodes_of: NodesOf, state: Ints,
) -> bool:  # fmt: skip
    """A load: zeros, then row by row what DRAM holds. False where the walk ends."""
    roles, _, elem_bytes, slots, _, _ = machine
    width = r.x_pad_0 + r.x_size + r.x_pad_1
    last = r.sram + width * (r.y_pad_0 + r.y_size + r.y_pad_1)
    # One memory may have several roles on invented machines; each role has arrays of its own.
    for k in range(3):
        if roles[r.memory] >> k & 1:
            value, marks, ready = sides[k]
            value[r.sram * slots[k] : last * slots[k]] = 0
            marks[r.sram : last], ready[r.sram : last] = 0, True
    if roles[r.memory] & SUM:
        nodes_of[0][r.sram : last], nodes_of[1][r.sram : last] = 0, 1.0
    if roles[r.memory] & CODE:
        uops[r.sram : last] = 0
        uops[r.sram : last, -1] = 1  # Written.
    for y in range(r.y_size):
        # An alias has its own element size in DRAM, so bytes follow from the memory that is named.
        each = elem_bytes[r.named]
        low = (r.dram + y * r.x_stride) * each
        # Results that are read back would make the walk's order matter for values; nothing here
        # models that, so it is refused.
        if own[0] < low + r.x_size * each and low < own[1]:
            state[2], state[4] = OWN_RESULT, low
            return False
        if roles[r.memory] & CODE:
            at = locate(program[1], low, r.x_size * each)
            if at < 0:
                state[2], state[4] = UNDECLARED, low
                return False
            e = r.sram + (r.y_pad_0 + y) * width + r.x_pad_0
            uops[e : e + r.x_size, :-1] = program[0][at // each : at // each + r.x_size]
        for k in range(3):
            if roles[r.memory] >> k & 1 and not _fetch(r, y, k, slots[k], dram, sides[k], state):
                return False
    return True


@inner
def _store(r: Row, machine: Shape, sums: Side, node: Ints, stored: Records, state: Ints) -> bool:
    """A store: notes what each element is. False where the walk ends."""
    roles, shadow, elem_bytes, _, _, _ = machine
    value, _, ready = sums
    if r.x_size and r.y_size and not roles[shadow[r.named]] & SUM:
        state[2] = NOT_SUMS
        return False
    for y in range(r.y_size):
        for x in range(r.x_size):
            e = r.sram + y * r.x_size + x
            # An element that nothing wrote would be stored with whatever the chip held.
            if not ready[e]:
                state[2], state[4] = UNWRITTEN, e
                return False
            s: Stored = stored[state[1]]
            s.byte = (r.dram + y * r.x_stride + x) * elem_bytes[r.named]
            s.node, s.value = node[e], value[e]
            state[1] += 1
    return True


@inner
def _grow(growth: NDArray[np.float64], d: int, by: float, state: Ints) -> bool:
    """Coefficients must stay below the field's size: else equal in the field is not equal. By how
    much shifts and sums may make them larger follows from the stream's length."""
    growth[d] = by
    if by > state[7]:
        state[2], state[4] = GROWTH, d
        return False
    return True


@inner
def _map_step(
    r: Row, d: int, s: int, ones: np.uint64, sums: Side, nodes_of: NodesOf, nodes: Records,
    state: Ints,
) -> bool:  # fmt: skip
    """One step of a map on accumulator d: sums stay numbers, anything else makes a node."""
    value, _, ready = sums
    node, growth = nodes_of
    if not ready[d] or not (r.use_imm or ready[s]):
        state[2], state[4] = UNWRITTEN, d
        return False
    imm, other, other_value = np.int64(0), np.int64(-1), _ZERO
    if r.use_imm:
        imm = r.imm
        if r.function == SHR:
            # Five bits of the amount count; a negative one shifts left.
            imm = imm & 31 if imm >= 0 else -((-imm) & 31)
            if imm == 0:
                return True
            # A short left shift of a sum is a product with 2^k, which is still a form; a longer
            # one is a function, as that of a node is.
            if -MOST_LEFT <= imm < 0 and node[d] == 0:
                value[d] = times(value[d], np.uint64(1) << np.uint64(-imm))
                return _grow(growth, d, growth[d] * 2.0 ** (-imm), state)
        if r.function == ADD:
            # An immediate adds to every lane, and lanes are weighted: so it comes times the
            # weights' sum.
            by = np.uint64(imm) if imm >= 0 else _P - np.uint64(-imm)
            value[d] = plus(value[d], times(by, ones))
            return True
    else:
        other, other_value = node[s], value[s]
        if r.function == SHR and r.imm < 0:
            state[2] = SHIFT
            return False
        if r.function == ADD and (node[d] == 0 or other == 0):
            value[d], node[d] = plus(value[d], other_value), node[d] + other
            return _grow(growth, d, growth[d] + growth[s], state)
    # Nodes are never shared: two equal ones are told apart by place and joined by `shape_nodes`.
    state[0] += 1
    new: Node = nodes[state[0]]
    new.function, new.immediate, new.left, new.right = r.function, imm, node[d], other
    new.left_value, new.right_value = value[d], other_value
    # What the element was lives on in the node; from here it is a new number, 0.
    node[d], value[d], growth[d] = state[0], _ZERO, 1.0
    return True


@inner
def _contract(
    r: Row, fields: Ints, count: int, uops: Ints, sides: Sides, nodes_of: NodesOf, state: Ints
) -> bool:  # fmt: skip
    """A contraction or reset, step by step: lanes are summed already. False where it ends."""
    # Taken out of their tuples once: this is where the time goes.
    a, a_tag, a_ready = sides[0]
    b, b_tag, b_ready = sides[1]
    value, _, ready = sides[2]
    node, growth = nodes_of
    dst, lhs, rhs = fields[0], fields[1], fields[2]
    for i in range(r.iter_out):
        for j in range(r.iter_in):
            d0 = i * r.dst_out + j * r.dst_in
            s0 = i * r.lhs_out + j * r.lhs_in
            w0 = i * r.rhs_out + j * r.rhs_in
            for u in range(r.uop_begin, r.uop_end):
                d = uops[u, dst] + d0
                # A reset writes without reading: its factors need not even exist.
                if r.reset:
                    value[d], node[d], growth[d], ready[d] = _ZERO, 0, 1.0, True
                    continue
                s, w = uops[u, lhs] + s0, uops[u, rhs] + w0
                if not (ready[d] and a_ready[s] and b_ready[w]):
                    state[2], state[4] = UNWRITTEN, d
                    return False
                high, low = _ZERO, value[d]
                for first in range(0, count, 16):
                    # 2^4 products of 2^122 stay below 2^127.
                    for k in range(first, min(first + 16, count)):
                        high, low = multiply_add(high, low, a[s * count + k], b[w * count + k])
                    high, low = _ZERO, reduced(high, low)
                value[d] = low
                # Which tensors were ever a left or a right factor: one on both sides would make a
                # square, and forms linear in each tensor are all that the lemma is used for.
                state[5] |= a_tag[s]
                state[6] |= b_tag[w]
    return True


@inner
def _map(
    r: Row, fields: Ints, ones: np.uint64, uops: Ints, sums: Side, nodes_of: NodesOf,
    nodes: Records, state: Ints,
) -> bool:  # fmt: skip
    """A map, step by step. False where the walk ends."""
    for i in range(r.iter_out):
        for j in range(r.iter_in):
            for u in range(r.uop_begin, r.uop_end):
                d = uops[u, fields[0]] + i * r.dst_out + j * r.dst_in
                s = uops[u, fields[1]] + i * r.lhs_out + j * r.lhs_in
                if not _map_step(r, d, s, ones, sums, nodes_of, nodes, state):
                    return False
    return True


@njit(cache=True, nogil=True)
def walk(
    order: Ints, begin: int, end: int, rows: Records, machine: Shape, dram: Dram, program: Code,
    own: Ints, uops: Ints, sides: Sides, nodes_of: NodesOf, nodes: Records, stored: Records,
    ones: np.uint64, state: Ints,
) -> None:  # fmt: skip
    """Walks instructions order[begin:end].

    machine: per memory its roles, which memory it mirrors, bytes of an element; numbers of an
    element in each role; micro-op fields of contraction and map. dram: IMAGE, values, tags.
    program: micro-ops and where they lie. own: first and last byte of the result. sides: of left
    and right factors and of sums: numbers, tags, whether written. nodes_of: of sums: node, growth
    by shifts and sums. ones: the sum of the weights. state: nodes, stores, why it ended (0: not),
    instruction, element, tags of left and right factors that were multiplied, by how much
    coefficients may grow.
    """
    slots, gemm, each = machine[3], machine[4], machine[5]
    for t in range(begin, end):
        n = order[t]
        r: Row = rows[n]
        state[3] = n
        if r.kind == LOAD:
            # An empty transfer moves tokens only.
            if r.x_size and not _load(r, machine, dram, program, own, uops, sides, nodes_of, state):
                return
        elif r.kind == STORE:
            if not _store(r, machine, sides[2], nodes_of[0], stored, state):
                return
        elif r.kind == CONTRACT or r.kind == MAP:
            for u in range(r.uop_begin, r.uop_end):
                if not uops[u, -1]:
                    state[2], state[4] = UNWRITTEN, u
                    return
            if r.kind == CONTRACT:
                fine = _contract(r, gemm, slots[0], uops, sides, nodes_of, state)
            else:
                fine = _map(r, each, ones, uops, sides[2], nodes_of, nodes, state)
            if not fine:
                return


@njit(cache=True, nogil=True)
def shape_nodes(nodes: Records, count: int) -> int:
    """Numbers nodes by their form: functions, immediates and which values are 0, not the values.

    Fills `shape` of nodes[1:count+1]; returns how many shapes there are, from 1.
    """
    known = np.zeros(64, np.int64)  # A node of each shape.
    found = 0
    last = 0
    for n in range(1, count + 1):
        a: Node = nodes[n]
        left = nodes[a.left].shape
        right = nodes[a.right].shape if a.right >= 0 else np.int64(-1)
        hit = -1
        for probe in range(found):
            k = (last + 1 + probe) % found
            b: Node = nodes[known[k]]
            if (
                a.function == b.function and a.immediate == b.immediate
                and left == nodes[b.left].shape
                and right == (nodes[b.right].shape if b.right >= 0 else -1)
                and (a.left_value == 0) == (b.left_value == 0)
                and (a.right_value == 0) == (b.right_value == 0)
            ):  # fmt: skip
                hit = k
                break
        if hit < 0:
            if found == len(known):
                wider = np.zeros(2 * found, np.int64)
                wider[:found] = known
                known = wider
            known[found] = n
            hit = found
            found += 1
        nodes[n].shape = hit + 1
        last = hit
    return found
