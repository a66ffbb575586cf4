"""`simulate` and `check` on program files of machines whose loops run in a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from csp_embed.commands.common import print_json, progress, report_check, say
from csp_embed.commands.given import refuse_ignored
from csp_embed.errors import InputError

if TYPE_CHECKING:
    from csp_embed.compiler.source.file import SourceFile

ENGINES = ("native", "emulated", "interpreted")
# What only simulators of streams know.
_OF_STREAMS = ("memory", "trace", "timeline", "tvm_lib", "strict", "ignore_tokens", "break_at",
               "until_store", "dumps", "max_steps")  # fmt: skip


def simulate(context: typer.Context, file: str, engine: str | None, as_json: bool) -> None:
    """Runs the file's kernel and compares with what the file expects. engine: None: the first that
    this computer can run. Exit code 5 where values differ."""
    from csp_embed.compiler.source.file import read

    refuse_ignored(context, _OF_STREAMS, "a program of C", why="no stream is simulated")
    if engine not in (None, *ENGINES):
        raise InputError(
            f"no engine '{engine}' for a program of C",
            where="--engine",
            why=f"its engines are {', '.join(ENGINES)}",
            hint="--engine interpreted",
        )
    program = read(file)
    with progress(quiet=as_json) as tell:
        tell("running", 0, 1)
        found = compare(program, engine)
    # Nothing ran: neither equal nor different.
    if not found["engine"]:
        raise InputError(
            f"nothing on this computer runs {file}", where=file, why=found["why"],
            hint="csp-embed isa doctor says what is missing",
        )  # fmt: skip
    if as_json:
        print_json({k: v for k, v in found.items() if k != "why"})
    else:
        difference = found["first_difference"]
        said = difference or f"equal, {program.expected.size:,} values as the file expects"
        say(f"{found['engine']}: {said}" + (f" ({found['why']})" if found["why"] else ""))
    if not found["values_equal"]:
        raise typer.Exit(5)


def check(context: typer.Context, file: str, values: bool, as_json: bool) -> None:
    """Judges the file: certificate, addresses, text, expected values against the formula; runs it.
    Exit code 5 where it finds a problem."""
    from csp_embed.compiler.source.file import read

    refuse_ignored(context, ("platform",), "a program", why="plans have platforms")
    program = read(file)
    remarks: list[str] = []
    with progress(quiet=as_json) as tell:
        tell("checking", 0, 1)
        problems = program.problems()
        found: dict[str, Any] = {"engine": ""}
        # A file with problems is not run: its text is code.
        if values and not problems:
            tell("running", 0, 1)
            found = compare(program, None)
            if found["first_difference"]:
                problems = [f"values: {found['first_difference']}"]
    # Not compared is no problem, but must be said.
    if not found["engine"]:
        why = found.get("why") or ("--no-values" if not values else "problems come first")
        remarks.append(f"values were not compared: {why}")
    ran = f", run {found['engine']} it computes what the file expects" if found["engine"] else ""
    report_check(file, problems, remarks, f"ok, C for {program.isa.name}{ran}", as_json)
    if problems:
        raise typer.Exit(5)


def compare(program: SourceFile, engine: str | None) -> dict[str, Any]:
    """The run's engine and what it found; engine "" where nothing can run it, and `why`."""
    import numpy as np

    kernel = program.kernel()
    # An engine by name is taken as asked; else the kernel chooses.
    chosen, why = (engine, "") if engine else kernel.engine()
    out: dict[str, Any] = {"engine": chosen, "values_equal": None, "first_difference": None,
                           "why": why}  # fmt: skip
    if not chosen:
        return out
    # What the program computes is no operand.
    operands = {n: v for n, v in program.operands.items() if n not in program.operator.values}
    result = kernel.by(chosen, operands)
    out["values_equal"] = bool(np.array_equal(result, program.expected))
    if not out["values_equal"]:
        # The first difference is enough to find the fault.
        at = tuple(int(i) for i in np.argwhere(result != program.expected)[0])
        out["first_difference"] = (
            f"{program.operator.out.tensor}[{','.join(map(str, at))}] is {int(result[at])}, the"
            f" file expects {int(program.expected[at])}"
        )
    return out
