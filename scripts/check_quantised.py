"""Compares the reference interpreter with recorded tensors of two runtimes, where they are at hand.

Usage: scripts/check_quantised [FOLDER]
       FOLDER: ../shared/quantised by default; its README tells the form

What a simulated machine stores is compared by scripts/bench_builds.
Prints a line a model: profile, tensors compared, elements, differences. Exit code 5 where any
element differs, 2 where the folder is not there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from csp_embed.network.quantised import graph as g
from csp_embed.network.quantised.onnx.graph import read_onnx
from csp_embed.network.quantised.reference.run import run
from csp_embed.network.quantised.tflite.file import read_file
from csp_embed.network.quantised.tflite.graph import read_tflite

PUBLISHED = {
    "kws": "kws_ref_model", "resnet8": "pretrainedResnet_quant", "ad01": "ad01_int8",
    "resnet8_large": "pretrainedResnet_large_int8", "vww": "vww_96_int8", "sww": "str_ww_ref_model",
}  # fmt: skip
# One line: model, profile, (tensor, ours, recorded) for every tensor.
Row = tuple[str, str, list[tuple[str, Any, Any]]]


def recorded(arrays: Mapping[str, Any], key: str) -> Any:
    """What TensorFlow Lite Micro computes, where the other runtime differs from it."""
    return arrays[f"{key}.tflm"] if f"{key}.tflm" in arrays else arrays[key]


def tflite_rows(path: Path, golden: Path, outputs: Path) -> Iterator[Row]:
    graph, names = read_tflite(path), [t.name for t in read_file(path).tensors]
    with np.load(golden) as arrays:
        feeds = {n: recorded(arrays, f"t{names.index(n)}") for n in graph.inputs}
        values = run(graph, feeds)
        # What goes in equals itself: it is not counted.
        keys = [k for k in arrays.files if "." not in k and names[int(k[1:])] not in feeds]
        rows = [(k, values[names[int(k[1:])]], recorded(arrays, k)) for k in keys]
    yield path.name, graph.profile, rows
    yield f"{path.name}, outputs", graph.profile, output_row(graph, outputs)


def output_row(graph: g.Graph, outputs: Path) -> list[tuple[str, Any, Any]]:
    """The last tensor for 200 further inputs."""
    with np.load(outputs) as arrays:
        x = arrays["x"] if "x" in arrays else inputs_by_table(outputs, arrays)
        expected = recorded(arrays, "y")
    shape = graph.tensors[graph.inputs[0]].shape
    x = np.moveaxis(x, -1, 1) if graph.profile == "onnxruntime" and x.ndim == 4 else x
    values = run(graph, {graph.inputs[0]: x.reshape(-1, *shape[1:])})
    return [("y", values[graph.outputs[0]].reshape(expected.shape), expected)]


def inputs_by_table(outputs: Path, arrays: Mapping[str, Any]) -> Any:
    name = outputs.name.rsplit("_", 2)[0]
    root = next(p for p in outputs.parents if (p / "golden").is_dir())
    with np.load(root / "golden" / f"{name}_outputs.npz") as published:
        return arrays["x_from_tflite_x"][published["x"].astype(int) + 128]


def onnx_rows(stem: Path, form: str) -> Iterator[Row]:
    """The recorded arrays are NHWC, the model's tensors NCHW."""
    graph = read_onnx(f"{stem}_{form}.onnx")
    names = json.loads(Path(f"{stem}.json").read_text())["tensors"]
    with np.load(f"{stem}_golden.npz") as arrays:
        golden = {k: nchw(arrays[k]) for k in arrays.files}
    shape = graph.tensors[graph.inputs[0]].shape
    values = run(graph, {graph.inputs[0]: golden["t0"].reshape(-1, *shape[1:])})
    rows = []
    for key, expected in golden.items():
        if key == "t0":  # what goes in
            continue
        name = names[key]["name"]
        # A Relu at one scale is named by its float result in QDQ form.
        ours = next(values[n] for n in (name, f"{name}_q", f"{name}_f.q") if n in values)
        rows.append((key, ours.reshape(expected.shape), expected))
    yield f"{stem.name}_{form}.onnx", graph.profile, rows
    outputs = Path(f"{stem}_outputs.npz")
    if outputs.exists():
        yield f"{stem.name}_{form}.onnx, outputs", graph.profile, output_row(graph, outputs)


def nchw(array: Any) -> Any:
    return np.moveaxis(array, -1, 1) if array.ndim == 4 else array


def case_rows(folder: Path) -> Iterator[Row]:
    """One-operator models, read from their JSON form: no importer stands between."""
    with np.load(folder / "cases.npz") as arrays:
        for case in json.loads((folder / "cases.json").read_text()):
            graph = from_json(case, lambda key, name=case["name"]: arrays[f"{name}/{key}"])
            feeds = {n: recorded(arrays, f"{case['name']}/{n}") for n in graph.inputs}
            values = run(graph, feeds)
            rows = [(n, values[n], recorded(arrays, f"{case['name']}/{n}")) for n in graph.outputs]
            yield case["name"], graph.profile, rows


def from_json(case: Mapping[str, Any], load: Any) -> g.Graph:
    tensors = {}
    for name, t in case["tensors"].items():
        scales = tuple(t.get("scales") or ([t["scale"]] if "scale" in t else []))
        data = load(t["data"]) if "data" in t else None
        tensors[name] = g.Tensor(
            name, tuple(t["shape"]), t["dtype"], scales, (t.get("zero_point", 0),), None, data
        )
    made = [operator(str(i), o, tensors) for i, o in enumerate(case["operators"])]
    return g.Graph(
        case["name"], "tflm", tensors, tuple(made), tuple(case["inputs"]), tuple(case["outputs"])
    )


def operator(name: str, o: Mapping[str, Any], tensors: dict[str, g.Tensor]) -> g.Operator:
    """An operator of the JSON form, with the multipliers that it states."""
    kind, inputs, output = o["op"], tuple(o["inputs"]), o["outputs"][0]
    clamp = tuple(o.get("clamp", (-128, 127)))
    common = (name, inputs, output)
    if kind in ("conv_2d", "depthwise_conv_2d"):
        w, channels = tensors[inputs[1]], tensors[inputs[0]].shape[3]
        if kind == "depthwise_conv_2d":
            data = w.data.transpose(3, 1, 2, 0)
            tensors[inputs[1]] = g.Tensor(w.name, data.shape, "int8", w.scales, (0,), None, data)
        groups = channels if kind == "depthwise_conv_2d" else 1
        pads = (tuple(o["pad_top_bottom"]), tuple(o["pad_left_right"]))
        shape = (tuple(o["stride"]), pads, tuple(o["dilation"]), groups)
        return g.Conv(*common, fixed(o["multiplier"], o["shift"]), clamp, *shape)
    if kind == "fully_connected":
        return g.FullyConnected(*common, fixed(o["multiplier"], o["shift"]), clamp)
    if kind == "add":
        parts = [fixed(o[f"multiplier{n}"], o[f"shift{n}"]) for n in ("1", "2", "")]
        return g.Add(*common, g.AddFixed(o["left_shift"], *parts), clamp)
    if kind in ("average_pool_2d", "max_pool_2d"):
        made = g.AveragePool if kind == "average_pool_2d" else g.MaxPool
        pads = (tuple(o["pad_top_bottom"]), tuple(o["pad_left_right"]))
        return made(*common, tuple(o["filter"]), tuple(o["stride"]), pads, clamp)
    if kind == "softmax":
        return g.Softmax(name, inputs, output, o["multiplier"], o["left_shift"], o["diff_min"])
    if kind == "pad":
        sides = tuple((int(a), int(b)) for a, b in tensors[inputs[1]].data)
        return g.Pad(name, inputs[:1], output, sides, tensors[inputs[0]].zero)
    if kind == "relu":
        return g.Requantise(*common, fixed(o["multiplier"], o["shift"]), clamp)
    raise ValueError(kind)


def fixed(multiplier: Any, shift: Any) -> g.FixedPoint:
    m, s = (tuple(v) if isinstance(v, list) else (v,) for v in (multiplier, shift))
    return g.FixedPoint(m, s)


def recorded_network(root: Path, form: str, name: str) -> tuple[g.Graph, dict[str, Any]]:
    """A network and its recorded tensors by name."""
    if form == "affine":
        stem = root / "onnx" / "tiny" / f"{name}_affine"
        graph = read_onnx(f"{stem}_qop.onnx")
        names = json.loads(Path(f"{stem}.json").read_text())["tensors"]
        with np.load(f"{stem}_golden.npz") as arrays:
            found = {names[k]["name"]: nchw(arrays[k]) for k in arrays.files}
        shapes = {n: t.shape for n, t in graph.tensors.items()}
        return graph, {
            n: v.reshape(-1, *shapes[n][1:])
            for k, v in found.items()
            for n in (k, f"{k}_q", f"{k}_f.q")
            if n in shapes
        }
    if form == "published":
        path, golden = (
            root / "models" / f"{PUBLISHED[name]}.tflite",
            root / "golden" / f"{name}.npz",
        )
    else:
        stem = root / f"tflite_{form}" / f"{name}_{form}"
        path, golden = Path(f"{stem}.tflite"), Path(f"{stem}_golden.npz")
    order = [t.name for t in read_file(path).tensors]
    with np.load(golden) as arrays:
        found = {order[int(k[1:])]: recorded(arrays, k) for k in arrays.files if "." not in k}
    return read_tflite(path), found


def all_rows(root: Path) -> Iterator[Row]:
    for name, file in PUBLISHED.items():
        golden = root / "golden"
        path = root / "models" / f"{file}.tflite"
        yield from tflite_rows(path, golden / f"{name}.npz", golden / f"{name}_outputs.npz")
        for form in ("shift", "pow2"):
            stem = root / f"tflite_{form}" / f"{name}_{form}"
            files = (Path(f"{stem}{end}") for end in (".tflite", "_golden.npz", "_outputs.npz"))
            yield from tflite_rows(*files)
    yield from case_rows(root / "ops")
    for path in sorted((root / "onnx" / "tiny").glob("*_qdq.onnx")):
        for form in ("qdq", "qop"):
            yield from onnx_rows(path.with_name(path.name.removesuffix("_qdq.onnx")), form)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path, default=Path("../shared/quantised"))
    arguments = parser.parse_args()
    root = arguments.folder
    if not root.is_dir():
        print(f"there is no {root}: nothing was compared", file=sys.stderr)
        return 2
    started = time.perf_counter()
    totals = [0, 0, 0, 0]
    print(f"{'model':42} {'profile':12} {'tensors':>7} {'elements':>11} {'differences':>11}")
    for name, profile, rows in all_rows(root):
        elements = sum(expected.size for _, _, expected in rows)
        wrong = sum(
            int((ours != expected).sum()) if ours.shape == expected.shape else expected.size
            for _, ours, expected in rows
        )
        print(f"{name:42} {profile:12} {len(rows):7} {elements:11,} {wrong:11,}", flush=True)
        for at, more in enumerate((1, len(rows), elements, wrong)):
            totals[at] += more
    models, tensors, elements, wrong = totals
    print(f"{f'{models} rows':42} {'':12} {tensors:7} {elements:11,} {wrong:11,}")
    print(f"{time.perf_counter() - started:.0f} s")
    return 5 if wrong or not elements else 0


if __name__ == "__main__":
    sys.exit(main())
