"""`csp-embed isa list | show | check | doctor | schema | convert` and `csp-embed disasm`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from csp_embed.commands.common import print_json, say
from csp_embed.commands.given import refuse_ignored
from csp_embed.errors import CheckError

Config = Annotated[
    str | None,
    typer.Option("--vta-config", metavar="FILE.json", help="Sizes: a JSON file or a known name."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Spec = Annotated[str, typer.Argument(metavar="SPEC", help="A known name or a FILE.yaml.")]


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    isa = typer.Typer(
        name="isa", help="Look at instruction sets and check them.", no_args_is_help=True
    )
    isa.command("list")(list_command)
    isa.command("show")(show_command)
    isa.command("check")(check_command)
    isa.command("doctor")(doctor_command)
    isa.command("schema")(schema_command)
    isa.command("convert")(convert_command)
    app.add_typer(isa)
    app.command("disasm")(disasm_command)


def list_command(as_json: Json = False) -> None:
    """Lists the instruction sets that ship with csp-embed and their configurations."""
    from csp_embed.machine.load import builtin_names, config_names

    found = {name: config_names(name) for name in builtin_names()}
    if as_json:
        print_json(found)
        return
    for name, configs in found.items():
        say(f"{name:12} {', '.join(configs)}")


def show_command(spec: Spec = "vta", vta_config: Config = None, as_json: Json = False) -> None:
    """Shows a machine: memories, micro-op, instructions with their fields, limits, costs.

    Example: csp-embed isa show vta --vta-config my_vta_config.json
    """
    # Here, not above: only what a command needs is loaded.
    from csp_embed.machine.load import load_isa
    from csp_embed.machine.show import as_document, show

    isa = load_isa(spec, vta_config)
    if as_json:
        print_json(as_document(isa))
    else:
        say(show(isa))


def check_command(spec: Spec = "vta", vta_config: Config = None, as_json: Json = False) -> None:
    """Checks an instruction-set file: its syntax, rules, encodings and stated meanings, and that
    small operators compiled for it compute what NumPy computes.

    Without --vta-config all its named configurations are checked.

    Example: csp-embed isa check my.yaml
    """
    # Not needed by the other commands here, and slow to import.
    from csp_embed.compiler import machine_suite
    from csp_embed.compiler.commands import suite as command_suite
    from csp_embed.compiler.source import suite as source_suite
    from csp_embed.machine.compilable import require
    from csp_embed.machine.load import config_names, load_isa
    from csp_embed.machine.selfcheck import check as self_check
    from csp_embed.targets import target_of

    # All of its configurations, or the one that was named.
    names = config_names(spec) if vta_config is None else [vta_config]
    counts: dict[str, int] = {}
    wrong: list[dict[str, str]] = []
    cannot: list[dict[str, str]] = []
    for name in names:
        # Reading checks the file; what follows checks what it means.
        isa = load_isa(spec, name)
        config = isa.config_name if vta_config else name
        # Before the suite: what cannot be compiled for has no programs to compare.
        require(isa)
        target = target_of(isa)
        streams = target == "stream"
        # Only streams have encodings to check.
        findings = self_check(isa) if streams else []
        bad = [(f.name, f.text, isa.where("instructions")) for f in findings if not f.ok]
        suite = {"stream": machine_suite, "commands": command_suite, "source": source_suite}
        # Small operators, compared with NumPy.
        outcomes: list[Any] = [*suite[target].run(isa)]
        bad += [(o.name, o.text, o.where) for o in outcomes if o.kind == "wrong"]
        # "cannot": refused with a reason, which is no fault of the file.
        lacks = [(o.name, o.text, o.where) for o in outcomes if o.kind == "cannot"]
        counts[config] = len(findings) + len(outcomes)
        wrong += [_problem(config, *b) for b in bad]
        cannot += [_problem(config, *c) for c in lacks]
        if as_json:
            continue
        good = counts[config] - len(bad) - len(lacks)
        say(f"{spec} {config}: {good} of {counts[config]} checks hold")
        for what, text, _ in bad:
            say(f"  {what}: {text}")
        for what, text, _ in lacks:
            say(f"  cannot: {what}: {text}")
    if as_json:
        print_json({"ok": not wrong, "checks": counts, "problems": wrong, "cannot": cannot})
        if wrong:
            raise typer.Exit(CheckError.exit_code)
        return
    # The first of them, whole; the rest are counted above.
    if wrong:
        first = wrong[0]
        raise CheckError(
            f"{spec} {first['config']} fails {len(wrong)} checks",
            where=first["where"],
            why=f"{first['check']}: {first['text']}",
            hint="programs would be wrong; isa_specs/README.md, docs/machines.md and"
            " docs/commands.md say what each entry means",
        )


def doctor_command(as_json: Json = False) -> None:
    """Tells for every machine that ships what can run its programs on this computer, what is
    missing, and how to get it.

    Example: csp-embed isa doctor
    """
    from csp_embed.compiler.doctor import machines

    found = machines()
    if as_json:
        print_json(found)
        return
    for name, entry in found.items():
        say(f"{name:18} {', '.join(entry['engines'])}")
        for lack in entry["missing"]:
            say(f"{'':18} missing: {lack['what']}; try: {lack['try']}")


def convert_command(
    file: Annotated[Path, typer.Argument(metavar="OLD.yaml", help="A file of csp-embed-isa/1.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The new file (.yaml).")],
) -> None:
    """Writes a file of csp-embed-isa/1 in the format csp-embed-isa/2: the same machine.

    Example: csp-embed isa convert old.yaml -o new.yaml
    """
    from csp_embed.files import atomic, check_outputs, readable
    from csp_embed.machine.reading.convert import converted

    check_outputs((output, (".yaml", ".yml")), reads=(file,))
    with readable(file, "csp-embed isa list shows the machines that ship"):
        text = file.read_text("utf-8")
    # What the file names is relative to it.
    new = converted(text, str(file), file.parent)
    with atomic(output) as out:
        out.write(new)
    say(f"wrote {output}")


def schema_command() -> None:
    """Prints the JSON schema of instruction-set files, for editors that check YAML.

    Example: csp-embed isa schema > isa.schema.json
    """
    from csp_embed.machine.reading.schema import schema

    print_json(schema())


def _problem(config: str, check: str, text: str, where: str) -> dict[str, str]:
    return {"config": config, "check": check, "text": text, "where": where}


def disasm_command(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE.npz", help="A program file.")],
    isa: Annotated[
        str | None, typer.Option("--isa", help="Read it as this machine's (default: its own).")
    ] = None,
    vta_config: Config = None,
    uops: Annotated[
        bool, typer.Option("--uops", help="Also print the micro-ops that each load fetches.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Prints a program, one instruction a line: what it does, then the tokens it pops and pushes.

    Example: csp-embed disasm conv1.npz | less
    """
    # Records have instructions only.
    if as_json:
        refuse_ignored(context, ("uops",), "--json", why="records are instructions")
    from csp_embed.commands.compiling import command_run
    from csp_embed.machine.load import load_isa
    from csp_embed.machine.program_file import isa_of, program_kind, read_program
    from csp_embed.machine.words import bits
    from csp_embed.machine.words.listing import line, uop_lines

    kind = program_kind(file)
    # C is its own listing.
    if kind == "source":
        from csp_embed.compiler.source.file import read

        refuse_ignored(context, ("isa", "vta_config", "uops", "as_json"), "a kernel of C",
                       why="its text is printed as it stands")  # fmt: skip
        say(read(file).text)
        return
    if kind == "commands":
        refuse_ignored(context, ("isa", "vta_config", "uops"), "a program of commands",
                       why="it carries its machine, which has none of these")  # fmt: skip
        command_run.disasm(file, as_json)
        return
    program = read_program(file)
    # Read as its own machine unless somebody wants it read as another.
    own = isa is None and vta_config is None
    machine = isa_of(program) if own else load_isa(isa or "vta", vta_config)
    stream = bits.decode(machine, program.insn)
    if not as_json:
        for n in range(len(stream)):
            say(line(machine, stream, n))
            for text in uop_lines(machine, program, stream, n) if uops else ():
                say(text)
        return
    print_json(
        {
            "isa": machine.name,
            "config": machine.config_name,
            "instructions": [_record(machine, stream, n) for n in range(len(stream))],
        }
    )


def _record(machine: Any, stream: Any, n: int) -> dict[str, Any]:
    from csp_embed.machine.words.listing import line

    code = int(stream.code[n])
    record: dict[str, Any] = {"insn": n, "name": None, "text": line(machine, stream, n).strip()}
    # -1: no instruction has this opcode.
    if code >= 0:
        instruction = machine.instructions[code]
        record["name"] = instruction.name
        record["fields"] = {
            f.name: int(stream.fields[f.name][n])
            for f in instruction.fields
            # The opcode is told by the name.
            if f.name in stream.fields and f.name != "opcode"
        }
    return record
