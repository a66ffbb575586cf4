"""A machine as text for people and as a document for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from csp_embed.machine.commands.spec import CommandMachine
from csp_embed.machine.spec import Isa, Memory
from csp_embed.machine.templates.spec import SourceMachine


def as_document(isa: Isa) -> dict[str, Any]:
    """Everything in `isa` as plain JSON values, without the spec's text and lines."""
    document = asdict(isa)
    # Texts and lines are where the file is; a document says what the machine is.
    document.pop("spec_text")
    document.pop("places")
    if isa.commands is not None:  # syntax trees are no JSON; the meanings' text is there
        for command in document["commands"]["commands"]:
            command["kind"] = command.pop("acts")["kind"]
    return document


def show(isa: Isa) -> str:
    """Memories, micro-op, instructions with their fields, limits and costs, one item a line."""
    if isa.commands is not None:
        return _show_commands(isa, isa.commands)
    if isa.program is not None:
        return _show_source(isa, isa.program)
    sizes = " ".join(f"{k}={v}" for k, v in isa.config.items())
    lines = [
        f"{isa.name} {isa.config_name}" + (f"  ({isa.source})" if isa.source else ""),
        f"  configuration  {sizes}",
        f"  dimensions     {' '.join(f'{d}={n}' for d, n in isa.dims.items())}",
        f"  queues         {' -> '.join(isa.queues)}",
        "memories (elements)",
        *(f"  {_memory(isa, m)}" for m in isa.memories),
        f"micro-op of {isa.uop_memory}: {_fields(isa.uop_fields)}",
        "instructions",
    ]
    for i in isa.instructions:
        queue = f", {i.queue}" if i.queue else ""
        lines.append(f"  {i.name} (opcode {i.opcode}, {i.kind}{queue})")
        lines.append(f"    bits  {_fields(i.fields)}")
        if i.statement:
            lines.append(f"    does  {i.statement}")
        if i.ops:
            ops = [f"{o.name}={o.code}{'' if o.portable else ' (not portable)'}" for o in i.ops]
            lines.append(f"    ops   {', '.join(ops)}")
    limits = " ".join(f"{k}={v}" for k, v in asdict(isa.limits).items())
    lines.append(f"limits  {limits}")
    for name, costs in isa.costs.items():
        lines.append(f"costs {name}  {' '.join(f'{k}={v:g}' for k, v in costs.items())}")
    return "\n".join(lines)


def _show_commands(isa: Isa, machine: CommandMachine) -> str:
    """A machine that is fed commands: memories, state, commands with their bits and meanings."""
    words = " ".join(f"{w}:{n}" for w, n in machine.words.items())
    lines = [
        isa.name + (f"  ({isa.source})" if isa.source else ""),
        f"  dimensions     {' '.join(f'{d}={n}' for d, n in isa.dims.items())}",
        f"  control        stream: commands of words {words}, in program order",
        "memories",
        *(
            f"  {m.name:8} {m.rows:,} rows of {m.lanes} {m.dtype}"
            for m in machine.memories.values()
        ),
        f"  tiles          {', '.join(m.name for m in isa.memories)}",
        f"state  {' '.join(machine.state)}",
        "commands",
    ]
    for c in machine.commands:
        fields = " ".join(f"{k}={b.word}[{b.lo}:{b.lo + b.width}]" for k, b in c.fields.items())
        lines.append(f"  {c.name:20} {c.acts.kind:9} {fields}".rstrip())
    costs = " ".join(f"{k}={v:g}" for k, v in machine.costs.items())
    return "\n".join([*lines, f"costs  {costs}"])


def _show_source(isa: Isa, program: SourceMachine) -> str:
    """A machine that runs C: register files, caches, templates with their meanings and rates."""
    lines = [
        isa.name + (f"  ({isa.source})" if isa.source else ""),
        f"  dimensions     {' '.join(f'{d}={n}' for d, n in isa.dims.items())}",
        "  control        source: C loops around templates, in program order",
        f"  needs          {' '.join(program.features)} of the CPU; {' '.join(program.flags)}",
        *(f"  registers      {f.name}: {f.count} of {f.ctype}" for f in program.files.values()),
        *(f"  cache          {c.size:,} bytes, {c.bytes_per_cycle:g} a cycle"
          for c in program.caches),
        "memories",
        *(f"  {m.name:8} in {program.file_of[m.name]}, "
          f"{' x '.join(f'{d}={isa.dims[d]}' for d in m.lanes) or '1'} {m.dtype}"
          for m in isa.memories),
        "templates (a cycle, latency)",
    ]  # fmt: skip
    for t in program.templates:
        meaning = " ".join(t.meaning.split())
        lines.append(f"  {t.name:10} {t.per_cycle:g}, {t.latency:g}  {t.kind:9} {meaning}")
    return "\n".join(lines)


def _memory(isa: Isa, m: Memory) -> str:
    lanes = " x ".join(f"{d}={isa.dims[d]}" for d in m.lanes) or "1"
    kind = m.dtype if m.dtype == m.dram_dtype else f"{m.dtype} ({m.dram_dtype} in DRAM)"
    parts = [f"{m.name:8} id {m.id}  {m.depth:6} of {m.elem_bytes:5} bytes  {lanes} {kind}"]
    if m.load_queue:
        parts.append(f"loaded by {m.load_queue}")
    if m.store_queue:
        parts.append(f"stored by {m.store_queue}")
    if m.shadow_of:
        parts.append(f"shadow of {m.shadow_of}")
    if m.alias_of:
        parts.append(f"another id of {m.alias_of}")
    if m.portable_depth < m.depth:
        parts.append(f"portable depth {m.portable_depth}")
    if not m.portable:
        parts.append("not portable")
    return ", ".join(parts)


def _fields(fields: tuple[Any, ...]) -> str:
    # In the order of the bits, as a data sheet has them; gaps say nothing.
    known = sorted((f for f in fields if not f.unused), key=lambda f: f.lo)
    return " ".join(f"{f.name}[{f.lo}+{f.width}{' signed' if f.signed else ''}]" for f in known)
