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
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from csp_embed.sim.functional_table import CONTRACT, LOAD, MAP, STORE
from csp_embed.sim.memory import COMPUTED, LOADED, PAIRS, UOPS, State

# Status codes of `execute`, with what status[2:] then holds.
OK = 0
DRAM_OUTSIDE = 1  # address, bytes
OPERAND_OUTSIDE = 2  # operand number, lowest, highest element
STALE_STORE = 3  # element
NEGATIVE_SHIFT = 4  # element
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
        v32, half = ir.VectorType(_I32, n_o), ir.VectorType(ir.IntType(16), 2 * n_o)
        wide = ir.VectorType(_I32, 2 * n_o)
        out, factors, dsts, rows = (_data(context, builder, signature, args, k) for k in range(4))

        def const(value: int) -> Any:
            return ir.Constant(_I64, value)

        x_at, y_at = [], []
        for s in range(n_steps):
            at = builder.add(args[4], const(s))
            x, y = builder.load(builder.gep(rows, [at])), builder.load(builder.gep(dsts, [at]))
            for r in range(n_b):
                place = builder.gep(factors, [builder.add(x, const(r * n_i * 2))])
                x_at.append(builder.bitcast(place, _I32.as_pointer()))
                y_at.append(builder.gep(out, [builder.add(y, const(r * n_o))]))
        w_at = builder.gep(factors, [args[5]])
        none, none_wide = ir.Constant(v32, ir.Undefined), ir.Constant(wide, ir.Undefined)
        splat = ir.Constant(v32, [0] * n_o)
        even = ir.Constant(v32, list(range(0, 2 * n_o, 2)))
        odd = ir.Constant(v32, list(range(1, 2 * n_o, 2)))
        sums: list[Any] = [ir.Constant(v32, [0] * n_o)] * len(x_at)
        for i in range(n_i):
            w_here = builder.gep(w_at, [const(i * n_o * 2)])
            w = builder.load(builder.bitcast(w_here, half.as_pointer()), align=2)
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
                s.written[s.mem[memory].flags + d] = LOADED


@inner
def _sort(order, uops, field):
    """Sorts micro-op numbers by a field: heap sort (NumPy's sorts take long to compile)."""
    n = len(order)
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
    # Loops that leave the weights alone run innermost.
    fixed_out = outer if w_out == 0 else 1
    fixed_in = inner if w_in == 0 else 1
    first, count = r.uop_begin, r.uop_end - r.uop_begin
    order = np.arange(first, r.uop_end)
    if fixed_out * fixed_in < 8:
        _sort(order, s.uops, w_field)
    g = len(steps)
    for a in range(outer if w_out != 0 else 1):
        for e in range(inner if w_in != 0 else 1):
            k = 0
            while k < count:
                key = s.uops[order[k], w_field]
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
            lane = s.perm[s.mem[memory].perm_at + lane]
        return np.int32(s.pairs[at + lane])
    return s.words[at + lane]


@inner
def _narrow(value, bits):
    """The low `bits` of an int32, sign-extended."""
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
    return np.int32(np.uint32(value) << np.uint32(-other & 31))


@inner
def _map(r, n, s, ops, lanes, twin, strict, notes, status):
    """An elementwise instruction, step after step. twin: dst lane -> lane of the other operand."""
    d_mem, x_mem = ops[0, 0], ops[1, 0]
    function, use_imm, imm = r.function, r.use_imm, np.int32(r.imm)
    plain = x_mem == d_mem
    for i in range(r.iter_out):
        for j in range(r.iter_in):
            for u in range(r.uop_begin, r.uop_end):
                d = s.uops[u, ops[0, 1]] + i * r.dst_out + j * r.dst_in
                at = s.mem[d_mem].base + d * s.mem[d_mem].stride
                s.written[s.mem[d_mem].flags + d] = COMPUTED
                if use_imm:
                    _map_imm(s.words, at, function, imm, lanes)
                    if s.mem[d_mem].bits < 32:
                        for k in range(len(lanes)):
                            s.words[at + k] = _narrow(s.words[at + k], s.mem[d_mem].bits)
                    continue
                x = s.uops[u, ops[1, 1]] + i * r.lhs_out + j * r.lhs_in
                if function == 3:
                    for k in range(len(lanes)):
                        if _lane(s, x_mem, x, twin[k]) < 0:
                            notes[2] += 1
                            if notes[3] < 0:
                                notes[3] = n
                            if strict:
                                status[0], status[2] = NEGATIVE_SHIFT, x
                                return
                if plain:
                    _map_pair(
                        s.words, at, s.mem[d_mem].base + x * s.mem[d_mem].stride, function, lanes
                    )
                else:
                    for k in range(len(lanes)):
                        other = _lane(s, x_mem, x, twin[k])
                        s.words[at + k] = _apply(function, s.words[at + k], other)
                if s.mem[d_mem].bits < 32:
                    for k in range(len(lanes)):
                        s.words[at + k] = _narrow(s.words[at + k], s.mem[d_mem].bits)


@inner
def _map_imm(words, at, function, imm, lanes):
    # One loop per function, so that each becomes one vector instruction.
    out = words[at : at + len(lanes)]
    if function == 0:
        for k in range(len(lanes)):
            out[k] = min(out[k], imm)
    elif function == 1:
        for k in range(len(lanes)):
            out[k] = max(out[k], imm)
    elif function == 2:
        for k in range(len(lanes)):
            out[k] += imm
    elif function == 3 and imm >= 0:
        amount = np.int32(imm & 31)
        for k in range(len(lanes)):
            out[k] = out[k] >> amount
    else:
        for k in range(len(lanes)):
            out[k] = _apply(function, out[k], imm)


@inner
def _map_pair(words, at, other, function, lanes):
    out, x = words[at : at + len(lanes)], words[other : other + len(lanes)]
    if function == 0:
        for k in range(len(lanes)):
            out[k] = min(out[k], x[k])
    elif function == 1:
        for k in range(len(lanes)):
            out[k] = max(out[k], x[k])
    elif function == 2:
        for k in range(len(lanes)):
            out[k] += x[k]
    else:
        for k in range(len(lanes)):
            out[k] = _apply(function, out[k], x[k])


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


@inner
def _load(r, s, status):
    named, memory = r.named, r.memory
    width = r.x_pad_0 + r.x_size + r.x_pad_1
    height = r.y_pad_0 + r.y_size + r.y_pad_1
    elem_bytes, lane_bytes = s.mem[named].elem_bytes, s.mem[named].lane_bytes
    for y in range(height):
        inside = r.y_pad_0 <= y < r.y_pad_0 + r.y_size
        at = 0
        if inside:
            address = (r.dram + (y - r.y_pad_0) * r.x_stride) * elem_bytes
            at = _locate(s, address, r.x_size * elem_bytes)
            if at < 0:
                status[0], status[2], status[3] = DRAM_OUTSIDE, address, r.x_size * elem_bytes
                return
        for x in range(width):
            e = r.sram + y * width + x
            here = at + (x - r.x_pad_0) * elem_bytes
            data = inside and r.x_pad_0 <= x < r.x_pad_0 + r.x_size
            if s.mem[memory].storage == UOPS:
                word = _read(s.dram, here, 4) if data else np.int32(0)
                _decode_uop(s, s.mem[memory].base + e, word)
            elif s.mem[memory].storage == PAIRS:
                to = s.pairs[s.mem[memory].base + e * s.mem[memory].stride :]
                _fill(s, to, here, data, s.mem[memory].lanes, lane_bytes, s.mem[memory].perm_at)
            else:
                to = s.words[s.mem[memory].base + e * s.mem[memory].stride :]
                _fill(s, to, here, data, s.mem[memory].lanes, lane_bytes, s.mem[memory].perm_at)
            s.written[s.mem[memory].flags + e] = LOADED


@inner
def _fill(s, to, here, data, lanes, lane_bytes, perm_at):
    if not data:
        for k in range(lanes):
            to[s.perm[perm_at + k] if perm_at >= 0 else k] = 0
    elif perm_at >= 0:
        for k in range(lanes):
            to[s.perm[perm_at + k]] = _read(s.dram, here + k * lane_bytes, lane_bytes)
    elif lane_bytes == 1:
        for k in range(lanes):
            to[k] = np.int8(s.dram[here + k])
    else:
        for k in range(lanes):
            to[k] = _read(s.dram, here + k * lane_bytes, lane_bytes)


@inner
def _decode_uop(s, element, word):
    bits = np.int64(np.uint32(word))
    for f in range(len(s.fields)):
        value = (bits >> s.fields[f].lo) & ((np.int64(1) << s.fields[f].width) - 1)
        if s.fields[f].signed and value >> (s.fields[f].width - 1):
            value -= np.int64(1) << s.fields[f].width
        s.uops[element, f] = value


@inner
def _store(r, n, s, stale, notes, status):
    memory = r.named
    source = s.mem[memory].shadow if s.mem[memory].shadow >= 0 else r.memory
    elem_bytes, lane_bytes, lanes = (
        s.mem[memory].elem_bytes,
        s.mem[memory].lane_bytes,
        s.mem[memory].lanes,
    )
    for y in range(r.y_size):
        address = (r.dram + y * r.x_stride) * elem_bytes
        at = _locate(s, address, r.x_size * elem_bytes)
        if at < 0:
            status[0], status[2], status[3] = DRAM_OUTSIDE, address, r.x_size * elem_bytes
            return
        for x in range(r.x_size):
            e = r.sram + y * r.x_size + x
            if (
                stale > 0
                and s.mem[memory].shadow >= 0
                and s.written[s.mem[source].flags + e] != COMPUTED
            ):
                notes[0] += 1
                if notes[1] < 0:
                    notes[1] = n
                if stale == 2:
                    status[0], status[2] = STALE_STORE, e
                    return
            here = at + x * elem_bytes
            if lane_bytes == 1 and s.mem[source].storage != PAIRS:
                values = s.words[s.mem[source].base + e * s.mem[source].stride :]
                for k in range(lanes):
                    s.dram[here + k] = np.uint8(values[k] & 255)
                continue
            for k in range(lanes):
                value = _lane(s, source, e, k)
                for byte in range(lane_bytes):
                    s.dram[here + k * lane_bytes + byte] = (value >> (8 * byte)) & 255


@njit(cache=True, nogil=True)
def execute(
    order, begin, end, c, state, contract_ops, map_ops, fast, swapped, points, twin, strict, stale,
    notes, status, steps, one, b, i2, o, lanes,
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
            if r.x_size == 0:
                continue
            if kind == LOAD:
                _load(r, s, status)
            else:
                _store(r, n, s, stale, notes, status)
        elif kind in (CONTRACT, MAP):
            if r.uop_begin >= r.uop_end or r.iter_out == 0 or r.iter_in == 0:
                continue
            if kind == CONTRACT:
                used = 1 if r.reset else 3
                if not _operands_fit(r, s, contract_ops, used, status):
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
