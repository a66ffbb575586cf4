"""`csp-embed check FILE`: judges a program file."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from csp_embed.commands.common import print_json, progress
from csp_embed.isa.program_file import isa_of, read_program
from csp_embed.sim.check import judge


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command("check")(check_command)


def check_command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A program file (.npz).")],
    values: Annotated[
        bool, typer.Option("--values/--no-values", help="Compare the result by simulation.")
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on standard output.")
    ] = False,
) -> None:
    """Judges a program: fields and ranges, what hardware does differently, tokens, races, values.

    Exit code 5 where it finds a problem. Example: csp-embed check conv1.npz
    """
    program = read_program(file)
    isa = isa_of(program)
    with progress(quiet=as_json) as update:
        problems, remarks = judge(isa, program, values=values, progress=update)
    if as_json:
        print_json(
            {"ok": not problems, "problems": [asdict(p) for p in problems], "remarks": remarks}
        )
    else:
        for p in problems:
            print(f"{p.kind}: {'program' if p.insn is None else f'instruction {p.insn}'}: {p.text}")
        for text in remarks:
            print(f"remark: {text}")
        count = len(program.insn)
        print(
            f"{file}: {len(problems)} problems" if problems else f"{file}: ok, {count} instructions"
        )
    if problems:
        raise typer.Exit(5)
