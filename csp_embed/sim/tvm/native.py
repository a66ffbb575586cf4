"""TVM's own simulators: runs a program on the user's libvta_fsim or libvta_tsim.

Takes: a program and the folder with the libraries.  Leaves: the bytes of the `after` ranges as that
library computed them.  Assumes: the library was built for the program's machine configuration; its
interface cannot tell. The library runs in a process of its own (child.py): where it aborts or
hangs, the caller gets a SimError.

The job that the child takes is a folder: job.json (libraries, ranges, sizes), insn.bin (words),
moves.bin (which instructions hold DRAM addresses, and where) and before.bin (the ranges' bytes).
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import CspEmbedError, InputError, MissingLibrary, SimError
from csp_embed.ir.stream import Program
from csp_embed.judge.stream.table import LOAD, STORE, make_table
from csp_embed.machine.spec import Isa
from csp_embed.machine.words.bits import decode
from csp_embed.sim.debug import find_element

LIBRARIES = {"tvm-fsim": "vta_fsim", "tvm-tsim": "vta_tsim"}
GUIDE = "docs/tvm-simulators.md says what the folder of --tvm-lib must hold"
_CHILD = Path(__file__).with_name("child.py")
# Slowest work per second that is still waited for: micro-op steps and elements moved. Both figures
# are about a tenth of what the libraries do on one core of 2023.
_PACE = {"tvm-fsim": 400_000.0, "tvm-tsim": 5_000.0}
_PATIENCE_SECONDS = 60.0

Ranges = tuple[tuple[int, NDArray[np.uint8]], ...]


@dataclass(frozen=True)
class NativeRun:
    """What a foreign simulator computed.

    outputs: (address, bytes) for each `after` range of the program that is not empty, in its
        order, at the addresses of the program file (not the moved ones). cycles: of the cycle
        simulator, None for the functional one. moved_bytes: by how much the program was moved.
        library: the file that ran.
    """

    engine: str
    outputs: Ranges
    cycles: int | None
    seconds: float
    moved_bytes: int
    library: Path


def run_native(
    isa: Isa,
    program: Program,
    lib_dir: str | Path | None,
    engine: str = "tvm-fsim",
    timeout: float | None = None,
) -> NativeRun:
    """Runs `program` on TVM's functional ("tvm-fsim") or cycle ("tvm-tsim") simulator.

    One block is allocated over the union of the before and after ranges, every DRAM address moves
    by its page-aligned offset, memory that no range names holds zeros.

    lib_dir: folder with libvta_fsim, or libvta_tsim and libvta_hw, and with libtvm_runtime (or
        libtvm) unless the system's loader finds that one by itself. timeout: seconds; without it
        a limit that grows with the program's work.
    Raises: MissingLibrary where a library is not there, cannot be loaded or lacks a symbol;
        SimError where it aborts, does not come to an end, or an address leaves the ranges;
        InputError where TVM's structures place the machine's fields elsewhere.
    """
    library, runtime, hardware = _find(lib_dir, engine)
    _refuse_other_layout(isa)
    moves, work = _moves(isa, program)
    start, end = _span(isa, program)
    after = tuple((a, d) for a, d in program.after if len(d))
    job = {
        "library": str(library),
        "runtime": str(runtime) if runtime else "",
        "hardware": str(hardware) if hardware else "",
        "page_bytes": isa.limits.page_bytes,
        "start": start,
        "size": end - start,
        "before": [(a, len(d)) for a, d in program.before],
        "after": [(a, len(d)) for a, d in after],
    }
    # A hang looks like a long run: what is waited for grows with the work.
    limit = timeout if timeout is not None else _PATIENCE_SECONDS + work / _PACE[engine]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="csp-embed-") as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps(job))
        np.ascontiguousarray(program.insn, dtype="<u8").tofile(folder / "insn.bin")
        moves.astype("<i8").tofile(folder / "moves.bin")
        with open(folder / "before.bin", "wb") as file:
            for _, data in program.before:
                np.ascontiguousarray(data, dtype=np.uint8).tofile(file)
        # In files, since a library that aborts takes pipes and memory with it.
        answer = _run_child(folder, library, limit)
        outputs = _outputs(after, folder / "after.bin")
    return NativeRun(
        engine=engine,
        outputs=outputs,
        cycles=_cycles(answer.get("counters", "")),
        seconds=time.perf_counter() - began,
        moved_bytes=answer["offset"],
        library=library,
    )


def _find(lib_dir: str | Path | None, engine: str) -> tuple[Path, Path | None, Path | None]:
    """The VTA library, TVM's runtime (None: the system's loader must find it), the hardware."""
    wanted = f"lib{LIBRARIES[engine]}"
    if lib_dir is None:
        raise MissingLibrary(
            f"{engine} needs TVM's {wanted}", why="it does not come with csp-embed", hint=GUIDE
        )
    folder = Path(lib_dir)
    if not folder.is_dir():
        raise MissingLibrary(f"no folder {folder}", why=f"it should hold {wanted}", hint=GUIDE)
    library = _in(folder, wanted)
    runtime = _in(folder, "libtvm_runtime") or _in(folder, "libtvm")
    needed = [(wanted, library)]
    hardware = None
    if engine == "tvm-tsim":
        # A driver (libvta_tsim) that TVM's runtime starts with a model of the hardware (libvta_hw).
        hardware = _in(folder, "libvta_hw")
        needed += [("libvta_hw", hardware), ("libtvm_runtime", runtime)]
    missing = [name for name, path in needed if path is None]
    if missing:
        raise MissingLibrary(f"{folder} holds no {' and no '.join(missing)}", hint=GUIDE)
    assert library is not None
    return library, runtime, hardware


def _in(folder: Path, stem: str) -> Path | None:
    found = (folder / f"{stem}{suffix}" for suffix in (".so", ".dylib"))
    return next((path.resolve() for path in found if path.is_file()), None)


def _span(isa: Isa, program: Program) -> tuple[int, int]:
    """Whole pages over all ranges: first byte, byte after the last."""
    page = isa.limits.page_bytes
    ranges = [(a, a + len(d)) for a, d in (*program.before, *program.after)]
    if not ranges:
        return page, 2 * page
    return min(a for a, _ in ranges) // page * page, -(-max(b for _, b in ranges) // page) * page


def _refuse_other_layout(isa: Isa) -> None:
    """The libraries read instructions as C bit fields, which fill a word as far as they fit.

    Raises: InputError where the machine starts a word although the field had fitted before it
        (few micro-ops and small buffers): the library would read other fields than the program has.
    """
    word = 64
    for instruction in isa.instructions:
        fields = sorted((f for f in instruction.fields if not f.unused), key=lambda f: f.lo)
        for last, field in itertools.pairwise(fields):
            end = last.lo + last.width
            if field.lo % word == 0 and end < field.lo and end % word + field.width <= word:
                raise InputError(
                    f"TVM's simulators cannot run programs of configuration {isa.config_name}",
                    where=f"{instruction.name}.{field.name}",
                    why=f"it stands at bit {field.lo}; TVM's C structure puts it at bit {end}, "
                    f"right behind {last.name}, because it fits there",
                    hint="a larger LOG_UOP_BUFF_SIZE fills the first word",
                )


def _moves(isa: Isa, program: Program) -> tuple[NDArray[np.int64], float]:
    """Where DRAM addresses stand, int64[m, 4] as tvm_child.move takes them; and the work to do.

    Raises: SimError for an instruction whose memory is unknown, has elements that do not divide a
        page, or that reaches outside the span of the ranges.
    """
    stream = decode(isa, program.insn)
    table = make_table(isa, stream)
    c = table.c
    start, end = _span(isa, program)
    found = []
    for row in np.flatnonzero(((c.kind == LOAD) | (c.kind == STORE)) & (c.x_size > 0)).tolist():
        if c.named[row] < 0:
            raise SimError(
                f"instruction {row} names an unknown memory", hint="csp-embed check tells more"
            )
        memory = isa.memories[c.named[row]]
        instruction = isa.instructions[stream.code[row]]
        if isa.limits.page_bytes % memory.elem_bytes:
            raise SimError(
                f"instruction {row}: a program with {memory.name} cannot be moved",
                why=f"its elements of {memory.elem_bytes} bytes do not divide a page",
                hint="use our own engine: --engine functional",
            )
        rows = max(int(c.y_size[row]), 1)
        last = int(c.dram[row]) + (rows - 1) * int(c.x_stride[row]) + int(c.x_size[row])
        first_byte, last_byte = int(c.dram[row]) * memory.elem_bytes, last * memory.elem_bytes
        if first_byte < start or last_byte > end:
            raise SimError(
                f"instruction {row} reaches outside the program's memory",
                why=f"bytes {first_byte:#x}..{last_byte:#x}; ranges span {start:#x}..{end:#x}",
                hint="csp-embed check FILE names the rule that it breaks",
            )
        field = instruction.field(instruction.roles["dram"])
        found.append((row, memory.elem_bytes, field.lo, field.width))
    # In floats: a broken stream may ask for more steps than 64 bits count.
    work = float(table.steps.astype(np.float64).sum()) + float(table.elements.sum())
    return np.array(found, dtype=np.int64).reshape(-1, 4), work


def _run_child(folder: Path, library: Path, limit: float) -> dict[str, Any]:
    """Starts the child, waits for it, turns every way in which it may fail into an error."""
    try:
        # -P: the folder of this file holds modules that would hide the standard library's.
        done = subprocess.run(
            [sys.executable, "-P", str(_CHILD), str(folder)],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise SimError(
            f"{library.name} did not end within {limit:.0f} s",
            why="TVM's simulators wait for ever for a token or a FINISH that never comes",
            hint="csp-embed check finds missing tokens; a longer limit helps a long program",
        ) from error
    text = (done.stderr + done.stdout).decode(errors="replace").strip()
    answer_file = folder / "result.json"
    if not answer_file.is_file():
        raise SimError(
            f"{library.name} stopped with {_ending(done.returncode)}",
            where=str(library),
            why=_reason(text),
            hint="csp-embed check finds what a simulator refuses; is the library built for this"
            " program's configuration?",
        )
    answer: dict[str, Any] = json.loads(answer_file.read_text())
    if "failure" in answer:
        raise _failure(answer["failure"], library, answer["text"])
    return answer


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _reason(text: str) -> str:
    """The line that says why a library crashed: TVM prints a stack first, so the last such line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [
        line for line in lines if "Check failed" in line or "Error" in line or "what()" in line
    ]
    return (telling or lines or ["it said nothing"])[-1][:500]


def _failure(kind: str, library: Path, text: str) -> CspEmbedError:
    if kind == "load":
        return MissingLibrary(
            f"{library.name} cannot be used", where=str(library), why=text, hint=GUIDE
        )
    return SimError(f"{library.name} cannot run this program", where=str(library), why=text)


def _outputs(after: Ranges, path: Path) -> Ranges:
    data = np.fromfile(path, dtype=np.uint8)
    ends = np.cumsum([len(d) for _, d in after], dtype=np.int64)
    assert len(data) == (ends[-1] if len(ends) else 0), "the child wrote every after range"
    parts = np.split(data, ends[:-1]) if len(ends) else []
    return tuple((a, part) for (a, _), part in zip(after, parts, strict=True))


def _cycles(counters: str) -> int | None:
    if not counters:
        return None
    value = json.loads(counters).get("cycle_count")
    return None if value is None else int(value)


def first_difference(
    program: Program, ours: Sequence[tuple[int, Any]], theirs: Sequence[tuple[int, Any]]
) -> str | None:
    """None where two engines stored the same bytes; else a line that names the first difference.

    ours, theirs: (address, uint8[]) of the `after` ranges, in the same order. The line names the
    element of a logical tensor, as y[n,k,p,q], where the program's meta says where tensors lie.
    """
    pairs = [
        (start, np.asarray(mine), np.asarray(other))
        for (start, mine), (_, other) in zip(ours, theirs, strict=True)
    ]
    unequal = [
        (start + int(at), start, mine, other)
        for start, mine, other in pairs
        for at in np.flatnonzero(mine != other)[:1]
    ]
    if not unequal:
        return None
    address, start, mine, other = min(unequal, key=lambda item: item[0])
    at, dtype, where = address - start, np.dtype(np.uint8), f"DRAM {address:#x}, in no tensor"
    place = find_element(program.meta, address)
    if place is not None:
        tensor, index, offset, wide = place
        where = f"{tensor}[{','.join(map(str, index))}] (DRAM {address:#x})"
        if 0 <= at - offset <= len(mine) - wide.itemsize:
            at, dtype = at - offset, wide
    values = [int(part[at : at + dtype.itemsize].view(dtype)[0]) for part in (mine, other)]
    count = sum(int(np.count_nonzero(mine != other)) for _, mine, other in pairs)
    return f"{where}: ours {values[0]}, theirs {values[1]}; {count} bytes differ in all"
