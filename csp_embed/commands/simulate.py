"""`csp-embed simulate FILE`: runs a program file on one of the engines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csp_embed.commands.common import print_json, progress, say
from csp_embed.commands.compiling import command_run, source_run
from csp_embed.commands.given import given_options, refuse_ignored
from csp_embed.errors import InputError, SimError
from csp_embed.files import PICTURES, check_outputs

if TYPE_CHECKING:
    from csp_embed.ir.stream import Program
    from csp_embed.machine.spec import Isa
    from csp_embed.sim.functional.run import Run


ENGINES = ("functional", "cycles", "both", "tvm-fsim", "tvm-tsim")


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command("simulate")(simulate_command)


def simulate_command(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A program file (.npz).")],
    engine: Annotated[
        str,
        typer.Option(
            "--engine", metavar="|".join((*ENGINES, *source_run.ENGINES)),
            help="Values, cycles, or both; of a CPU's program: native or interpreted, the first"
            " that can by default.",
        ),
    ] = "both",
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory", metavar="NAME[,latency=N,bytes_per_cycle=M]",
            help="Memory interface of the cycle engine; the machine's first by default.",
        ),
    ] = None,
    trace: Annotated[
        str | None,
        typer.Option("--trace", metavar="FILE.json", help="Write a trace that Perfetto opens."),
    ] = None,
    timeline: Annotated[
        str | None,
        typer.Option("--timeline", metavar="FILE.svg", help="Draw what each queue did when."),
    ] = None,
    tvm_lib: Annotated[
        str | None,
        typer.Option("--tvm-lib", metavar="DIR", help="Folder with TVM's libvta_fsim or _tsim."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse what hardware does differently.")
    ] = False,
    ignore_tokens: Annotated[
        bool, typer.Option("--ignore-tokens", help="Run in program order, as TVM's simulator does.")
    ] = False,
    break_at: Annotated[
        int | None, typer.Option("--break", metavar="N", help="Stop before instruction N.")
    ] = None,
    until_store: Annotated[
        bool, typer.Option("--until-store", help="Stop after the first store of data.")
    ] = False,
    dumps: Annotated[
        list[str] | None,
        typer.Option("--dump", metavar="acc[0:4]", help="Print memory at the end; repeatable."),
    ] = None,
    max_steps: Annotated[
        int, typer.Option("--max-steps", help="Micro-op steps that are still simulated.")
    ] = 1 << 32,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on standard output.")
    ] = False,
) -> None:  # fmt: skip
    """Runs a program and compares what it stores with what the file expects.

    Exit code 5 where values differ, the program deadlocks or an instruction cannot run.

    Examples:

      csp-embed simulate conv1.npz --memory pynq,latency=40 --trace trace.json

      csp-embed simulate conv1.npz --break 120 --dump acc[0:4] --dump dram[0x1000:0x1040]

      csp-embed simulate conv1.npz --engine tvm-fsim --tvm-lib ~/vta/build

      csp-embed simulate cpu.npz --engine interpreted
    """
    from csp_embed.commands.simulate_cycles import cycle_part
    from csp_embed.commands.simulate_text import dump_lines, summary_lines
    from csp_embed.judge.stream.tokens import stuck
    from csp_embed.machine.program_file import isa_of, program_kind, read_program
    from csp_embed.machine.words.bits import decode
    from csp_embed.sim.debug import dump
    from csp_embed.sim.functional.run import run

    # A default is no wish: other kinds of programs have other engines.
    asked = engine if "engine" in given_options(context) else None
    # The file says which simulators can run it.
    kind = program_kind(file)
    if kind == "commands":
        command_run.simulate(context, file, asked, as_json)
        return
    if kind == "source":
        source_run.simulate(context, file, asked, as_json)
        return
    if engine not in ENGINES:
        raise InputError(
            f"no engine '{engine}'",
            where="--engine",
            why=f"known: {', '.join(ENGINES)}",
            hint=f"--engine {ENGINES[0]}",
        )
    # Partial runs have no cycles of a whole one.
    stopping = break_at is not None or until_store
    _refuse_combinations(context, engine, stopping, bool(dumps))
    check_outputs((trace, (".json",)), (timeline, PICTURES), reads=(file,))
    program = read_program(file)
    isa = isa_of(program)
    document: dict[str, Any] = {"cycles": None, "values_equal": None, "first_difference": None}
    lines: list[str] = []
    done: Run | None = None
    # Decoded once, for both engines.
    stream = decode(isa, program.insn)
    # A program that hangs still has values worth knowing: a sequential simulator runs it.
    deadlock = None if ignore_tokens else stuck(isa, stream)
    if deadlock is not None:
        document["deadlock"] = deadlock[0]
    # Dumps and stops need values, whatever the engine.
    if engine != "cycles" or stopping or dumps:
        with progress(quiet=as_json) as update:
            done = run(
                isa, program, strict=strict, tokens=not ignore_tokens and deadlock is None,
                break_at=break_at, until_store=until_store, max_steps=max_steps, progress=update,
            )  # fmt: skip
        document |= _values(done)
        lines += summary_lines(done)
    # A run that hangs or stops early has no total.
    if engine in ("cycles", "both") and not stopping and deadlock is None:
        found, text = cycle_part(isa, stream, memory, trace, timeline, optional=engine == "both")
        document |= found
        lines += text
    # A folder alone asks for a comparison with TVM's simulator.
    if tvm_lib is not None or engine.startswith("tvm"):
        which = engine if engine.startswith("tvm") else "tvm-fsim"
        # It would hang there too.
        if deadlock is None:
            found, text = _native(isa, program, which, tvm_lib, done)
            document |= found
            lines += text
    for what in dumps or []:
        # Dumps make `done` above.
        assert done is not None
        name, values = dump(done, what)
        document.setdefault("dump", {})[what] = values.tolist()
        lines += dump_lines(what, name, values)
    _finish(document, lines, deadlock[1] if deadlock else None, as_json)


def _refuse_combinations(
    context: typer.Context, engine: str, stopping: bool, dumping: bool
) -> None:
    """Raises: InputError for an option that the engine or another option leaves idle."""
    cycle_options = ("memory", "trace", "timeline")
    # Cycle options need the cycle engine.
    if engine not in ("cycles", "both"):
        refuse_ignored(context, cycle_options, f"--engine {engine}", hint="--engine both")
    if stopping:
        stop = "--break or --until-store"
        why = "cycles are those of a whole run"
        refuse_ignored(context, cycle_options, stop, why=why)
        # Both need values, which these engines do not give here.
        if engine == "cycles" or engine.startswith("tvm"):
            refuse_ignored(context, ("engine",), stop, hint="--engine functional")
    if engine == "cycles" and not dumping:
        values_only = ("strict", "ignore_tokens", "max_steps")
        refuse_ignored(
            context, values_only, "--engine cycles", why="it looks at no values",
            hint="--engine both",
        )  # fmt: skip


def _values(done: Run) -> dict[str, Any]:
    from csp_embed.commands.simulate_text import expected_from
    from csp_embed.sim.debug import first_difference

    # None: the file expects nothing, so nothing can differ.
    difference = first_difference(done) if done.values_equal is False else None
    found: dict[str, Any] = {
        "values_equal": done.values_equal,
        "expected_from": expected_from(done.program),
        "first_difference": difference.as_json() if difference else None,
        "executed": len(done.executed),
        "instructions": len(done.table),
        "counters": done.counters,
        "warnings": list(done.warnings),
    }
    if done.stopped:
        # Where it stopped: the next instruction in the order of the run.
        at = int(done.sequence[len(done.executed)])
        found["stopped_before"] = at
    return found


def _native(
    isa: Isa, program: Program, engine: str, tvm_lib: str | None, done: Run | None
) -> tuple[dict[str, Any], list[str]]:
    """Runs TVM's simulator too and compares what both stored."""
    from csp_embed.sim.tvm.native import first_difference as native_difference
    from csp_embed.sim.tvm.native import run_native

    native = run_native(isa, program, tvm_lib, engine)
    found: dict[str, Any] = {"engine": engine, "library": str(native.library)}
    lines = [f"{engine}: {native.seconds:.2f} s, {native.library}"]
    if native.cycles is not None:
        found["cycles"] = native.cycles
        lines.append(f"{engine}: {native.cycles} cycles")
    # A partial run has stored only a part.
    if done is not None and not done.stopped:
        difference = native_difference(program, done.outputs, native.outputs)
        found["native_equal"] = difference is None
        if difference is not None:
            # Two simulators that differ: one of them is wrong.
            found |= {"values_equal": False, "native_difference": difference}
        lines.append(f"{engine}: " + (difference or "the same bytes as ours"))
    return found, lines


def _finish(
    document: dict[str, Any], lines: list[str], deadlock: SimError | None, as_json: bool
) -> None:
    if deadlock is not None:
        document |= {"error": deadlock.kind, "what": deadlock.what, "where": deadlock.where}
    if as_json:
        print_json(document)
    else:
        say("\n".join(lines))
    # After the document: standard output holds only that.
    if deadlock is not None:
        sys.stderr.write(deadlock.render() + "\n")
    if deadlock is not None or document["values_equal"] is False:
        raise typer.Exit(5)
