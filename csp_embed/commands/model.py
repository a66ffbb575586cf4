"""`csp-embed explain` and `csp-embed pareto`: why this embedding, and what else there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csp_embed.commands.common import print_json, progress, say, say_table
from csp_embed.commands.compiling.operator_options import Asked, with_operator
from csp_embed.commands.given import refuse_ignored
from csp_embed.errors import Infeasible, InputError
from csp_embed.files import PICTURES, atomic, check_writable

if TYPE_CHECKING:
    from csp_embed.embed.explain.pareto import Front, Member


Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Tell = Callable[[str, int, int], None]


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    # With the options that name an operator, see `with_operator`.
    app.command("explain")(with_operator(explain_command))
    app.command("pareto")(with_operator(pareto_command))


def explain_command(
    asked: Asked,
    context: typer.Context,
    picture: Annotated[
        Path | None,
        typer.Option(help="SVG: which tensor elements sit in which lanes of the first steps."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=16, help="Steps in the picture.")] = 2,
    ground: Annotated[
        bool,
        typer.Option(
            "--ground", help="Tiny operators: the exact model's fewest steps and coverings instead."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Why this embedding: the best of every kind, and where the chosen one's lanes come from.

    Where no embedding exists: a minimal set of families and pins in conflict and the smallest
    changes that help (exit code 3). Examples:

    csp-embed explain deepbench:conv000 --picture lanes.svg

    csp-embed explain conv2d --n 1 --c 3 --h 20 --w 20 --k 16 --r 3 --s 3 --layout x=NHWC

    csp-embed explain matmul --m 2 --n 2 --k 3 --isa toy_dot --ground
    """
    from csp_embed.commands.compiling.explain_ground import explain_ground
    from csp_embed.report.lanes import picture as lanes_picture

    check_writable(picture, (".svg",))
    # The exact model has its own answers; nothing of the rest is computed.
    if ground:
        refuse_ignored(context, ("picture", "steps", "memory"), "--ground")
        explain_ground(asked, as_json)
        return
    # Steps are steps of the picture.
    if picture is None:
        refuse_ignored(
            context, ("steps",), "no picture", why="they are steps of the picture",
            hint="--picture lanes.svg",
        )  # fmt: skip
    with progress(quiet=as_json) as tell:
        try:
            chosen, table = _alternatives(asked, tell)
        except Infeasible:
            # The reasons first, then the error with its exit code.
            _infeasible(asked, as_json)
            raise
    if picture is not None:
        with atomic(picture) as file:
            file.write(lanes_picture(chosen, asked.isa, steps))
    if as_json:
        print_json({"status": "feasible", "operator": asked.op.formula(), "alternatives": table,
                    "proof": dict(chosen.proof), "picture": picture and str(picture)})  # fmt: skip
        return
    _print_alternatives(asked, chosen.formula(), dict(chosen.proof), table)
    if picture is not None:
        say(f"wrote {picture}")


def _alternatives(asked: Asked, tell: Tell) -> tuple[Any, list[dict[str, Any]]]:
    from csp_embed.compiler.driver import SourceKernel, scheduled_cycles
    from csp_embed.compiler.driver import compile as compile_operator
    from csp_embed.compiler.search.candidates import problem_of
    from csp_embed.embed.explain.reasons import by_kind
    from csp_embed.report.alternatives import rows as alternatives

    tell("choosing", 0, 1)
    # Compiled as usual: what is explained must be what compile chooses.
    kernel = compile_operator(asked.op, asked.isa, options=asked.options, progress=tell)
    embedding = kernel.embedding
    # Some machines run plain loops where products cannot be embedded.
    if embedding is None:
        assert isinstance(kernel, SourceKernel)
        raise InputError(
            f"{asked.op.name} has no embedding in {asked.isa.name} to explain",
            where=asked.op.formula(),
            why=f"it is plain loops, since {kernel.why}",
            hint="csp-embed explain deepbench:conv000 explains a layer with products",
        )
    others = by_kind(problem_of(asked.op, asked.isa, asked.options))
    # What was scheduled in compiling need not be scheduled again.
    known: dict[str, float | None] = {e.formula(): c for e, c in kernel.candidates}
    known[embedding.formula()] = kernel.cycles
    for n, e in enumerate(others):
        tell("scheduling alternatives", n, len(others))
        if e.formula() not in known:
            known[e.formula()] = scheduled_cycles(e, asked.isa, asked.options)
    return embedding, alternatives(embedding, others, known)


def _infeasible(asked: Asked, as_json: bool) -> None:
    from csp_embed.embed.explain.reasons import none as explain_none

    found = explain_none(asked.op, asked.isa, asked.options.layout, asked.options.pins)
    if not found.proved:
        return  # there are embeddings, but no schedule of one: the error says so
    if as_json:
        print_json({"status": "infeasible", "operator": asked.op.formula(), "why": found.why,
                    "conflict": found.conflict, "reasons": dict(found.reasons),
                    "relaxations": found.relaxations})  # fmt: skip
        # One document on standard output; the exit code says the rest.
        raise typer.Exit(3)
    say(f"{asked.op.formula()}: no embedding in {asked.isa.name}")
    say("  minimal conflict: " + ", ".join(found.conflict))
    for text in found.relaxations:
        say(f"  would help: {text}")
    say("  proved twice: by the solver, and by sweeping every answer of the lifted model")


def _print_alternatives(
    asked: Asked, formula: str, proof: dict[str, Any], table: list[dict[str, Any]]
) -> None:
    from csp_embed.report.kernel import proved

    say(f"{asked.op.name}  {asked.op.formula()}")
    say(f"  chosen {formula}")
    say(f"  {proved(proof)}")
    head = (
        "kind", "analytic", "compute", "read", "write", "host bytes", "scheduled", "lanes used",
        "costs more in",
    )  # fmt: skip
    # One row for each kind; the chosen one comes first.
    rows: list[list[str]] = []
    for r in table:
        cycles = r["scheduled_cycles"]
        rows.append([
            r["kind"], f"{r['analytic_cycles']:,.0f}", f"{r['compute_cycles']:,.0f}",
            f"{r['read_cycles']:,.0f}", f"{r['write_cycles']:,.0f}", f"{r['host_bytes']:,.0f}",
            # Not scheduled: a dash, not a 0.
            "-" if cycles is None else f"{cycles:,.0f}", f"{r['lane_utilisation']:.3f}",
            r["because"],
        ])  # fmt: skip
    say_table(head, rows, "the best of each kind, proved by sweeping the lifted model")
    for r in table[1:]:
        say(f"  {r['kind']:<18} {r['embedding']}")


def pareto_command(
    asked: Asked,
    context: typer.Context,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Picture to write: .png or .svg.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, help="Members that are scheduled; the others keep analytic cycles")
    ] = 40,
    as_json: Json = False,
) -> None:
    """The non-dominated embeddings over cycles, packed input bytes, host packing work, weight bytes
    and zero fill; complete for the lifted model.

    Examples: csp-embed pareto deepbench:conv000 -o front.png;
    csp-embed pareto matmul --m 35 --n 700 --k 2048 --forbid commuted --json
    """
    # With no member scheduled the memory has no effect.
    if limit == 0:
        refuse_ignored(context, ("memory",), "--limit 0", why="nothing is scheduled")
    from csp_embed.compiler.search.candidates import problem_of
    from csp_embed.embed.explain.pareto import pareto
    from csp_embed.embed.explain.reasons import none as explain_none
    from csp_embed.report import pareto as pareto_report
    from csp_embed.report.pareto_picture import plot

    problem = problem_of(asked.op, asked.isa, asked.options)
    check_writable(output, PICTURES)
    with progress(quiet=as_json) as tell:
        tell("sweeping", 0, 1)
        try:
            front = pareto(problem)
        except Infeasible as error:
            # The error with what is in conflict, in place of the bare one.
            found = explain_none(asked.op, asked.isa, asked.options.layout, asked.options.pins)
            raise found.error(asked.op, asked.isa) from error
        front = _scheduled(asked, front, limit, tell)
    title = str(asked.op.notes.get("layer", asked.op.name))
    if output is not None:
        plot(front, output, f"{title}  {asked.op.formula()}")
    document = pareto_report.document(front)
    if as_json:
        print_json(document | {"picture": output and str(output)})
        return
    _print_front(asked, document)
    if output is not None:
        say(f"wrote {output}")


def _scheduled(asked: Asked, front: Front, limit: int, tell: Tell) -> Front:
    from csp_embed.compiler.driver import scheduled_cycles

    members: list[Member] = []
    for n, m in enumerate(front.members):
        # The first ones have the fewest analytic cycles.
        if n < limit:
            tell("scheduling members", n, min(limit, len(front.members)))
            m = replace(m, scheduled=scheduled_cycles(m.embedding, asked.isa, asked.options))
        members.append(m)
    return replace(front, members=tuple(members))


def _print_front(asked: Asked, document: dict[str, Any]) -> None:
    from csp_embed.embed.explain.pareto import CRITERIA

    say(f"{asked.op.name}  {asked.op.formula()}")
    head = (
        "#", "kind", "analytic", "scheduled", "input B", "host B", "weight B", "zeros B", "lanes",
    )  # fmt: skip
    rows: list[list[str]] = []
    for m in document["members"]:
        cycles = m["scheduled_cycles"]
        mark = "" if m["non_dominated_when_scheduled"] else "*"
        values = [f"{m[c]:,.0f}" for c in CRITERIA]
        rows.append([
            # * and + are explained below the table.
            f"{m['number']}{mark}{'+' if m['fewest_cycles'] else ''}", m["kind"], values[0],
            "-" if cycles is None else f"{cycles:,.0f}", *values[1:],
            m["embedding"].split("|")[0].strip(),
        ])  # fmt: skip
    say_table(head, rows, f"non-dominated embeddings; {document['claim']}")
    say("+ the fewest cycles")
    # Explained only where one is marked.
    if not all(m["non_dominated_when_scheduled"] for m in document["members"]):
        say("* another member is nowhere worse once scheduled cycles are compared")
