"""`simulate`, `check` and `disasm` on program files of machines that are fed commands."""

from __future__ import annotations

from typing import Any

import typer

from csp_embed.commands.common import print_json, progress, report_check, say
from csp_embed.commands.given import refuse_ignored
from csp_embed.errors import InputError

ENGINE = "interpreted"
# What only simulators of streams know.
_OF_STREAMS = ("memory", "trace", "timeline", "tvm_lib", "strict", "ignore_tokens", "break_at",
               "until_store", "dumps", "max_steps")  # fmt: skip


def simulate(context: typer.Context, file: str, engine: str | None, as_json: bool) -> None:
    """Runs the file's commands by the spec's meanings and compares with what the file expects.
    Exit code 5 where values differ or a command cannot run."""
    from csp_embed.compiler.commands.file import read

    refuse_ignored(context, _OF_STREAMS, "a program of commands", why="its meanings are run")
    if engine not in (None, ENGINE):
        raise InputError(
            f"no engine '{engine}' for a program of commands", where="--engine",
            why=f"its engine is {ENGINE}", hint=f"--engine {ENGINE}",
        )  # fmt: skip
    program = read(file)
    with progress(quiet=as_json) as tell:
        tell("running", 0, 1)
        problems = program.problems()
    # Counts of the file, made when it was written.
    counts = dict(program.meta.get("counts", {}))
    if as_json:
        print_json({
            "engine": ENGINE, "values_equal": not problems, "commands": len(program.words),
            "counts": counts, "bytes": program.meta.get("bytes"),
            "first_difference": problems[0] if problems else None,
        })  # fmt: skip
    else:
        size = program.tensors[program.operator.out.tensor].size
        equal = f"equal, {size:,} values as NumPy computes them, {len(program.words):,} commands"
        say(f"{ENGINE}: {problems[0] if problems else equal}")
    # After printing: scripts look at the exit code.
    if problems:
        raise typer.Exit(5)


def check(context: typer.Context, file: str, values: bool, as_json: bool) -> None:
    """Judges the file: certificate, words, addresses, what is read, values against the formula.
    Exit code 5 where it finds a problem."""
    from csp_embed.compiler.commands.file import read

    refuse_ignored(context, ("platform",), "a program", why="plans have platforms")
    program = read(file)
    with progress(quiet=as_json) as tell:
        tell("checking", 0, 1)
        # Certificate first: it needs nothing to be run.
        problems = [f"certificate: {p}" for p in program.certificate_problems()]
        problems += program.problems(values=values)
    remarks = [] if values else ["values were not compared: --no-values"]
    ran = ", run by the spec's meanings it computes the formula" if values else ""
    report_check(file, problems, remarks, f"ok, {len(program.words):,} commands{ran}", as_json)
    if problems:
        raise typer.Exit(5)


def disasm(file: str, as_json: bool) -> None:
    """One command a line."""
    from csp_embed.compiler.commands.file import read
    from csp_embed.machine.commands.words import decode, line

    program = read(file)
    machine = program.isa.commands
    # A file of commands carries its machine, so it has commands.
    assert machine is not None
    decoded = decode(machine, program.words)
    if not as_json:
        for n in range(len(decoded.code)):
            say(line(machine, decoded, n))
        return
    records: list[dict[str, Any]] = [
        {"command": n, "name": machine.commands[int(decoded.code[n])].name,
         "fields": decoded.values(machine, n)}
        for n in range(len(decoded.code))
    ]  # fmt: skip
    print_json({"isa": program.isa.name, "commands": records})
