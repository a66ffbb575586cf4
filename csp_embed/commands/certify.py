"""`csp-embed certify FILE`: proves a program right for all inputs, or says why not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csp_embed.commands.common import print_json, progress, say
from csp_embed.commands.given import refuse_ignored
from csp_embed.errors import InputError, OperatorError
from csp_embed.narrow import is_object

if TYPE_CHECKING:
    from csp_embed.ir.operator import Operator
    from csp_embed.ir.stream import Program
    from csp_embed.judge.certify.certificate import Certificate


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command("certify")(certify_command)


def certify_command(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A program (.npz).")],
    formula: Annotated[
        str | None,
        typer.Option(help="What a program of another tool computes (docs/formulas.md)."),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="x=1,3,8,8: a tensor's shape, where the file does not carry it."),
    ] = None,
    layout: Annotated[
        list[str] | None,
        typer.Option(
            help="x=0,1/16,2,3,0%1,1%16@0x1000: digits of the tensor's dimensions as its bytes"
            " lie, and where; found by the file's tensors where left out."
        ),
    ] = None,
    stream_only: Annotated[
        bool,
        typer.Option("--stream-only", help="Do not compare the data that the file carries."),
    ] = False,
    rounds: Annotated[
        int | None,
        typer.Option(
            help="Random points (1, for kernels of C 8); each multiplies the error's probability."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the random points; the file's digest by default.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The certificate (.json).")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="The certificate as a page (.html).")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The certificate on standard output.")
    ] = False,
) -> None:
    """Proves that a program computes its formula for every input, in every order that it can run.

    Of a kernel of C the index maps are certified, by its library's sums at random points.

    Exit code 5 where it is refused. What is proved and assumed: docs/certify.md. Examples:

      csp-embed certify conv1.npz -o conv1.json --report conv1.html

      csp-embed certify dense.npz --formula 'y[n,k] += x[n,c] * w[k,c]; shr 8; clip 0 127'
    """
    # Here, not above: the command line starts without the judge and the compiler.
    from csp_embed.compiler.source.file import read
    from csp_embed.files import check_writable
    from csp_embed.judge.certify.claims import read_claims
    from csp_embed.judge.certify.network.run import certify_network
    from csp_embed.judge.certify.network.statement import is_network
    from csp_embed.judge.certify.run import certify
    from csp_embed.machine.program_file import isa_of, program_kind, read_program

    if rounds is not None and rounds < 1:
        raise InputError(f"--rounds {rounds} proves nothing", hint="--rounds 1")
    if seed is not None and seed < 0:
        raise InputError(f"--seed {seed} is negative", hint="--seed 0")
    # Before the proof, which may take long.
    check_writable(output, (".json",))
    check_writable(report, (".html", ".htm"))
    # The file says what it is; each kind is proved in its own way.
    kind = program_kind(file)
    if kind == "commands":
        refuse_ignored(
            context, ("formula", "shape", "layout", "stream_only"), "a program of commands",
            why="its file says what it computes and where tensors lie",
        )  # fmt: skip
        from csp_embed.compiler.commands.file import read as read_commands

        stream = read_commands(file)
        _tell(stream.certify(seed=seed, rounds=1 if rounds is None else rounds), file, output,
              report, as_json)  # fmt: skip
        return
    if kind == "source":
        refuse_ignored(
            context, ("formula", "shape", "layout", "stream_only"), "a kernel of C",
            why="its file says what it computes and how",
        )  # fmt: skip
        source = read(file)
        # Where constants stand in the text, the file carries their values.
        # The text of a kernel may hold constants; only their values can be compared with it.
        constant = {n for n, t in source.operator.tensors.items() if t.constant}
        known = {n: v for n, v in source.operands.items() if n in constant}
        found = replace(source.kernel(), constants=known).certify(rounds=rounds, seed=seed)
        _tell(found, file, output, report, as_json)
        return
    # What is left is a stream.
    program = read_program(file)
    isa = isa_of(program)
    if is_network(program.meta):
        refuse_ignored(
            context, ("formula", "shape", "layout", "stream_only"), "a network's program",
            why="its file states the network and where its tensors lie",
        )  # fmt: skip
        with progress(quiet=as_json) as tell:
            found = certify_network(
                isa, program, file, seed=seed, rounds=1 if rounds is None else rounds, tell=tell
            )
        _tell(found, file, output, report, as_json)
        return
    # A file of our own states its formula; --shape would contradict it.
    if formula is None:
        refuse_ignored(context, ("shape",), "the file's own formula", hint="give --formula too")
        op = _stated(file, program)
    else:
        op = _given(formula, shape or [], program)
    document = program.meta.get("claims")
    # Claims of the file hold for its own formula only.
    if layout or formula is not None or document is None:
        from csp_embed.commands.compiling.foreign import foreign_claims

        document = foreign_claims(isa, program, op, layout or [])
    # Claims are what is proved, so a malformed one is an error of the file.
    claims = read_claims(document, op, f"{file}: meta.claims")
    with progress(quiet=as_json) as tell:
        found = certify(
            isa, program, op, claims, seed=seed, rounds=1 if rounds is None else rounds,
            example=not stream_only, tell=tell,
        )  # fmt: skip
    _tell(found, file, output, report, as_json)


def _tell(
    found: Certificate, file: str, output: Path | None, report: Path | None, as_json: bool
) -> None:
    """Writes and prints it. Exit code 5 where it is refused."""
    from csp_embed.files import atomic
    from csp_embed.report.certificate import certificate_page

    result = found.document()
    if output is not None:
        with atomic(output) as handle:
            handle.write(json.dumps(result, indent=1) + "\n")
    if report is not None:
        with atomic(report) as handle:
            handle.write(certificate_page(result, Path(file).name))
    if as_json:
        print_json(result)
    else:
        say(found.show())
        for path in (output, report):
            if path is not None:
                say(f"wrote {path}")
    # After everything is written and printed: the page of a refusal is worth reading.
    if not found.ok:
        raise typer.Exit(5)


def _stated(file: str, program: Program) -> Operator:
    """The operator that the file itself states."""
    from csp_embed.ops.document import from_document

    certificate: Any = program.meta.get("certificate")
    # Files of other tools have no certificate, or one without an operator.
    document = certificate.get("operator") if is_object(certificate) else None
    if document is None:
        raise InputError(
            "the file does not say what it computes",
            where=file,
            why="its meta has no operator: another tool wrote it",
            hint="--formula 'y[n,k] += x[n,c] * w[k,c]; shr 8; clip 0 127'",
        )
    return from_document(document, program.tensors)


def _given(formula: str, shape: list[str], program: Program) -> Operator:
    """The operator as a formula; shapes from the options, or of the file's tensors."""
    from csp_embed.commands.compiling.request import shapes
    from csp_embed.ops import parse_formula

    # Options over the file's tensors: they were given to say something else.
    sizes = {n: tuple(a.shape) for n, a in program.tensors.items()} | shapes(shape)
    dtypes = {n: str(a.dtype) for n, a in program.tensors.items() if n not in shapes(shape)}
    try:
        return parse_formula(formula, sizes, dtypes=dtypes)
    except OperatorError as error:
        # With shapes at hand the formula itself is at fault.
        if sizes:
            raise
        raise InputError(
            "the file carries no tensors, so their shapes are not known", why=error.what,
            hint="--shape x=1,64 --shape w=32,64",
        ) from error  # fmt: skip
