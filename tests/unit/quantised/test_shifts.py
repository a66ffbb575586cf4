"""`build --rounding shift`: multipliers become shifts, as the model that is written says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from command_line import run
from onnx import helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from shift_layers import Net
from test_static_quantisation import Reader, network

from csp_embed.machine.program_file import read_program
from csp_embed.network.quantised import graph as g
from csp_embed.network.quantised.read import read_quantised


@pytest.mark.parametrize(
    ("form", "kind", "tail"), [("QDQ", "QInt8", "gemm"), ("QOperator", "QUInt8", "matmul")]
)
def test_onnxruntime_agrees_with_the_program(
    tmp_path: Path, form: str, kind: str, tail: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, model, shifted = (tmp_path / f"{n}.onnx" for n in ("float", "model", "shift"))
    onnx.save(network(tail), plain)
    quantize_static(plain, model, Reader(), per_channel=True, quant_format=QuantFormat[form],
                    activation_type=QuantType[kind], weight_type=QuantType.QInt8)  # fmt: skip
    program = tmp_path / "net.npz"
    made = ["--rounding", "shift", "--requantised", shifted, "-o", program]
    got = run(capsys, "build", model, *made, "--json")
    assert got.code == 0, got.err
    assert got.document["differences"] == 0
    assert got.document["files"][0] == str(shifted)

    before, graph = read_quantised(model), read_quantised(shifted)
    layers = [o for o in graph.operators if isinstance(o, g.Conv | g.FullyConnected)]
    assert len(layers) == 4
    for op in layers:
        assert isinstance(op.rescale, g.FloatScale)
        assert all(np.frexp(s)[0] == 0.5 for s in op.rescale.scale)
    recipes = {la["name"]: la["recipe"] for la in got.document["layers"]}
    assert {recipes[op.name] for op in layers} <= {"shift", "even"}
    # Activations keep what they had.
    for name in (*graph.inputs, *(o.output for o in layers)):
        assert graph.tensors[name].scales == before.tensors[name].scales

    # The program's own input, through onnxruntime on the model that was written.
    held = read_program(program)
    names = {t["name"]: held.tensors[key] for key, t in dict(held.meta)["tensors"].items()}
    (source,) = graph.inputs
    t, y = graph.tensors[source], layers[-1].output
    stored = names[source] ^ np.int8(-128) if t.dtype == "uint8" else names[source]
    stored = stored.view(t.dtype)
    x = ((stored.astype(np.float32) - t.zero) * np.float32(t.scales[0])).astype(np.float32)
    wanted = onnx.shape_inference.infer_shapes(onnx.load(shifted))
    wanted.graph.output.append(helper.make_empty_tensor_value_info(y))
    session = ort.InferenceSession(wanted.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run([y], {session.get_inputs()[0].name: x})
    machine = names[y].view(np.uint8) ^ 128 if found.dtype == np.uint8 else names[y]
    assert np.array_equal(machine.reshape(found.shape), found)
    assert len(np.unique(found)) > 2


def test_what_it_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.tflite"
    path.write_bytes(Net.begin(1, (1, 4, 4, 3)).conv(16, 3, 7).content())
    out = tmp_path / "shift.onnx"
    got = run(capsys, "build", path, "--rounding", "shift", "--requantised", out)
    assert (got.code, out.exists()) == (2, False)
    assert f"--requantised {out.with_suffix('.tflite')}" in got.err
    got = run(capsys, "build", path, "--rounding", "shift")
    assert got.code == 2
    assert "--requantised FILE.tflite" in got.err


@pytest.mark.parametrize("each", [True, False])
def test_tflite_files_keep_their_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], each: bool
) -> None:
    """Scales by channel, and one for all: every multiplier is a power of two as near as float32 has
    it, real weights and biases are as near as half of a step, the rest of the file is the same."""
    path, out, file = (tmp_path / n for n in ("m.tflite", "shift.tflite", "m.npz"))
    net = Net.begin(3, (1, 6, 5, 4)).conv(6, 3, [5.3, 6.1, 5.7, 6.6, 5.2, 7.4] if each else 5.6)
    path.write_bytes(net.conv(6, 3, 6.4, depthwise=True).dense(5, 6.3).content())
    got = run(capsys, "build", path, "--rounding", "shift", "--requantised", out, "-o", file,
              "--json")  # fmt: skip
    assert (got.code, got.document["differences"]) == (0, 0), got.err
    assert {layer["recipe"] for layer in got.document["layers"]} <= {"shift", "sign", ""}
    assert run(capsys, "certify", file).code == 0
    assert len(out.read_bytes()) == len(path.read_bytes())
    before, after = read_quantised(path), read_quantised(out)
    layers = 0
    for op in after.operators:
        if not isinstance(op, g.Conv | g.FullyConnected):
            continue
        layers += 1
        x, w, y = (after.tensors[n] for n in (op.inputs[0], op.inputs[1], op.output))
        old = before.tensors[op.inputs[1]]
        assert w.data is not None
        assert old.data is not None
        assert len(w.scales) == len(old.scales)
        powers = np.log2(np.array(w.scales) * x.scales[0] / y.scales[0])
        assert np.abs(powers - np.rint(powers)).max() < 2.0**-22
        new_scale, old_scale = (
            np.broadcast_to(np.array(t.scales), w.shape[0]).reshape(-1, 1, 1, 1)[
                (..., *[0] * (4 - w.data.ndim))
            ]
            for t in (w, old)
        )
        off = np.abs(w.data * new_scale - old.data * old_scale) / new_scale
        # Where the largest weights are clipped the error of the others is less.
        assert np.quantile(off, 0.8) <= 0.5 + 1e-6
        b, c = after.tensors[op.inputs[2]].data, before.tensors[op.inputs[2]].data
        assert b is not None
        assert c is not None
        real = [v * s.reshape(-1) * x.scales[0] for v, s in ((b, new_scale), (c, old_scale))]
        assert np.abs(real[0] - real[1]).max() <= 0.5001 * new_scale.max() * x.scales[0]
    assert layers == 3
