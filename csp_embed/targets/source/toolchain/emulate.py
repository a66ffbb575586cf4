"""Runs C for a machine that this computer is not: a cross compiler makes a program, an emulator
runs it. Both are commands that the spec states.

The program reads its buffers from the standard input, calls what it is told to, and writes the
results to the standard output. Where the spec gives `_start` and `system_call` it needs no C
library, whose first build for a new target takes a cross compiler minutes.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError, MissingLibrary
from csp_embed.ir.operator import Operator
from csp_embed.machine.spec import Isa
from csp_embed.targets.source.toolchain.blame import refused
from csp_embed.targets.source.written.emit import CFile

Array = NDArray[Any]
# Emulators hang now and then on an unknown system call.
SECONDS = 600.0  # after which an emulator is taken to hang
COMPILE_SECONDS = 600.0  # after which a cross compiler is ended
PATIENCE = 15.0  # seconds of compiling after which people are told what takes so long
# Static: the emulated system has no libraries.
FLAGS = ("-O2", "-std=c11", "-static", "-fno-stack-protector", "-fno-sanitize=undefined")
_HINT = "scripts/emulators puts ziglang, Spike and Debian's emulators into .venv"

# Loops that compilers must not turn into calls of what they define.
_LIBRARY = """\
#define STAY __asm__ volatile("" ::: "memory")
void *memcpy(void *restrict to, const void *restrict from, size_t n) {
  for (size_t k = 0; k < n; k++) { ((char *)to)[k] = ((const char *)from)[k]; STAY; }
  return to;
}
void *memmove(void *to, const void *from, size_t n) {
  char *a = to;
  const char *b = from;
  if (a < b) for (size_t k = 0; k < n; k++) { a[k] = b[k]; STAY; }
  else for (size_t k = n; k > 0; k--) { a[k - 1] = b[k - 1]; STAY; }
  return to;
}
void *memset(void *to, int value, size_t n) {
  for (size_t k = 0; k < n; k++) { ((char *)to)[k] = (char)value; STAY; }
  return to;
}
int memcmp(const void *left, const void *right, size_t n) {
  const unsigned char *a = left, *b = right;
  for (size_t k = 0; k < n; k++) if (a[k] != b[k]) return a[k] < b[k] ? -1 : 1;
  return 0;
}"""
# Declared by hand: freestanding compilers bring no string.h.
_STRING_H = """\
#include <stddef.h>
void *memcpy(void *restrict, const void *restrict, size_t);
void *memmove(void *, const void *, size_t);
void *memset(void *, int, size_t);
int memcmp(const void *, const void *, size_t);
"""
_BARE = """\
static void take_in(void *to, size_t n) {
  for (size_t got = 0; got < n;) {
    const long more = system_call(READ, 0, (long)((char *)to + got), (long)(n - got));
    if (more <= 0) system_call(EXIT, 3, 0, 0);
    got += (size_t)more;
  }
}
static void give_out(const void *from, size_t n) {
  for (size_t put = 0; put < n;) {
    const long more = system_call(WRITE, 1, (long)((const char *)from + put), (long)(n - put));
    if (more <= 0) system_call(EXIT, 4, 0, 0);
    put += (size_t)more;
  }
}
static void finish_up(void) { system_call(EXIT, 0, 0, 0); }"""
_HOSTED = """\
#include <stdio.h>
#include <stdlib.h>
static void take_in(void *to, size_t n) { if (fread(to, 1, n, stdin) != n) exit(3); }
static void give_out(const void *from, size_t n) { if (fwrite(from, 1, n, stdout) != n) exit(4); }
static void finish_up(void) { exit(fflush(stdout) != 0); }"""


def commands(isa: Isa) -> tuple[list[str], list[str]]:
    """(cross compiler, emulator) as argument lists. Raises: MissingLibrary where the spec states
    none, or one is not on this computer."""
    assert isa.program is not None
    runner = isa.program.runner
    if not runner.emulator:
        raise MissingLibrary(
            f"{isa.name} states no emulator", why="its file has no `runner.emulator`",
            hint="docs/machines.md shows the key; --engine interpreted runs the meanings",
        )  # fmt: skip
    return _command(isa, runner.compiler), _command(isa, runner.emulator)


def _command(isa: Isa, words: Sequence[str]) -> list[str]:
    name = words[0]
    # "python -m x": this Python, whose environment has the package.
    if name in ("python", "python3"):
        module = words[2] if words[1:2] == ("-m",) and len(words) > 2 else ""
        if module and not _has_module(module):
            raise MissingLibrary(
                f"no Python package {module}", where=isa.where("runner"),
                why=f"{isa.name} is compiled for by `{' '.join(words[:4])} …`", hint=_HINT,
            )  # fmt: skip
        return [sys.executable, *words[1:]]
    # Scripts of this Python's environment stand beside it, on the path or not.
    found = shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))
    if found is None:
        raise MissingLibrary(
            f"{name} is not on this computer", where=isa.where("runner"),
            why=f"{isa.name} runs by `{' '.join(words)}`", hint=_HINT,
        )  # fmt: skip
    return [found, *words[1:]]


def _environment() -> dict[str, str]:
    """Emulators call helpers that stand beside them, on the path or not: Spike its `dtc`."""
    path = [sysconfig.get_path("scripts"), *os.environ.get("PATH", "").split(os.pathsep)]
    return {**os.environ, "PATH": os.pathsep.join(path)}


def _has_module(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


@dataclass(frozen=True)
class Program:
    """What an emulated program does. text: C that it begins with; areas: buffer -> bytes; reads,
    writes: buffers that come from outside and go there, in order; calls: C statements between. All
    of it `rounds` times."""

    text: str
    areas: Mapping[str, int]
    reads: Sequence[str]
    calls: Sequence[str]
    writes: Sequence[str]
    rounds: int = 1

    def c(self, isa: Isa) -> str:
        """The whole as C."""
        assert isa.program is not None
        system = isa.program.runner.system
        lines = [self.text, "", *([system, _LIBRARY, _BARE] if system else [_HOSTED])]
        # Aligned to a cache line at least, and to what templates ask for.
        align = max(64, isa.program.align)
        # No area of 0 bytes: C has none.
        lines += [f"static _Alignas({align}) unsigned char {n}[{max(size, 1)}];"
                  for n, size in self.areas.items()]  # fmt: skip
        lines += ["static void work_through(void) {",
                  f"  for (int turn = 0; turn < {self.rounds}; turn++) {{"]  # fmt: skip
        lines += [f"    take_in({n}, sizeof {n});" for n in self.reads]
        lines += [f"    {call}" for call in self.calls]
        lines += [f"    give_out({n}, sizeof {n});" for n in self.writes]
        lines += ["  }", "  finish_up();", "}"]
        # A program without a C library has no main: `_start` calls `begin`.
        if not system:
            lines.append("int main(void) { work_through(); }")
        else:
            # Behind everything else: it calls what stands above.
            lines.append("void begin(void) { work_through(); }")
        return "\n".join([*lines, ""])


@dataclass(eq=False)
class Built:
    """A program that is compiled. path: of the executable, in a folder that goes with this."""

    path: Path
    emulator: list[str]
    isa: Isa

    def __post_init__(self) -> None:
        # The folder goes with the object, not with the process.
        weakref.finalize(self, shutil.rmtree, self.path.parent, True)

    def run(self, given: bytes) -> bytes:
        """What the program writes. Raises: InputError where it fails."""
        command = [*self.emulator, str(self.path)]
        # Input at once: the program reads it in order.
        try:
            done = subprocess.run(
                command, input=given, capture_output=True, check=False, timeout=SECONDS,
                env=_environment(),
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise InputError(
                f"{Path(self.emulator[0]).name} runs {self.isa.name} for {SECONDS:.0f} s",
                why="no end is in sight", hint="a smaller operator",
            ) from error  # fmt: skip
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise InputError(
                f"{Path(self.emulator[0]).name} does not run the program for {self.isa.name}",
                where=self.isa.where("runner"),
                why=said[0] if said else f"exit code {done.returncode}",
                hint="another size, where the emulator has not this one (it was given"
                f" `{' '.join(self.emulator[1:])}`); --engine interpreted runs the meanings",
            )
        return done.stdout


def built(program: Program, isa: Isa) -> Built:
    """Compiles the program. Raises: MissingLibrary, InputError."""
    assert isa.program is not None
    compiler, emulator = commands(isa)
    folder = Path(tempfile.mkdtemp(prefix="csp-embed-"))
    source, made = folder / "kernel.c", folder / "kernel"
    # Made before compiling, so that the folder is removed if that fails.
    found = Built(made, emulator, isa)
    source.write_text(program.c(isa), encoding="utf-8")
    bare = ["-nostdlib", "-ffreestanding", "-I", str(folder)] if isa.program.runner.system else []
    if bare:  # the headers that a freestanding compiler brings along lack it
        (folder / "string.h").write_text(_STRING_H, "utf-8")
    command = [*compiler, *FLAGS, *bare, *isa.program.flags, str(source), "-o", str(made)]
    told = threading.Timer(PATIENCE, _tell, (isa, bool(bare)))
    told.start()
    try:
        code, said = _compiled(command, isa)
    finally:
        told.cancel()
    if code:
        raise refused(" ".join(compiler[:4]), said, source.read_text("utf-8"), isa)
    return found


def _compiled(command: list[str], isa: Isa) -> tuple[int, str]:
    """(exit code, what it said). Raises: InputError where it does not end."""
    # A group of its own: `python -m …` starts the compiler as another process, which would go on.
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            _, said = process.communicate(timeout=COMPILE_SECONDS)
        except subprocess.TimeoutExpired as error:
            shown = " ".join(command[:4])
            raise InputError(
                f"`{shown}` compiles for {isa.name} for more than {COMPILE_SECONDS:.0f} s",
                where=isa.where("runner"),
                why="the first program for a target waits for its C library, if that is what it"
                " does",
                hint="the same command again: what it has built is kept; `runner.system` in the"
                " spec needs no C library; --engine interpreted needs no compiler",
            ) from error
        finally:
            # Also where Ctrl-C comes, which does not reach another group.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return process.returncode, said


def _tell(isa: Isa, bare: bool) -> None:
    assert isa.program is not None
    why = (
        "" if bare else "; the first program for a target may wait minutes for its C library"
        " (kept from then on; the spec's `runner.system` needs none)"
    )  # fmt: skip
    compiler = " ".join(isa.program.runner.compiler[:4])
    sys.stderr.write(f"csp-embed: `{compiler}` is compiling for {isa.name}{why}\n")


@dataclass
class Emulated:
    """A kernel as its machine's emulator runs it; `run` takes and gives logical tensors."""

    file: CFile
    operator: Operator
    isa: Isa
    kept: dict[str, Built] = field(default_factory=dict[str, Built])

    def run(self, tensors: Mapping[str, Array]) -> Array:
        """The result. Raises: InputError, MissingLibrary."""
        op, f = self.operator, self.file
        out = op.tensors[op.out.tensor]
        # Each tensor is sent once, though packing and kernel may both read it.
        inputs = list(dict.fromkeys((*f.prepared, *f.arguments[:-1])))
        # Compiling takes seconds, a run milliseconds.
        if "kernel" not in self.kept:
            self.kept["kernel"] = built(self._program(inputs), self.isa)
        given = b"".join(np.ascontiguousarray(tensors[n]).tobytes() for n in inputs)
        flat = np.frombuffer(self.kept["kernel"].run(given), op.out_dtype)
        # A copy: frombuffer's arrays cannot be written to.
        return flat.reshape(out.shape).copy()

    def _program(self, inputs: list[str]) -> Program:
        op, f = self.operator, self.file
        out = op.tensors[op.out.tensor]
        of = {n: f"area_in_{k}" for k, n in enumerate(inputs)} | {out.name: "area_out"}
        areas = {of[n]: int(np.prod(op.tensors[n].shape, dtype=np.int64))
                 * np.dtype(op.tensors[n].dtype).itemsize for n in inputs}  # fmt: skip
        areas["area_out"] = int(np.prod(out.shape, dtype=np.int64)) * (
            np.dtype(op.out_dtype).itemsize
        )
        text = f.text + "".join(
            f"static {f.name}_{kind}_t area_of_{kind};\n"
            for kind, there in (("packed", f.packed), ("work", f.work)) if there
        )  # fmt: skip

        def pointers(names: Sequence[str]) -> list[str]:
            return [f"(void *){of[n]}" for n in names]

        calls, more = [], []
        if f.packed:
            given = ", ".join([*pointers(f.prepared), "&area_of_packed"])
            calls.append(f"{f.name}_pack({given});")
            more.append("&area_of_packed")
        if f.work:
            more.append("&area_of_work")
        arguments = [*pointers(f.arguments[:-1]), *more, "(void *)area_out"]
        calls.append(f"{f.name}({', '.join(arguments)});")
        return Program(text, areas, list(areas)[:-1], calls, ["area_out"])
