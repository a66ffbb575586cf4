"""A machine's own limit: a loop of independent contraction steps on registers, nothing else.

What a kernel reaches is stated as a share of what this loop reaches in the same run.
"""

from __future__ import annotations

import ctypes
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from csp_embed.errors import MissingLibrary
from csp_embed.machine.spec import Isa
from csp_embed.targets.source.nest import Address, Block, Call, Loop, Node, Sum
from csp_embed.targets.source.tiles import most_sums, templates
from csp_embed.targets.source.toolchain.build import build_text
from csp_embed.targets.source.written.emit import probe_text

# Sums enough to hide any latency here, where registers hold so many; steps enough for the clock.
MOST_SUMS, STEPS = 16, 20_000


def bare_loop(isa: Isa) -> tuple[Callable[[], Any], int]:
    """(a call of independent contraction steps, its products). Raises: MissingLibrary."""
    contract, _, _ = templates(isa)
    dst, lhs, rhs = (isa.memory(contract.slot(r).memory) for r in ("dst", "lhs", "rhs"))
    # Memories by name: both factors may be one.
    lanes = {m.name: math.prod(isa.lane_shape(m.name)) for m in (dst, lhs, rhs)}
    # Sums that are spilled would make the loop slower than kernels, and no limit.
    sums = most_sums(isa, MOST_SUMS)
    buffers = {"lhs_": (lhs.dtype, lanes[lhs.name]), "rhs_": (rhs.dtype, lanes[rhs.name]),
               "in_": (dst.dtype, sums * lanes[dst.name]),
               "out_": (dst.dtype, sums * lanes[dst.name])}  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="csp-embed-") as folder:
        path = Path(folder, "limit.so")
        build_text(probe_text(isa, _nest(isa, lanes[dst.name], sums), buffers), isa, path)
        library = ctypes.CDLL(str(path))
    # Values of all kinds: some CPUs slow down for special ones.
    arrays = [np.arange(n).astype(t) for t, n in buffers.values()]
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in arrays]

    def call(arrays: list[Any] = arrays) -> None:
        library.probe(*pointers)

    step = math.prod(isa.dims[d] for d in {*dst.lanes, *lhs.lanes, *rhs.lanes})
    return call, sums * STEPS * step


def _nest(isa: Isa, lanes: int, sums: int) -> tuple[Node, ...]:
    """Loads once, contracts many times, stores once. lanes: of a register of sums."""
    contract, get_lhs, get_rhs = templates(isa)
    assert isa.program is not None
    dst, lhs, rhs = (contract.slot(r).memory for r in ("dst", "lhs", "rhs"))
    put = isa.program.find("copy_out", dst=dst, address="int32")
    get = isa.program.find("copy_in", dst=dst, address=isa.memory(dst).dtype)
    if put is None or get is None:
        raise MissingLibrary(
            f"{isa.name} has no bare loop",
            why="its sums reach memory through a conversion only",
            hint="its kernels are timed all the same; their share of the machine is left out",
        )
    names = [f"acc_{n}" for n in range(sums)]
    # Each sum begins elsewhere: a compiler would keep one of sums that are equal.
    begin: list[Node] = [
        Call(get.name, {get.roles["dst"]: n,
                        get.roles["address"]: Address("in_", Sum(k * lanes))})
        for k, n in enumerate(names)
    ]  # fmt: skip
    begin += [
        Call(g.name, {g.roles["dst"]: f"{r}_0", g.roles["address"]: Address(f"{r}_", Sum())})
        for g, r in ((get_lhs, "lhs"), (get_rhs, "rhs"))
    ]
    step = tuple(
        Call(contract.name, {contract.roles["dst"]: n, contract.roles["lhs"]: "lhs_0",
                             contract.roles["rhs"]: "rhs_0"})
        for n in names
    )  # fmt: skip
    end = [
        Call(put.name, {put.roles["dst"]: n, put.roles["count"]: lanes,
                        put.roles["address"]: Address("out_", Sum(k * lanes))})
        for k, n in enumerate(names)
    ]  # fmt: skip
    registers = (*((dst, n) for n in names), (lhs, "lhs_0"), (rhs, "rhs_0"))
    return (Block(registers, (*begin, Loop("step", STEPS, step), *end)),)
