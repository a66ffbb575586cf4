"""The C compiler, and calls of what it makes through ctypes."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError, MissingLibrary
from csp_embed.files import atomic
from csp_embed.ir.operator import Operator
from csp_embed.machine.spec import Isa
from csp_embed.targets.source.toolchain.apart import Died, apart
from csp_embed.targets.source.toolchain.blame import refused
from csp_embed.targets.source.written.emit import CFile

Array = NDArray[Any]
# -O3 for the packing loops; templates choose their instructions themselves.
FLAGS = ("-O3", "-std=c11", "-fPIC", "-shared")


def c_compiler() -> str:
    """Path of the C compiler: $CC, gcc, clang or cc. Raises: MissingLibrary."""
    # $CC first, as make and its kin have it; who sets it does not want another one.
    chosen = os.environ.get("CC", "")
    for name in (chosen,) if chosen else ("gcc", "clang", "cc"):
        found = shutil.which(name)
        if found is not None:
            return found
    if chosen:
        raise MissingLibrary(
            f"$CC names no C compiler on the path: {chosen}",
            why="one program is run, and its options come from the machine's file",
            hint="unset CC, which lets gcc, clang or cc be found",
        )
    raise MissingLibrary(
        "no C compiler is on the path",
        why="gcc, clang and cc were looked for; $CC is not set",
        hint="apt-get install gcc; without one `compile -o kernel.c` still writes the text, and"
        " --engine interpreted runs it",
    )


def missing_features(isa: Isa) -> tuple[str, ...]:
    """CPU features that the machine needs and this computer does not report."""
    assert isa.program is not None
    have = cpu_features()
    return tuple(f for f in isa.program.features if f not in have)


def cpu_features() -> frozenset[str]:
    """What the running Linux kernel says that the CPU can do; empty where it says nothing."""
    try:
        # /proc is Linux's; elsewhere nothing is claimed.
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        # x86 calls them flags, Arm Features.
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def is_native(isa: Isa) -> bool:
    """Whether this computer's CPU has the machine's instructions."""
    try:
        require_native(isa)
    except MissingLibrary:
        return False
    return True


def require_native(isa: Isa) -> None:
    """Raises: MissingLibrary where the CPU lacks what the machine needs."""
    assert isa.program is not None
    # Before the features: another architecture has other names for them.
    arch = isa.program.runner.arch
    if arch and arch != platform.machine():
        raise MissingLibrary(
            f"this computer is no {isa.name}",
            why=f"its CPU is {platform.machine()}, the machine's {arch}",
            hint="--engine emulated, or --engine interpreted, which runs the spec's meanings",
        )
    lacks = missing_features(isa)
    if lacks:
        raise MissingLibrary(
            f"this computer cannot run {isa.name}",
            why=f"its CPU does not report {', '.join(lacks)}",
            hint="kernel.interpret(…), or compile --engine interpreted, runs the spec's meanings",
        )


def build(
    file: CFile, isa: Isa, output: Path, extra: tuple[str, ...] = (), *, plain: bool = False
) -> None:
    """Compiles the text into the shared library `output`. plain: it uses none of the machine's
    instructions. Raises: MissingLibrary, InputError."""
    extra = (*extra, "-fopenmp") if file.threads > 1 else extra
    build_text(file.text, isa, output, extra, plain=plain)


def build_text(
    text: str, isa: Isa, output: Path, extra: tuple[str, ...] = (), *, plain: bool = False
) -> None:
    """As `build`, of any C text."""
    assert isa.program is not None
    arch = isa.program.runner.arch
    if arch and arch != platform.machine() and not plain:
        raise MissingLibrary(
            f"libraries are built for this computer, and it is no {isa.name}",
            why=f"its CPU is {platform.machine()}, the machine's {arch}",
            hint="-o kernel.c, and your own cross compiler; --engine emulated runs it",
        )
    # Plain loops run anywhere, and faster with the machine's instructions where they are there.
    flags = () if plain and not is_native(isa) else isa.program.flags
    compiler = c_compiler()
    # A private folder: two builds at once must not share files.
    with tempfile.TemporaryDirectory(prefix="csp-embed-") as folder:
        source, made = Path(folder, "kernel.c"), Path(folder, "kernel.so")
        source.write_text(text, encoding="utf-8")
        command = [compiler, *FLAGS, *flags, *extra, str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise refused(Path(compiler).name, done.stderr, text, isa)
        # Whole or not at all: a library that is half written would be loaded.
        with atomic(output, "wb") as target:
            target.write(made.read_bytes())


@dataclass
class Native:
    """A built kernel. `run` takes and gives logical tensors; constants are packed once for each
    set of arrays."""

    file: CFile
    operator: Operator
    align: int
    library: Any
    isa: Isa
    own: threading.local = field(default_factory=threading.local)

    @staticmethod
    def load(file: CFile, operator: Operator, isa: Isa, path: Path) -> Native:
        assert isa.program is not None
        return Native(file, operator, isa.program.align, ctypes.CDLL(str(path)), isa)

    def pack(self, tensors: Mapping[str, Array]) -> Array:
        """The packed constants as the library lays them out."""
        packed = self.buffer("packed")
        function = getattr(self.library, f"{self.file.name}_pack")
        arrays = [self._argument(n, tensors) for n in self.file.prepared]
        function(*(self.pointer(a) for a in arrays), self.pointer(packed))
        # Packed once, and used for any number of runs.
        return packed

    def run(self, tensors: Mapping[str, Array], packed: Array | None = None) -> Array:
        """The result; threads may call it at once. packed: of `pack`, where constants were packed
        before. Raises: InputError
        for an array of the wrong shape or type."""
        op, out = self.operator, self.operator.tensors[self.operator.out.tensor]
        arrays = [self._argument(n, tensors) for n in self.file.arguments[:-1]]
        if self.file.packed:
            arrays.append(self.pack(tensors) if packed is None else packed)
        if self.file.work:
            # The work struct is written in every run: one for the calls of each thread.
            if not hasattr(self.own, "work"):
                self.own.work = self.buffer("work")
            arrays.append(self.own.work)
        result = np.zeros(out.shape, op.out_dtype)
        arrays.append(result)
        getattr(self.library, self.file.name)(*(self.pointer(a) for a in arrays))
        return result

    def run_apart(self, tensors: Mapping[str, Array]) -> Array:
        """As `run`, in a process of its own, so that a template that faults ends only that.

        Raises: InputError also where it faults, or does not end."""
        out = self.operator.tensors[self.operator.out.tensor]
        # Here, where a message reaches people.
        for name in dict.fromkeys((*self.file.prepared, *self.file.arguments[:-1])):
            self._argument(name, tensors)
        try:
            return apart(lambda: self.run(tensors), out.shape, self.operator.out_dtype)
        except Died as died:
            where = self.isa.where("instructions")
            raise InputError(
                f"the kernel for {self.isa.name} {died}", where=where,
                why="templates are run as they stand in the machine's file",
                hint="csp-embed isa check names the template; --engine interpreted runs the"
                " meanings",
            ) from died  # fmt: skip

    @staticmethod
    def pointer(array: Array) -> ctypes.c_void_p:
        """Of an array's first byte; the array must outlive it."""
        return ctypes.c_void_p(array.ctypes.data)

    def buffer(self, which: str) -> Array:
        """A zeroed `packed` or `work` struct, aligned as the library wants it."""
        count = getattr(self.library, f"{self.file.name}_{which}_bytes")
        # The library knows its own sizes: alignment and padding of structs are C's.
        count.restype = ctypes.c_size_t
        return aligned(count(), self.align)

    def _argument(self, name: str, tensors: Mapping[str, Array]) -> Array:
        declared = self.operator.tensors[name]
        if name not in tensors:
            wanted = f"an array of shape {declared.shape}, {declared.dtype}"
            raise InputError(f"tensor {name} is missing", why="the kernel reads it", hint=wanted)
        array = tensors[name]
        if array.dtype != declared.dtype or array.shape != declared.shape:
            raise InputError(
                f"tensor {name} is {array.dtype} of shape {array.shape}",
                why=f"the kernel reads {declared.dtype} of shape {declared.shape}",
                hint=f"np.asarray({name}, np.{declared.dtype}).reshape({declared.shape})",
            )
        # C reads whole row-major arrays at addresses that suit their type.
        return np.require(array, requirements=["C", "A"])


def aligned(size: int, align: int) -> Array:
    """Zeroed bytes at an address that `align` divides."""
    # NumPy aligns to 16 or 64 bytes at its pleasure; the machine may want more.
    raw = np.zeros(size + align, np.uint8)
    skip = -raw.ctypes.data % align
    return raw[skip : skip + size]
