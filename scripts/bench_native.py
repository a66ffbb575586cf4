"""Giga-MACs per second of generated C, beside onnxruntime and the machine's own limit.

One process on one pinned core; the three are timed in turns, and each figure is the median of the
turns in processor time of the thread, so that other work on the computer disturbs least. Weights
are packed beforehand on both sides, activations inside the time.

limit: a loop of independent contraction steps of the spec, on registers. onnxruntime: MatMulInteger
for products (int32 results, so it has less to do), QLinearConv for convolutions (uint8 activations,
its fast way). share: ours over the limit. Layers with an epilogue run it on our side.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from csp_embed.compiler.source_chain import compile_source
from csp_embed.errors import CspEmbedError
from csp_embed.files import atomic
from csp_embed.ir.operator import Operator
from csp_embed.machine.load import load_isa
from csp_embed.machine.spec import Isa
from csp_embed.ops.bound import natural
from csp_embed.ops.data import random_tensors
from csp_embed.ops.deepbench import layer
from csp_embed.targets.source.build import aligned, build_text
from csp_embed.targets.source.emit import probe_text
from csp_embed.targets.source.nest import Address, Block, Call, Loop, Sum
from csp_embed.targets.source.tiles import templates

DEFAULT = ("conv006", "conv010", "conv015", "conv000", "conv020", "conv030", "conv050", "gemm005",
           "gemm010", "gemm020")  # fmt: skip
SUMS, STEPS = 16, 200_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench_native", description=__doc__)
    parser.add_argument("what", nargs="*", default=list(DEFAULT), help="DeepBench ids")
    parser.add_argument("--isa", default="x86_avx512_vnni", help="a machine that this CPU is")
    parser.add_argument("--rounds", type=int, default=7, help="turns (default 7)")
    parser.add_argument("--json", metavar="FILE", help="write the table as JSON")
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    isa = load_isa(options.isa)
    limit, macs = bare_loop(isa)
    print("giga-MACs a second, medians; ratio: onnxruntime's time over ours")
    heads = f"{'ours':>8}{'ort':>8}{'ratio':>7}{'limit':>8}{'share':>7}"
    print(f"{'layer':<10}{'MMACs':>8}{heads}  kernel")
    rows = []
    for name in options.what:
        op = layer(name)
        kernel = compile_source(op, isa, {})
        tensors = random_tensors(op, 0)
        wrong = kernel.difference(tensors, kernel.native.run(tensors))
        if wrong:
            print(f"{name} DIFFERS: {wrong}")
            return 5
        peer = onnxruntime_call(op, tensors)
        calls = [ours(kernel, tensors), limit, *([peer] if peer else [])]
        seconds = turns(calls, options.rounds)
        work = natural(op)["macs"]
        rate = work / seconds[0] / 1e9
        top = macs / seconds[1] / 1e9
        other = work / seconds[2] / 1e9 if peer else math.nan
        rows.append({"layer": name, "macs": work, "ours": rate, "onnxruntime": other,
                     "ratio": rate / other, "limit": top, "share": rate / top,
                     "kernel": kernel.ways()})  # fmt: skip
        print(f"{name:<10}{work / 1e6:>8.1f}{rate:>8.1f}{other:>8.1f}{rate / other:>7.2f}"
              f"{top:>8.1f}{rate / top:>7.2f}  {kernel.ways()}", flush=True)  # fmt: skip
    for label, part in (("convolutions", "conv"), ("products", "gemm")):
        ratios = [r["ratio"] for r in rows if r["layer"].startswith(part) and r["ratio"] > 0]
        if ratios:
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            print(f"geometric mean ratio over {len(ratios)} {label}: {mean:.2f}")
    if options.json:
        with atomic(options.json) as file:
            json.dump(rows, file, indent=1)
    return 0


def turns(calls: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Median seconds of each call; one after the other in every turn."""
    found: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(rounds):
        for n, call in enumerate(calls):
            repeat, spent = 0, 0.0
            while spent < 0.02:  # clocks and caches: a short layer runs several times
                start = time.thread_time()
                call()
                spent += time.thread_time() - start
                repeat += 1
            found[n].append(spent / repeat)
    return [float(np.median(f)) for f in found]


def ours(kernel: Any, tensors: dict[str, Any]) -> Callable[[], Any]:
    """The kernel on packed constants, without the checks that `run` makes of its arrays."""
    native, file, op = kernel.native, kernel.file, kernel.operator
    kept = [np.ascontiguousarray(tensors[n]) for n in file.arguments[:-1]]
    if file.packed:
        kept.append(native.pack(tensors))
    if file.work:
        count = getattr(native.library, f"{file.name}_work_bytes")
        count.restype = ctypes.c_size_t
        kept.append(aligned(count(), native.align))
    kept.append(np.zeros(op.tensors[op.out.tensor].shape, op.out_dtype))
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in kept]
    function = getattr(native.library, file.name)

    def call(kept: list[Any] = kept) -> None:
        function(*pointers)

    return call


def bare_loop(isa: Isa) -> tuple[Callable[[], Any], int]:
    """(a call of independent contraction steps, its MACs)."""
    contract, get_lhs, get_rhs = templates(isa)
    program = isa.program
    assert program is not None
    dst, lhs, rhs = (isa.memory(contract.slot(r).memory) for r in ("dst", "lhs", "rhs"))
    put = program.find("copy_out", dst=dst.name, address="int32")
    get = program.find("copy_in", dst=dst.name, address=dst.dtype)
    assert put is not None
    assert get is not None
    lanes = {m.name: math.prod(isa.lane_shape(m.name)) for m in (dst, lhs, rhs)}
    names = [f"acc_{n}" for n in range(SUMS)]
    nest = (
        Block(
            (*((dst.name, n) for n in names), (lhs.name, "lhs_0"), (rhs.name, "rhs_0")),
            (
                # Each sum begins elsewhere: a compiler would keep one of sums that are equal.
                *(Call(get.name, {get.roles["dst"]: n, get.roles["address"]:
                                  Address("in_", Sum(k * lanes[dst.name]))})
                  for k, n in enumerate(names)),
                *(Call(g.name, {g.roles["dst"]: f"{r}_0",
                                g.roles["address"]: Address(f"{r}_", Sum())})
                  for g, r in ((get_lhs, "lhs"), (get_rhs, "rhs"))),
                Loop("step", STEPS, tuple(
                    Call(contract.name, {contract.roles["dst"]: n, contract.roles["lhs"]: "lhs_0",
                                         contract.roles["rhs"]: "rhs_0"}) for n in names)),
                *(Call(put.name, {put.roles["dst"]: n, put.roles["count"]: lanes[dst.name],
                                  put.roles["address"]: Address("out_", Sum(k * lanes[dst.name]))})
                  for k, n in enumerate(names)),
            ),
        ),
    )  # fmt: skip
    buffers = {"lhs_": (lhs.dtype, lanes[lhs.name]), "rhs_": (rhs.dtype, lanes[rhs.name]),
               "in_": (dst.dtype, SUMS * lanes[dst.name]),
               "out_": (dst.dtype, SUMS * lanes[dst.name])}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "limit.so")
        build_text(probe_text(isa, nest, buffers), isa, path)
        library = ctypes.CDLL(str(path))
    arrays = [np.arange(n).astype(t) for t, n in buffers.values()]
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in arrays]

    def call(arrays: list[Any] = arrays) -> None:
        library.probe(*pointers)

    step = math.prod(isa.dims[d] for d in {*dst.lanes, *lhs.lanes, *rhs.lanes})
    return call, SUMS * STEPS * step


def onnxruntime_call(op: Operator, tensors: dict[str, Any]) -> Callable[[], Any] | None:
    """The same layer there; None where onnxruntime is absent or the operator is another one."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return None
    session = onnxruntime.SessionOptions()
    session.log_severity_level = 3  # warnings about constants that a node does not use
    session.intra_op_num_threads = session.inter_op_num_threads = 1
    w = tensors[op.rhs.tensor] if op.rhs is not None else None
    x = (tensors[op.lhs.tensor].astype(np.int16) + 128).astype(np.uint8)
    known = [numpy_helper.from_array(np.array(v, t), n) for n, v, t in (
        ("one", 1.0, np.float32), ("zx", 128, np.uint8), ("zw", 0, np.int8), ("zy", 128, np.uint8),
        ("scale", 64.0, np.float32))]  # fmt: skip
    if op.name == "matmul":
        known.append(numpy_helper.from_array(np.ascontiguousarray(w.T), "w"))
        node = helper.make_node("MatMulInteger", ["x", "w", "zx", "zw"], ["y"])
        kind = TensorProto.INT32
    elif op.name == "conv2d" and op.notes.get("groups", 1) == 1:
        known.append(numpy_helper.from_array(w, "w"))
        rows, columns = op.lhs.index[2], op.lhs.index[3]
        axes = dict(zip(("n", "k", "p", "q"), op.out_axes, strict=True))
        stride = [rows.coef(axes["p"]), columns.coef(axes["q"])]
        pads = [-rows.const, -columns.const]
        node = helper.make_node(
            "QLinearConv", ["x", "one", "zx", "w", "one", "zw", "scale", "zy"], ["y"],
            strides=stride, pads=[*pads, *pads],
        )  # fmt: skip
        kind = TensorProto.UINT8
    else:
        return None
    graph = helper.make_graph(
        [node], "layer", [helper.make_tensor_value_info("x", TensorProto.UINT8, x.shape)],
        [helper.make_tensor_value_info("y", kind, None)], known,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    run = onnxruntime.InferenceSession(
        model.SerializeToString(), session, providers=["CPUExecutionProvider"]
    )
    return lambda: run.run(None, {"x": x})


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CspEmbedError as error:
        print(error.render(), file=sys.stderr)
        sys.exit(error.exit_code)
