"""Runs one prepared job on a foreign VTA library. Started as a process of its own by tvm_native.

Takes: argv[1], a folder with `job.json`, `insn.bin`, `moves.bin`, `before.bin` (see native.py).
Leaves: `result.json` and, after a run, `after.bin` there. The library may abort or hang: this
process dies then, and nobody else does. Imports nothing of csp_embed, so that it starts at once.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# name -> (result, arguments), as in TVM's vta/driver.h (32-bit physical addresses).
INTERFACE: dict[str, tuple[Any, list[Any]]] = {
    "VTAMemAlloc": (ctypes.c_void_p, [ctypes.c_size_t, ctypes.c_int]),
    "VTAMemFree": (None, [ctypes.c_void_p]),
    "VTAMemGetPhyAddr": (ctypes.c_uint32, [ctypes.c_void_p]),
    "VTAMemCopyFromHost": (None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]),
    "VTAMemCopyToHost": (None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]),
    "VTADeviceAlloc": (ctypes.c_void_p, []),
    "VTADeviceFree": (None, [ctypes.c_void_p]),
    "VTADeviceRun": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32],
    ),
}
TVM_INTERFACE = ("TVMGetLastError", "TVMModLoadFromFile", "TVMFuncGetGlobal", "TVMFuncCall")
# How long a driver that polls may poll; the parent's time limit comes first.
WAIT_CYCLES = 0xFFFFFFFF
_MODULE_HANDLE = 9  # kTVMModuleHandle
_STRING = 11  # kTVMStr


class Failure(Exception):
    """kind: "load" (the library cannot be used), "memory" (no room) or "run" (it refused)."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind, self.text = kind, text
        super().__init__(text)


def load(job: dict[str, Any]) -> tuple[ctypes.CDLL, ctypes.CDLL | None]:
    """The VTA library with its types declared, and the TVM runtime it needs (if it is given)."""
    try:
        # The VTA library leaves TVM's symbols open: the runtime comes first, for all to see.
        runtime = ctypes.CDLL(job["runtime"], ctypes.RTLD_GLOBAL) if job["runtime"] else None
        library = ctypes.CDLL(job["library"], ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise Failure("load", str(error)) from error
    # All at once: each run of a missing symbol would otherwise name the next one.
    missing = [name for name in INTERFACE if not hasattr(library, name)]
    if missing:
        raise Failure("load", f"it has no symbol {', '.join(missing)}")
    for name, (result, arguments) in INTERFACE.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library, runtime


class Runtime:
    """The part of TVM's C interface that starts the cycle simulator and reads its counter."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        missing = [name for name in TVM_INTERFACE if not hasattr(library, name)]
        if missing:
            raise Failure("load", f"TVM's runtime has no symbol {', '.join(missing)}")
        library.TVMGetLastError.restype = ctypes.c_char_p

    def _check(self, status: int) -> None:
        if status:
            text = self.library.TVMGetLastError() or b"no reason given"
            raise Failure("load", text.decode(errors="replace"))

    def module(self, path: str, form: str) -> int:
        handle = ctypes.c_void_p()
        self._check(
            self.library.TVMModLoadFromFile(path.encode(), form.encode(), ctypes.byref(handle))
        )
        return handle.value or 0

    def call(self, name: str, module: int | None = None) -> str:
        """Calls a registered function with a module or nothing; its text ("" for anything else)."""
        function = ctypes.c_void_p()
        self._check(self.library.TVMFuncGetGlobal(name.encode(), ctypes.byref(function)))
        if not function.value:
            raise Failure("load", f"TVM's runtime has no function {name}")
        values = (ctypes.c_uint64 * 1)(module or 0)
        codes = (ctypes.c_int * 1)(_MODULE_HANDLE)
        result, code = ctypes.c_uint64(0), ctypes.c_int(0)
        status = self.library.TVMFuncCall(
            function,
            values,
            codes,
            0 if module is None else 1,
            ctypes.byref(result),
            ctypes.byref(code),
        )
        self._check(status)
        if code.value != _STRING or not result.value:
            return ""
        return ctypes.string_at(result.value).decode(errors="replace")


@dataclass(frozen=True)
class Block:
    """pointer: as the library gave it. host / physical: where its first whole page starts."""

    pointer: int
    host: int
    physical: int


def allocate(library: ctypes.CDLL, size: int, page: int) -> Block:
    """`size` bytes of the library's memory that start a page."""
    pointer = library.VTAMemAlloc(size + page, 0)
    if not pointer:
        raise Failure("memory", f"VTAMemAlloc({size + page}) gave no memory")
    physical = library.VTAMemGetPhyAddr(pointer)
    # Room for a whole page more was asked for, so that this always fits.
    skip = -physical % page
    return Block(pointer, pointer + skip, physical + skip)


def move(words: np.ndarray, moves: np.ndarray, offset: int) -> None:
    """Adds offset / element bytes to the DRAM address of every instruction in `moves`, in place.

    words: uint64[n, 2]. moves: int64[m, 4] = (instruction, element bytes, lowest bit and width of
    its address field).
    """
    for row, element_bytes, low, width in moves.tolist():
        mask = (1 << width) - 1
        word = int(words[row, 0]) | int(words[row, 1]) << 64
        base = (word >> low & mask) + offset // element_bytes
        if base < 0 or base > mask:
            raise Failure("memory", f"instruction {row}: moved address {base} does not fit")
        word = word & ~(mask << low) | base << low
        words[row] = word & (1 << 64) - 1, word >> 64


def run(folder: Path) -> dict[str, Any]:
    """The job in `folder`: loads, places, runs, reads back; what to tell the parent."""
    job = json.loads((folder / "job.json").read_text())
    library, runtime = load(job)
    driver = None
    if job["hardware"]:
        assert runtime is not None
        driver = Runtime(runtime)
        driver.call("vta.tsim.init", driver.module(job["hardware"], "vta-tsim"))
    words = np.fromfile(folder / "insn.bin", dtype="<u8").reshape(-1, 2)
    moves = np.fromfile(folder / "moves.bin", dtype="<i8").reshape(-1, 4)
    page, start, size = job["page_bytes"], job["start"], job["size"]
    block = allocate(library, size, page)
    code = allocate(library, words.nbytes, page)
    offset = block.physical - start
    move(words, moves, offset)
    # The program file says so: what no range names is 0.
    ctypes.memset(block.host, 0, size)
    data = np.memmap(folder / "before.bin", dtype=np.uint8, mode="r") if job["before"] else None
    at = 0
    for address, length in job["before"]:
        part = np.ascontiguousarray(data[at : at + length])  # type: ignore[index]
        library.VTAMemCopyFromHost(block.host + address - start, part.ctypes.data, length)
        at += length
    library.VTAMemCopyFromHost(code.host, words.ctypes.data, words.nbytes)
    device = library.VTADeviceAlloc()
    status = library.VTADeviceRun(device, code.physical, len(words), WAIT_CYCLES)
    if status:
        raise Failure("run", f"VTADeviceRun returned {status}")
    with open(folder / "after.bin", "wb") as file:
        for address, length in job["after"]:
            part = np.empty(length, dtype=np.uint8)
            library.VTAMemCopyToHost(part.ctypes.data, block.host + address - start, length)
            file.write(part.tobytes())
    counters = driver.call("vta.tsim.profiler_status") if driver is not None else ""
    library.VTADeviceFree(device)
    for used in (code, block):
        library.VTAMemFree(used.pointer)
    return {"offset": offset, "counters": counters}


def main() -> None:
    folder = Path(sys.argv[1])
    try:
        result = run(folder)
    except Failure as failure:
        result = {"failure": failure.kind, "text": failure.text}
    (folder / "result.json").write_text(json.dumps(result))
    sys.stdout.flush()
    sys.stderr.flush()
    # The cycle simulator's thread and static destructors may hang or crash: the answer is on disk.
    os._exit(0)


if __name__ == "__main__":
    main()
