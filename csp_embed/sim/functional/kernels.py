"""The machine's instructions as compiled loops. Everything here is called through `execute`.

One file on purpose: Numba's disk cache looks at the time stamp of one file only, so a caller in
another file would keep an old copy of what it calls. Only `execute` is cached, and its arguments
hold no class of ours: an index that names a class of an older version could not be read any more.

A contraction's steps may run in any order (they add, modulo 2**32, into a third memory). They are
grouped by weight element, and `panel` runs a few steps at once: the weights in vector registers'
width, one row operand broadcast, pairs of int16 products added as the multiply-add instruction of
every x86-64 does. Vector widths are those of the block; LLVM fits them to the processor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from csp_embed.jit import intrinsic, njit
from csp_embed.judge.stream.table import CONTRACT, LOAD, MAP, STORE
from csp_embed.sim.functional.memory import COMPUTED, LOADED, PAIRS, UOPS, WORDS, State

# Status codes of `execute`, with what status[2:] then holds.
OK = 0
DRAM_OUTSIDE = 1  # address, bytes
OPERAND_OUTSIDE = 2  # operand number, lowest, highest element
STALE_STORE = 3  # element
NEGATIVE_SHIFT = 4  # element
# Steps that are collected before `panel` runs: two lists of it stay in the first cache.
LIST = 1024
# Never called from Python: without wrappers they compile in half the time.
inner = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _data(context: Any, builder: Any, signature: Any, args: Any, k: int) -> Any:
    return cgutils.create_struct_proxy(signature.args[k])(context, builder, args[k]).data


@intrinsic
def panel(typingctx, words, pairs, dst, row, p, column, steps, b, i2, o):
    """For s < len(steps): words[dst[p+s]:][b, o] += pairs[row[p+s]:][b, i] * pairs[column:][i, o].

    The lengths of the tuples `steps`, `b`, `i2` (pairs of i) and `o` are compile-time constants.
    """
    n_steps, n_b, n_i, n_o = steps.count, b.count, i2.count, o.count
    signature = types.void(words, pairs, dst, row, p, column, steps, b, i2, o)

    def codegen(context, builder, signature, args):
        # Pairs of int16 beside each other: the shape of the multiply-add instruction.
        v32, half = ir.VectorType(_I32, n_o), ir.VectorType(ir.IntType(16), 2 * n_o)
        wide = ir.VectorType(_I32, 2 * n_o)
        out, factors, dsts, rows = (_data(context, builder, signature, args, k) for k in range(4))

        def const(value: int) -> Any:
            return ir.Constant(_I64, value)

        x_at, y_at = [], []
        for s in range(n_steps):
            at = builder.add(args[4], const(s))
            x, y = builder.load(builder.gep(rows, [at])), builder.load(builder.gep(dsts, [at]))
            # One accumulator vector for each row of the block; all of them stay in registers.
            for r in range(n_b):
                place = builder.gep(factors, [builder.add(x, const(r * n_i * 2))])
                x_at.append(builder.bitcast(place, _I32.as_pointer()))
                y_at.append(builder.gep(out, [builder.add(y, const(r * n_o))]))
        w_at = builder.gep(factors, [args[5]])
        # Undefined lanes are never read: every shuffle names lanes of the first vector.
        none, none_wide = ir.Constant(v32, ir.Undefined), ir.Constant(wide, ir.Undefined)
        # All lanes from lane 0: a broadcast.
        splat = ir.Constant(v32, [0] * n_o)
        even = ir.Constant(v32, list(range(0, 2 * n_o, 2)))
        odd = ir.Constant(v32, list(range(1, 2 * n_o, 2)))
        sums: list[Any] = [ir.Constant(v32, [0] * n_o)] * len(x_at)
        for i in range(n_i):
            w_here = builder.gep(w_at, [const(i * n_o * 2)])
            w = builder.load(builder.bitcast(w_here, half.as_pointer()), align=2)
            # Widened by the compiler's own instruction, which it fuses with the product.
            w = builder.sext(w, wide)
            for m, place in enumerate(x_at):
                x = builder.load(builder.gep(place, [const(i)]), align=2)
                x = builder.insert_element(none, x, ir.Constant(_I32, 0))
                x = builder.shuffle_vector(x, none, splat)
                x = builder.sext(builder.bitcast(x, half), wide)
                product = builder.mul(x, w)
                low = builder.shuffle_vector(product, none_wide, even)
                high = builder.shuffle_vector(product, none_wide, odd)
                sums[m] = builder.add(sums[m], builder.add(low, high))
        # One after the other, so that steps with the same dst add up.
        # A step may add to what the step before it wrote, so sums are stored in order.
        for place, total in zip(y_at, sums, strict=True):
            vector = builder.bitcast(place, v32.as_pointer())
            old = builder.load(vector, align=4)
            builder.store(builder.add(old, total), vector, align=4)
        return context.get_dummy_value()

    return signature, codegen


@inner
def _bounds(r, s, memory, field, out, inner):
    """Lowest and highest element that an operand of compute instruction n touches."""
    low, high = s.uops[r.uop_begin, field], s.uops[r.uop_begin, field]
    for u in range(r.uop_begin, r.uop_end):
        low, high = min(low, s.uops[u, field]), max(high, s.uops[u, field])
    # Both loops are affine, so ends of the micro-ops and ends of the loops give the range.
    for step in (out * (r.iter_out - 1), inner * (r.iter_in - 1)):
        low, high = low + min(step, 0), high + max(step, 0)
    return low, high


@inner
def _operands_fit(r, s, ops, count, status):
    """Whether the operands of a compute instruction lie inside their memories; fills status."""
    for k in range(count):
        if k == 0:
            out, inner = r.dst_out, r.dst_in
        elif k == 1:
            out, inner = r.lhs_out, r.lhs_in
        else:
            out, inner = r.rhs_out, r.rhs_in
        low, high = _bounds(r, s, ops[k, 0], ops[k, 1], out, inner)
        if low < 0 or high >= s.mem[ops[k, 0]].depth:
            status[0], status[2], status[3], status[4] = OPERAND_OUTSIDE, k, low, high
            return False
    return True


@inner
def _reset(r, s, ops):
    memory, field = ops[0, 0], ops[0, 1]
    base, stride = s.mem[memory].base, s.mem[memory].stride
    for i in range(r.iter_out):
        for j in range(r.iter_in):
            for u in range(r.uop_begin, r.uop_end):
                d = s.uops[u, field] + i * r.dst_out + j * r.dst_in
                s.words[base + d * stride : base + (d + 1) * stride] = 0
                # A reset counts as loaded: the mirror that stores read is not touched by it.
                s.written[s.mem[memory].flags + d] = LOADED


@inner
def _sort(order, uops, field):
    """Sorts micro-op numbers by a field: heap sort (NumPy's sorts take long to compile)."""
    n = len(order)
    # Nearly always sorted already; the check costs one pass.
    sorted_already = True
    for k in range(n - 1):
        sorted_already = sorted_already and uops[order[k], field] <= uops[order[k + 1], field]
    if sorted_already:
        return
    for start in range(2 * n - 1, -1, -1):
        # First half: build the heap from its middle; second half: move the largest to the end.
        if start >= n:
            top, size = start - n, n
        else:
            order[0], order[start] = order[start], order[0]
            top, size = 0, start
        while 2 * top + 1 < size:
            child = 2 * top + 1
            if child + 1 < size and uops[order[child], field] < uops[order[child + 1], field]:
                child += 1
            if uops[order[top], field] >= uops[order[child], field]:
                break
            order[top], order[child] = order[child], order[top]
            top = child


@inner
def _contract(r, s, ops, swapped, dst, row, steps, one, b, i2, o):
    """A contraction through `panel`: steps that share their column operand (weights) together."""
    if swapped:
        x_mem, x_field, x_out, x_in = ops[2, 0], ops[2, 1], r.rhs_out, r.rhs_in
        w_mem, w_field, w_out, w_in = ops[1, 0], ops[1, 1], r.lhs_out, r.lhs_in
    else:
        x_mem, x_field, x_out, x_in = ops[1, 0], ops[1, 1], r.lhs_out, r.lhs_in
        w_mem, w_field, w_out, w_in = ops[2, 0], ops[2, 1], r.rhs_out, r.rhs_in
    d_mem, d_field = ops[0, 0], ops[0, 1]
    d_base, d_stride, flags = s.mem[d_mem].base, s.mem[d_mem].stride, s.mem[d_mem].flags
    x_base, x_stride = s.mem[x_mem].base, s.mem[x_mem].stride
    w_base, w_stride = s.mem[w_mem].base, s.mem[w_mem].stride
    d_out, d_in = r.dst_out, r.dst_in
    outer, inner = r.iter_out, r.iter_in
    # These meet one weight element again and again, and it stays in registers meanwhile.
    # Loops that leave the weights alone run innermost.
    fixed_out = outer if w_out == 0 else 1
    fixed_in = inner if w_in == 0 else 1
    first, count = r.uop_begin, r.uop_end - r.uop_begin
    order = np.arange(first, r.uop_end)
    # Few repetitions by loops: then equal weights are brought together by sorting the micro-ops.
    if fixed_out * fixed_in < 8:
        _sort(order, s.uops, w_field)
    g = len(steps)
    for a in range(outer if w_out != 0 else 1):
        for e in range(inner if w_in != 0 else 1):
            k = 0
            while k < count:
                key = s.uops[order[k], w_field]
                # One weight element; all that shares it follows.
                column = w_base + (key + a * w_out + e * w_in) * w_stride
                filled = 0
                while True:
                    more = k < count and s.uops[order[k], w_field] == key
                    if more:
                        u = order[k]
                        k += 1
                        d0 = s.uops[u, d_field] + a * d_out + e * d_in
                        x0 = s.uops[u, x_field] + a * x_out + e * x_in
                        for i in range(fixed_out):
                            for j in range(fixed_in):
                                d = d0 + i * d_out + j * d_in
                                s.written[flags + d] = COMPUTED
                                dst[filled] = d_base + d * d_stride
                                row[filled] = x_base + (x0 + i * x_out + j * x_in) * x_stride
                                filled += 1
                                # A full list is run at once, block by block.
                                if filled == LIST:
                                    for p in range(0, LIST, g):
                                        panel(
                                            s.words, s.pairs, dst, row, p, column, steps, b, i2, o
                                        )
                                    filled = 0
                    else:
                        p = 0
                        while p + g <= filled:
                            panel(s.words, s.pairs, dst, row, p, column, steps, b, i2, o)
                            p += g
                        # What does not fill a block runs one by one.
                        while p < filled:
                            panel(s.words, s.pairs, dst, row, p, column, one, b, i2, o)
                            p += 1
                        break


@inner
def _lane(s, memory, element, lane):
    """One lane of a memory, in whatever arena."""
    at = s.mem[memory].base + element * s.mem[memory].stride
    if s.mem[memory].storage == PAIRS:
        if s.mem[memory].perm_at >= 0:
            # Weights lie in the order that `panel` reads; single lanes are looked up through it.
            lane = s.perm[s.mem[memory].perm_at + lane]
        return np.int32(s.pairs[at + lane])
    return s.words[at + lane]


@inner
def _narrow(value, bits):
    """The low `bits` of an int32, sign-extended."""
    # Up and down again: the sign comes from the highest of the kept bits.
    shift = np.int32(32 - bits)
    return np.int32(np.int32(value << shift) >> shift)


@inner
def _contract_any(r, s, ops, points):
    """A contraction of any shape, point by point; points: rows of (dst, lhs, rhs lane)."""
    d_mem, x_mem, w_mem = ops[0, 0], ops[1, 0], ops[2, 0]
    for i in range(r.iter_out):
        for j in range(r.iter_in):
            for u in range(r.uop_begin, r.uop_end):
                d = s.uops[u, ops[0, 1]] + i * r.dst_out + j * r.dst_in
                x = s.uops[u, ops[1, 1]] + i * r.lhs_out + j * r.lhs_in
                w = s.uops[u, ops[2, 1]] + i * r.rhs_out + j * r.rhs_in
                at = s.mem[d_mem].base + d * s.mem[d_mem].stride
                for k in range(len(points)):
                    product = _lane(s, x_mem, x, points[k, 1]) * _lane(s, w_mem, w, points[k, 2])
                    value = np.int32(s.words[at + points[k, 0]] + np.int32(product))
                    # Accumulators narrower than 32 bits wrap around at their own width.
                    s.words[at + points[k, 0]] = _narrow(value, s.mem[d_mem].bits)
                s.written[s.mem[d_mem].flags + d] = COMPUTED


@inner
def _apply(function, value, other):
    """One elementwise operation on int32; shifts use the low five bits of the amount."""
    if function == 0:
        return min(value, other)
    if function == 1:
        return max(value, other)
    if function == 2:
        return np.int32(value + other)
    if function == 4:
        return np.int32(value * other)
    if other >= 0:
        return np.int32(value >> (other & 31))
    # By unsigned numbers: shifting a sign bit out is no error of the machine.
    return np.int32(np.uint32(value) << np.uint32(-other & 31))


@intrinsic
def _vector_step(typingctx, words, at, other, imm, function, lanes):
    """words[at:][lanes] = function(words[at:], words[other:], or imm where other is a float).

    The length of `function` is its number, that of `lanes` the width: compile-time constants.
    """
    number, width = function.count, lanes.count
    # The type says which it is, so that the choice is made when it is compiled.
    by_imm = isinstance(other, types.Float)
    signature = types.void(words, at, other, imm, function, lanes)

    def codegen(context, builder, signature, args):
        vector = ir.VectorType(_I32, width)
        data = _data(context, builder, signature, args, 0)
        place = builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer())
        x = builder.load(place, align=4)
        if by_imm:
            none = ir.Constant(vector, ir.Undefined)
            y = builder.insert_element(none, args[3], ir.Constant(_I32, 0))
            y = builder.shuffle_vector(y, none, ir.Constant(vector, [0] * width))
        else:
            source = builder.bitcast(builder.gep(data, [args[2]]), vector.as_pointer())
            y = builder.load(source, align=4)
        zero, mask = ir.Constant(vector, [0] * width), ir.Constant(vector, [31] * width)
        if number == 0:
            result = builder.select(builder.icmp_signed("<", x, y), x, y)
        elif number == 1:
            result = builder.select(builder.icmp_signed(">", x, y), x, y)
        elif number == 2:
            result = builder.add(x, y)
        elif number == 4:
            result = builder.mul(x, y)
        else:
            # Both directions are computed and one is chosen, lane by lane: cheaper than a branch
            # for each.
            right = builder.ashr(x, builder.and_(y, mask))
            left = builder.shl(x, builder.and_(builder.sub(zero, y), mask))
            result = builder.select(builder.icmp_signed("<", y, zero), left, right)
        builder.store(result, place, align=4)
        return context.get_dummy_value()

    return signature, codegen


@njit(nogil=True, inline="always")
def _step(words, at, other, imm, function, lanes):
    # The length of a tuple is a number that the compiler knows; there are five, so five branches.
    if function == 0:
        _vector_step(words, at, other, imm, (), lanes)
    elif function == 1:
        _vector_step(words, at, other, imm, (0,), lanes)
    elif function == 2:
        _vector_step(words, at, other, imm, (0, 0), lanes)
    elif function == 3:
        _vector_step(words, at, other, imm, (0, 0, 0), lanes)
    else:
        _vector_step(words, at, other, imm, (0, 0, 0, 0), lanes)


@inner
def _negative_amount(s, memory, element, twin):
    lowest = np.int32(0)
    for k in range(len(twin)):
        lowest = min(lowest, _lane(s, memory, element, twin[k]))
    return lowest < 0


@inner
def _map(r, n, s, ops, lanes, twin, strict, notes, status):
    """An elementwise instruction, step after step. twin: dst lane -> lane of the other operand.

    lanes: as many as one compiled step takes, a divisor of those of an element.
    """
    d_mem, x_mem, d_field, x_field = ops[0, 0], ops[1, 0], ops[0, 1], ops[1, 1]
    function, use_imm, imm = r.function, r.use_imm, np.int32(r.imm)
    base, stride, flags = s.mem[d_mem].base, s.mem[d_mem].stride, s.mem[d_mem].flags
    bits, begin, end = s.mem[d_mem].bits, r.uop_begin, r.uop_end
    d_out, d_in, x_out, x_in, inner_count = r.dst_out, r.dst_in, r.lhs_out, r.lhs_in, r.iter_in
    for i in range(r.iter_out):
        for j in range(inner_count):
            for u in range(begin, end):
                d = s.uops[u, d_field] + i * d_out + j * d_in
                at = base + d * stride
                # Written even where the value stays: a mirror is current after any compute step.
                s.written[flags + d] = COMPUTED
                if use_imm:
                    for part in range(0, stride, len(lanes)):
                        _step(s.words, at + part, 0.0, imm, function, lanes)
                else:
                    x = s.uops[u, x_field] + i * x_out + j * x_in
                    # Implementations disagree on negative amounts of tensors: counted here, an
                    # error where strict.
                    if function == 3 and _negative_amount(s, x_mem, x, twin):
                        notes[2] += 1
                        if notes[3] < 0:
                            notes[3] = n
                        if strict:
                            status[0], status[2] = NEGATIVE_SHIFT, x
                            return
                    # Same memory, same layout: whole vectors. Else lane by lane through `twin`.
                    if x_mem == d_mem:
                        other_at = base + x * stride
                        for part in range(0, stride, len(lanes)):
                            _step(s.words, at + part, other_at + part, imm, function, lanes)
                    else:
                        for k in range(stride):
                            other = _lane(s, x_mem, x, twin[k])
                            s.words[at + k] = _apply(function, s.words[at + k], other)
                if bits < 32:
                    for k in range(stride):
                        s.words[at + k] = _narrow(s.words[at + k], bits)


@inner
def _locate(s, address, length):
    """Offset of a DRAM address in the buffer, or -1 where the range is not in the image."""
    low, high = 0, len(s.ranges)
    while low < high:
        middle = (low + high) // 2
        if s.ranges[middle].start <= address:
            low = middle + 1
        else:
            high = middle
    k = low - 1
    # The whole range has to lie in one piece of the image.
    if k < 0 or address + length > s.ranges[k].end:
        return -1
    return s.ranges[k].offset + address - s.ranges[k].start


@inner
def _read(dram, at, length):
    """A little-endian signed integer of 1, 2 or 4 bytes."""
    if length == 1:
        return np.int32(np.int8(dram[at]))
    if length == 2:
        return np.int32(np.int16(np.uint16(dram[at]) | np.uint16(dram[at + 1]) << np.uint16(8)))
    value = np.uint32(dram[at]) | np.uint32(dram[at + 1]) << np.uint32(8)
    value |= np.uint32(dram[at + 2]) << np.uint32(16) | np.uint32(dram[at + 3]) << np.uint32(24)
    return np.int32(value)


@intrinsic
def _flip(typingctx, dram, at, pairs, to, o, i2):
    """pairs[to:][i2, o, 2] = int8 dram[at:][o, i2, 2]: weights in the order that `panel` reads.

    A perfect shuffle moves the highest bit of an index to the bottom; log2(o) of them transpose.
    """
    n_o, n_i = o.count, i2.count
    signature = types.void(dram, at, pairs, to, o, i2)

    def codegen(context, builder, signature, args):
        n = n_o * n_i
        vector = ir.VectorType(ir.IntType(16), n)
        source = _data(context, builder, signature, args, 0)
        target = _data(context, builder, signature, args, 2)
        place = builder.bitcast(builder.gep(source, [args[1]]), vector.as_pointer())
        value = builder.load(place, align=1)
        none = ir.Constant(vector, ir.Undefined)
        # Interleaves the lower half with the upper one: the perfect shuffle.
        order = [(k // 2) + (k % 2) * (n // 2) for k in range(n)]
        mask = ir.Constant(ir.VectorType(_I32, n), order)
        for _ in range(n_o.bit_length() - 1):
            value = builder.shuffle_vector(value, none, mask)
        wide = ir.VectorType(ir.IntType(16), 2 * n)
        value = builder.bitcast(value, ir.VectorType(ir.IntType(8), 2 * n))
        value = builder.sext(value, wide)
        out = builder.bitcast(builder.gep(target, [args[3]]), wide.as_pointer())
        builder.store(value, out, align=2)
        return context.get_dummy_value()

    return signature, codegen


@inner
def _widen(to, start, s, at, count, lane_bytes):
    """to[start:][:count] = little-endian integers of DRAM. Unsigned indices need no wrap-around."""
    k, first, where = np.uintp(0), np.uintp(start), np.uintp(at)
    if lane_bytes == 1:
        for k in range(np.uintp(count)):
            to[first + k] = np.int8(s.dram[where + k])
    elif lane_bytes == 4:
        words, where = s.dram.view(np.int32), np.uintp(at // 4)
        for k in range(np.uintp(count)):
            to[first + k] = words[where + k]
    else:
        for k in range(np.uintp(count)):
            low, high = s.dram[where + 2 * k], s.dram[where + 2 * k + 1]
            to[first + k] = np.int16(np.uint16(low) | np.uint16(high) << np.uint16(8))


@inner
def _elements(s, m, to, e, at, count, lane_bytes, flip, o, i2):
    """`count` elements from DRAM into an arena, from element e on."""
    # Element after element without gaps: one run of lanes.
    if m.perm_at < 0 and m.stride == m.lanes:
        _widen(to, m.base + e * m.stride, s, at, count * m.lanes, lane_bytes)
        return
    for k in range(count):
        start = m.base + (e + k) * m.stride
        here = at + k * m.lanes * lane_bytes
        # Only where lanes are bytes and the order is the panel's; anything else goes lane by lane.
        if flip:
            _flip(s.dram, here, s.pairs, start, o, i2)
            continue
        for lane in range(m.lanes):
            place = s.perm[m.perm_at + lane] if m.perm_at >= 0 else lane
            _widen(to, start + place, s, here + lane * lane_bytes, 1, lane_bytes)


@inner
def _clear(s, m, first, count):
    """Zeros in `count` elements from `first` on."""
    start, end = m.base + first * m.stride, m.base + (first + count) * m.stride
    if m.storage == UOPS:
        s.uops[m.base + first : m.base + first + count] = 0
    elif m.storage == PAIRS:
        s.pairs[start:end] = 0
    else:
        s.words[start:end] = 0


@inner
def _load(r, s, status, flips, o, i2):
    m = s.mem[r.memory]
    width = r.x_pad_0 + r.x_size + r.x_pad_1
    height = r.y_pad_0 + r.y_size + r.y_pad_1
    elem_bytes, lane_bytes = s.mem[r.named].elem_bytes, s.mem[r.named].lane_bytes
    # Padding too: it is written with zeros.
    s.written[m.flags + r.sram : m.flags + r.sram + width * height] = LOADED
    for y in range(height):
        e = r.sram + y * width
        if y < r.y_pad_0 or y >= r.y_pad_0 + r.y_size:
            _clear(s, m, e, width)
            continue
        address = (r.dram + (y - r.y_pad_0) * r.x_stride) * elem_bytes
        at = _locate(s, address, r.x_size * elem_bytes)
        if at < 0:
            status[0], status[2], status[3] = DRAM_OUTSIDE, address, r.x_size * elem_bytes
            return
        # Cleared whole, then filled: fewer calls than clearing both sides.
        if width > r.x_size:
            _clear(s, m, e, width)
        e += r.x_pad_0
        if m.storage == UOPS:
            for x in range(r.x_size):
                # Micro-ops are words of four bytes.
                _decode_uop(s, m.base + e + x, at + 4 * x)
        elif m.storage == PAIRS:
            flip = flips and lane_bytes == 1 and m.perm_at >= 0
            _elements(s, m, s.pairs, e, at, r.x_size, lane_bytes, flip, o, i2)
        else:
            _elements(s, m, s.words, e, at, r.x_size, lane_bytes, False, o, i2)


@inner
def _decode_uop(s, element, at):
    bits = np.int64(0)
    for k in range(4):
        bits |= np.int64(s.dram[at + k]) << (8 * k)
    for f in range(len(s.fields)):
        value = (bits >> s.fields[f].lo) & ((np.int64(1) << s.fields[f].width) - 1)
        if s.fields[f].signed and value >> (s.fields[f].width - 1):
            value -= np.int64(1) << s.fields[f].width
        s.uops[element, f] = value


@inner
def _store(r, n, s, stale, notes, status):
    m = s.mem[r.named]
    # A store of a mirror takes the accumulators' values and cuts them to its width.
    source = m.shadow if m.shadow >= 0 else r.memory
    f = s.mem[source]
    if stale > 0 and m.shadow >= 0:
        for e in range(r.sram, r.sram + r.x_size * r.y_size):
            # What the mirror would hold on hardware is older than what is here.
            if s.written[f.flags + e] != COMPUTED:
                notes[0] += 1
                if notes[1] < 0:
                    notes[1] = n
                if stale == 2:
                    status[0], status[2] = STALE_STORE, e
                    return
    for y in range(r.y_size):
        address = (r.dram + y * r.x_stride) * m.elem_bytes
        at = _locate(s, address, r.x_size * m.elem_bytes)
        if at < 0:
            status[0], status[2], status[3] = DRAM_OUTSIDE, address, r.x_size * m.elem_bytes
            return
        e = r.sram + y * r.x_size
        # One byte a lane, by far the most usual: the low byte is the value.
        if m.lane_bytes == 1 and f.storage == WORDS:
            first, where = np.uintp(f.base + e * f.stride), np.uintp(at)
            for k in range(np.uintp(r.x_size * f.lanes)):
                s.dram[where + k] = s.words[first + k]
            continue
        for k in range(r.x_size * m.lanes):
            value = _lane(s, source, e + k // m.lanes, k % m.lanes)
            for byte in range(m.lane_bytes):
                s.dram[at + k * m.lane_bytes + byte] = (value >> (8 * byte)) & 255


@njit(cache=True, nogil=True)
def execute(
    order, begin, end, c, state, contract_ops, map_ops, fast, swapped, points, twin, strict, stale,
    flips, notes, status, steps, one, b, i2, o, lanes,
):  # fmt: skip
    """Runs order[begin:end]. Stops at an error with status = [code, position in order, details].

    contract_ops / map_ops: int64[operands, 2] of (memory, micro-op field). notes: [stale stores,
    first instruction, negative tensor shifts, first instruction], counted where not strict. stale:
    0 stores of stale elements are fine, 1 they are counted, 2 they are errors.
    """
    s = State(*state)
    dst, row = np.empty(LIST, np.int64), np.empty(LIST, np.int64)
    for t in range(begin, end):
        n = order[t]
        status[1] = t
        r = c[n]
        kind = r.kind
        if kind in (LOAD, STORE):
            # Token-only transfers move nothing.
            if r.x_size == 0:
                continue
            if kind == LOAD:
                _load(r, s, status, flips, o, i2)
            else:
                _store(r, n, s, stale, notes, status)
        elif kind in (CONTRACT, MAP):
            # Without a step an instruction has no operands either.
            if r.uop_begin >= r.uop_end or r.iter_out == 0 or r.iter_in == 0:
                continue
            if kind == CONTRACT:
                used = 1 if r.reset else 3
                if not _operands_fit(r, s, contract_ops, used, status):
                    # Checked before the first write: an instruction runs whole or not at all.
                    return
                if r.reset:
                    _reset(r, s, contract_ops)
                elif fast:
                    _contract(r, s, contract_ops, swapped, dst, row, steps, one, b, i2, o)
                else:
                    _contract_any(r, s, contract_ops, points)
            else:
                used = 1 if r.use_imm else 2
                if not _operands_fit(r, s, map_ops, used, status):
                    return
                _map(r, n, s, map_ops, lanes, twin, strict, notes, status)
        if status[0] != OK:
            return
