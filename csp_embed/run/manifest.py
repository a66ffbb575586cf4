"""Exports a plan: one ONNX file per device, one per part, and a manifest that ties them together.

    DIR/manifest.json   DIR/<device>.onnx   DIR/parts/<part>.onnx

A device's file holds all its nodes; a device with several parts cannot run it in one go (a later
part needs tensors that other devices make from an earlier one), hence the files of its parts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from csp_embed.errors import CheckError, InputError
from csp_embed.files import atomic
from csp_embed.ir.network import Plan, Platform
from csp_embed.network.files.schema import Strict, parse, read_bytes, read_document, sha256
from csp_embed.network.onnx.graph import Imported
from csp_embed.network.onnx.submodels import cut
from csp_embed.run.device_parts import Part

FORMAT = "csp-embed-manifest/1"


class PartEntry(Strict):
    """One file of one part. tasks in running order; reads and makes are tensor names."""

    index: int
    device: str
    file: str
    sha256: str
    tasks: list[str]
    reads: list[str]
    makes: list[str]
    predicted_ms: float = Field(ge=0)
    replica: int = 0


class DeviceFile(Strict):
    """All nodes of one device."""

    name: str
    kind: str
    file: str
    sha256: str


class TensorEntry(Strict):
    """A tensor between parts. from_part -1: the graph's input; a -1 in to_parts: its output."""

    dtype: str
    shape: list[int]
    bytes: int
    from_part: int
    to_parts: list[int]


class Manifest(Strict):
    """The whole file; parts stand in an order in which they can run. tensors: by name; those of a
    further replica of the network by `replica/name`."""

    format: Literal["csp-embed-manifest/1"]
    model: str
    model_sha256: str
    objective: float | None
    goal: str
    devices: list[DeviceFile]
    parts: list[PartEntry]
    tensors: dict[str, TensorEntry]


def write_parts(
    folder: Path, model: Imported, constants: Mapping[str, Any], parts: Sequence[Part]
) -> dict[int, Path]:
    """The ONNX file of every part, by part index."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[int, Path] = {}
    for part in parts:
        # Device names may hold characters that file names cannot.
        path = folder / f"{_safe(part.name)}.onnx"
        _write(cut(model.net, constants, part.nodes, part.name), path)
        files[part.index] = path
    return files


def export(
    folder: str | Path,
    plan: Plan,
    platform: Platform,
    model: Imported,
    constants: Mapping[str, Any],
    parts: Sequence[Part],
) -> Path:
    """Writes everything; returns the manifest's path. Raises: InputError where it cannot write."""
    # Anything that goes wrong here is about writing.
    root = Path(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
        files = write_parts(root / "parts", model, constants, parts)
    except OSError as error:
        raise InputError(
            f"cannot write {root}",
            where=str(root),
            why=error.strerror or str(error),
            hint="give another folder",
        ) from error
    devices = []
    for device in platform.devices:
        nodes = sorted(i for p in parts if p.device == device.name for i in p.nodes)
        if not nodes:
            continue
        path = root / f"{_safe(device.name)}.onnx"
        # Not convex: nodes of several parts together; such a file need not be able to run in one
        # go.
        _write(cut(model.net, constants, nodes, device.name, convex=False), path)
        digest = sha256(read_bytes(path))
        devices.append(
            DeviceFile(name=device.name, kind=device.kind, file=path.name, sha256=digest)
        )
    manifest = Manifest(
        format="csp-embed-manifest/1",
        model=Path(model.net.path).name,
        # Bound to the model by its digest, not by its path.
        model_sha256=sha256(read_bytes(model.net.path)),
        objective=plan.objective,
        goal=plan.goal,
        devices=devices,
        parts=[_part_entry(p, files[p.index], root) for p in parts],
        tensors=_tensors(model, parts),
    )
    target = root / "manifest.json"
    with atomic(target) as file:
        json.dump(manifest.model_dump(), file, indent=1)
        file.write("\n")
    return target


def exported_files(folder: str | Path, parts: Sequence[Part]) -> dict[int, Path]:
    """The part files of an earlier export, for running exactly those.

    Raises: InputError (no manifest), CheckError where it is not of these parts or a file changed.
    """
    path = Path(folder) / "manifest.json"
    manifest = parse(Manifest, read_document(path)[0], path, FORMAT)
    rows = {row.index: row for row in manifest.parts}
    files: dict[int, Path] = {}
    for part in parts:
        # The export must be of this plan's parts, or their files would be run as something else.
        row = rows.get(part.index)
        if row is None or row.device != part.device or tuple(row.tasks) != part.tasks:
            raise CheckError(
                f"the manifest's part {part.index} is not that of the plan",
                where=str(path),
                hint="export the plan again",
            )
        file = Path(folder) / row.file
        # A file that was changed after its export proves nothing of the plan.
        if sha256(read_bytes(file)) != row.sha256:
            raise CheckError(
                f"{row.file} is not the file that was exported",
                where=str(path),
                why="its sha256 differs from the manifest's",
                hint="export the plan again",
            )
        files[part.index] = file
    return files


def _part_entry(part: Part, path: Path, root: Path) -> PartEntry:
    return PartEntry(
        index=part.index,
        device=part.device,
        file=str(path.relative_to(root)),
        sha256=sha256(read_bytes(path)),
        tasks=list(part.tasks),
        reads=list(part.reads),
        makes=list(part.makes),
        predicted_ms=part.predicted_ms,
        replica=part.replica,
    )


def _tensors(model: Imported, parts: Sequence[Part]) -> dict[str, TensorEntry]:
    out: dict[str, TensorEntry] = {}
    # Tensor names come again in each replica: its number goes before them.
    for replica in range(parts[-1].replica + 1):
        own = [p for p in parts if p.replica == replica]
        maker = {n: p.index for p in own for n in p.makes}
        readers: dict[str, list[int]] = {}
        for part in own:
            for name in part.reads:
                readers.setdefault(name, []).append(part.index)
        # -1 stands for the model's own outputs.
        for name in model.net.outputs:
            readers.setdefault(name, []).append(-1)
        for name in sorted(readers):
            # Constants are inside the parts' files.
            if name in model.net.constants:
                continue
            info = model.net.tensors[name]
            out[f"{replica}/{name}" if replica else name] = TensorEntry(
                dtype=info.dtype,
                shape=list(info.shape),
                bytes=info.bytes,
                from_part=maker.get(name, -1),
                to_parts=readers[name],
            )
    return out


def _write(model: Any, path: Path) -> None:
    with atomic(path, "wb") as file:
        file.write(model.SerializeToString())


def _safe(name: str) -> str:
    """A file name from a device name."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
