"""`csp-embed check FILE`: judges a program file, a certificate or a plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csp_embed.commands.common import print_json, progress, say
from csp_embed.commands.given import refuse_ignored
from csp_embed.errors import InputError
from csp_embed.narrow import is_object

if TYPE_CHECKING:
    from csp_embed.ir.stream import Program
    from csp_embed.judge.embedding.certificate import Judgement
    from csp_embed.judge.stream.judge import Problem


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command("check")(check_command)


def check_command(
    context: typer.Context,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A program (.npz); a certificate or plan (.json).")
    ],
    values: Annotated[
        bool,
        typer.Option(
            "--values/--no-values",
            help="Compare what the simulated program stores with what the file expects, and that"
            " with the file's formula by NumPy.",
        ),
    ] = True,
    certificate: Annotated[
        bool,
        typer.Option(
            "--certificate",
            help="Judge the certificate in the program file too: rules, cost, claims; no solver.",
        ),
    ] = False,
    graph: Annotated[
        str | None, typer.Option("--graph", help="A plan's graph or model, if it does not name it.")
    ] = None,
    platform: Annotated[
        str | None, typer.Option("--platform", help="A plan's platform, if it does not name it.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on standard output.")
    ] = False,
) -> None:
    """Judges a program: fields and ranges, what hardware does differently, tokens, races, values.

    Exit code 5 where it finds a problem. Examples: csp-embed check conv1.npz;
    csp-embed check conv1.npz --certificate; csp-embed check certificate.json;
    csp-embed check plan.json --graph g.json
    """
    from csp_embed.judge.embedding.certificate import check_certificate
    from csp_embed.judge.formula import formula_problems
    from csp_embed.machine.program_file import isa_of, program_kind, read_program
    from csp_embed.sim.check import judge

    # A plan says that it is one; a graph given beside a file means the same.
    if graph is not None or _is_plan(file):
        from csp_embed.commands.planning.runs import judge_plan

        # Plans have no values and carry no certificate.
        refuse_ignored(context, ("values", "certificate"), "a plan")
        judge_plan(file, graph, platform, as_json)
        return
    # By content: certificates may have any name.
    if _is_text(file):
        refuse_ignored(context, ("values", "certificate", "platform"), "a certificate")
        _show_certificate(file, check_certificate(_read(file)), as_json)
        return
    # Programs of three kinds, each with its own judge.
    kind = program_kind(file)
    if kind == "source":
        from csp_embed.commands.compiling import source_run

        # Its certificate is part of what is judged anyway.
        source_run.check(context, file, values, as_json)
        return
    if kind == "commands":
        from csp_embed.commands.compiling import command_run

        command_run.check(context, file, values, as_json)
        return
    # Programs name their machine themselves.
    refuse_ignored(context, ("platform",), "a program", why="plans have platforms")
    program = read_program(file)
    isa = isa_of(program)
    with progress(quiet=as_json) as update:
        problems, remarks = judge(isa, program, values=values, progress=update)
    contradictions: list[str] = []
    # Only a program that ran has stored something.
    compared = values and bool(program.after) and not _unrun(problems)
    if values:
        # The formula is compared by NumPy, beside what the file expects.
        contradictions, said = formula_problems(program)
        remarks = [*remarks, *said]
    if not compared:
        # Not compared is no problem, but must be said.
        remarks = [*remarks, "values were not compared: " + _why_not(values, program)]
    broken: tuple[str, ...] = ()
    if certificate:
        # The certificate is judged whatever the stream does.
        judged = check_certificate(_certificate_of(file, program.meta), program.meta)
        broken, remarks = judged.problems, [*remarks, *judged.remarks]
    if as_json:
        # One list, so that scripts need only look at one place.
        found = [asdict(p) for p in problems]
        found += [{"insn": None, "kind": "formula", "text": text} for text in contradictions]
        found += [{"insn": None, "kind": "certificate", "text": text} for text in broken]
        print_json({"ok": not found, "problems": found, "remarks": remarks})
    else:
        for p in problems:
            say(f"{p.kind}: {'program' if p.insn is None else f'instruction {p.insn}'}: {p.text}")
        for text in contradictions:
            say(f"formula: {text}")
        for text in broken:
            say(f"certificate: {text}")
        for text in remarks:
            say(f"remark: {text}")
        # Everything that was found counts.
        count, total = len(program.insn), len(problems) + len(broken) + len(contradictions)
        said = f"ok, {count} instructions" + (
            ", it stores what the file expects" if compared else ""
        )
        say(f"{file}: {total} problems" if total else f"{file}: {said}")
    if problems or broken or contradictions:
        raise typer.Exit(5)


def _unrun(problems: Sequence[Problem]) -> bool:
    """A stream that cannot run was not simulated (judge/stream/judge.py)."""
    # Faults after which the judge does not simulate.
    return any(p.kind in ("opcode", "memory", "range", "work", "dram", "deadlock")
               for p in problems)  # fmt: skip


def _why_not(values: bool, program: Program) -> str:
    if not values:
        return "--no-values"
    return "the program cannot run" if program.after else "the file expects none"


def _is_plan(file: str) -> bool:
    """A JSON document that says so itself; a broken one is judged as what its suffix promises."""
    # Only JSON and YAML can hold a plan.
    if Path(file).suffix not in (".json", ".yaml", ".yml"):
        return False
    found = _read(file)
    return is_object(found) and str(found.get("format", "")).startswith("csp-embed-plan/")


def _is_text(file: str) -> bool:
    """A certificate alone: JSON, whatever the file is called."""
    try:
        with open(file, "rb") as handle:
            # The first character is enough: archives begin with PK.
            return handle.read(1) in (b"{", b"[")
    except OSError:
        # A missing file is told by whoever reads it.
        return Path(file).suffix == ".json"


def _read(file: str) -> Any:
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read {file}",
            where=file,
            why=str(error),
            hint="give a program, certificate or plan that csp-embed wrote",
        ) from error


def _certificate_of(file: str, meta: Mapping[str, Any]) -> Any:
    if "certificate" not in meta:
        raise InputError(
            "the program file carries no certificate", where=file,
            hint=f"csp-embed check {file}",
        )  # fmt: skip
    return meta["certificate"]


def _show_certificate(file: str, judged: Judgement, as_json: bool) -> None:
    if as_json:
        print_json({"ok": not judged.problems, **asdict(judged)})
    else:
        for text in judged.problems:
            say(f"certificate: {text}")
        for text in judged.remarks:
            say(f"remark: {text}")
        verdict = f"{len(judged.problems)} problems" if judged.problems else "ok"
        say(f"{file}: {verdict}, status {judged.status}")
    if judged.problems:
        raise typer.Exit(5)
