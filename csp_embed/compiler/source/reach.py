"""Templates as programs of their own, which may die; whether copies in read their lanes alone.

Values cannot show it: a load that is too wide gives the right lanes, until a tensor ends where the
memory of the process does. So each copy in runs once with its operand in front of a page that
nobody may read, in a process of its own, which may die.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from csp_embed.machine.spec import Isa
from csp_embed.targets.source.toolchain.blame import refused
from csp_embed.targets.source.toolchain.build import c_compiler
from csp_embed.targets.source.toolchain.emulate import Program

SECONDS = 60.0  # after which a template is taken to hang
OPTIMISED = ("-O3", "-std=c11")  # as kernels are
# Without optimisation: no load may be left out, and the check is about addresses, not speed.
FLAGS = ("-O0", "-std=c11")
ROOM = 4096  # bytes behind what others read; a multiple of every alignment
_GUARD = """
/* `bytes` bytes in front of a page that cannot be read. */
static void *in_front(size_t bytes) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
  char *at = mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED || mprotect(at + whole, page, PROT_NONE)) exit(3);
  return at + whole - bytes;
}
"""


class Died(Exception):
    """How a program of templates ended, where it did not end well."""


def natively(program: Program, isa: Isa, sent: bytes, flags: tuple[str, ...] = OPTIMISED) -> bytes:
    """What the program writes, run on this computer as a process of its own: templates may fault.

    Raises: Died; InputError where the compiler refuses the text.
    """
    assert isa.program is not None
    # With a C library: the machine's own way to the system is for its emulator.
    runner = replace(isa.program.runner, system="")
    hosted = replace(isa, program=replace(isa.program, runner=runner))
    with tempfile.TemporaryDirectory(prefix="csp-embed-") as folder:
        source, made = Path(folder, "kernel.c"), Path(folder, "kernel")
        text = program.c(hosted)
        source.write_text(text, encoding="utf-8")
        compiler = c_compiler()
        command = [compiler, *flags, *isa.program.flags, str(source), "-o", str(made)]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            raise refused(Path(compiler).name, built.stderr, text, isa)
        try:
            done = subprocess.run(
                [str(made)], input=sent, capture_output=True, check=False, timeout=SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise Died(f"ran for {SECONDS:.0f} s without an end") from error
    if done.returncode < 0:
        raise Died(
            f"ended by {signal.Signals(-done.returncode).name}: it reads or writes where it may"
            " not, asks for alignment that an address lacks, or this CPU lacks an instruction"
        )
    if done.returncode:
        raise Died(f"ended with exit code {done.returncode}")
    return done.stdout


def reads_beyond(
    text: str, isa: Isa, buffers: Mapping[str, tuple[str, int]], read: Collection[str]
) -> bool:
    """Runs `probe` (text: of emit.probe_text) on this computer, which has the machine's
    instructions. buffers: name -> (type, values), in the order of its arguments; read: those that
    the copy in question reads. False also where the system has no such pages to give."""
    assert isa.program is not None
    # Only the reader's own buffers end at the forbidden page.
    sizes = {name: np.dtype(dtype).itemsize * n for name, (dtype, n) in buffers.items()}
    # Other copies run beside it: they get room, so that only its own fault shows.
    call = ", ".join(
        f"in_front({size})"
        if name in read
        else f"aligned_alloc(4096, {size // 4096 * 4096 + 8192})"
        for name, size in sizes.items()
    )
    lines = ["#define _DEFAULT_SOURCE", "#include <stdlib.h>", "#include <sys/mman.h>",
             "#include <unistd.h>", text, _GUARD,
             f"int main(void) {{ probe({call}); return 0; }}", ""]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="csp-embed-") as folder:
        source, program = Path(folder, "reach.c"), Path(folder, "reach")
        source.write_text("\n".join(lines), encoding="utf-8")
        command = [c_compiler(), *FLAGS, *isa.program.flags, str(source), "-o", str(program)]
        # Its text has compiled before; a failure here is the system's (no mmap).
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return False
        done = subprocess.run([str(program)], capture_output=True, check=False)
    # Killed by the page: it read what it may not.
    return done.returncode in (-signal.SIGSEGV, -signal.SIGBUS)
