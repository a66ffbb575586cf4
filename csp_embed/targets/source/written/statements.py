"""A nest as C statements: loops, registers declared, templates with their operands filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping

from csp_embed.errors import SpecError
from csp_embed.machine.spec import Isa
from csp_embed.targets.source.nest import Address, Block, Clamp, Keep, Loop, Node, Sum
from csp_embed.targets.source.written.text import affine

# How GNU assembler statements call the registers of a C type.
# Only these can be pinned: another letter would be wrong for vectors.
CONSTRAINTS = {"__m512i": "v", "__m256i": "v", "__m128i": "v", "int32x4_t": "w"}


def statements(
    nodes: tuple[Node, ...], isa: Isa, indent: str, numbers: Mapping[str, int] | None = None
) -> list[str]:
    """numbers: of registers that templates name by number."""
    machine = isa.program
    assert machine is not None
    numbers = numbers or {}
    lines: list[str] = []
    for node in nodes:
        if isinstance(node, Loop):
            head = f"for (ptrdiff_t {node.var} = 0; {node.var} < {node.count}; {node.var}++)"
            lines += [f"{indent}ROLLED"] if node.rolled else []
            lines.append(f"{indent}{head} {{")
            lines += [*statements(node.body, isa, indent + "  ", numbers), f"{indent}}}"]
        elif isinstance(node, Block):
            lines.append(f"{indent}{{")
            # One declaration for each type, in the order in which registers appear.
            by_type: dict[str, list[str]] = {}
            for memory, name in node.registers:
                if not machine.file(memory).numbered:
                    by_type.setdefault(machine.ctypes[memory], []).append(name)
            lines += [f"{indent}  {t} {', '.join(names)};" for t, names in by_type.items()]
            own = numbered(node, isa)
            lines += [*statements(node.body, isa, indent + "  ", own), f"{indent}}}"]
        elif isinstance(node, Keep):
            ctype = machine.ctypes[node.memory]
            # Only types whose constraint is known can be pinned.
            if ctype in CONSTRAINTS:
                kept = [f"KEEP({name})" for name in node.names]
                rows = [", ".join(kept[n : n + 6]) for n in range(0, len(kept), 6)]
                lines += [f"{indent}{row.replace(', ', '; ')};" for row in rows]
        else:
            template = machine.template(node.template)
            operands = {
                k: str(numbers[v]) if isinstance(v, str) and v in numbers else _value(v)
                for k, v in node.operands.items()
            }
            text = template.text.format(**operands).rstrip()
            lines += [indent + line for line in _scoped(text).split("\n")]
    return lines


# Two names side by side at the beginning of a statement: a type and what is declared.
_DECLARES = re.compile(r"(?:^|[;{}])\s*(?!return\b|else\b|goto\b|case\b)"
                       r"(?:[A-Za-z_]\w*\s+\**\s*[A-Za-z]|[A-Za-z_]\w*\s*\*+\s*[A-Za-z]\w*\s*[=;,]"
                       r"|(?:__)?typeof)", re.MULTILINE)  # fmt: skip


def _scoped(text: str) -> str:
    """The text, in a block of its own where it declares variables: it may stand twice in one."""
    whole = text.strip()
    # Most specs write the block themselves.
    if (whole.startswith("{") and whole.endswith("}")) or not _DECLARES.search(text):
        return text
    # A template of several lines keeps them.
    return f"{{ {text} }}" if "\n" not in text else f"{{\n{text}\n}}"


def numbered(block: Block, isa: Isa) -> dict[str, int]:
    """Register -> its number, of those that templates name by number: in order, aligned to what a
    value takes."""
    assert isa.program is not None
    found: dict[str, int] = {}
    used: dict[str, int] = {}
    for memory, name in block.registers:
        # Wide values begin at multiples of their size, as register groups must.
        file, size = isa.program.file(memory), isa.program.takes.get(memory, 1)
        if file.numbered:
            first = -(-used.get(file.name, 0) // size) * size
            found[name], used[file.name] = first, first + size
            if used[file.name] > file.count:
                raise SpecError(
                    f"{isa.name} has too few registers of {file.name}",
                    where=isa.where(f"registers.{file.name}"),
                    why=f"a part of the kernel takes {used[file.name]}, and nothing spills them:"
                    " templates name them by number",
                    hint="raise `count`, or convert sums to a memory of variables",
                )
    return found


def _value(value: object) -> str:
    match value:
        case Address(buffer, at):
            return f"({buffer} + {_sum(at)})" if at != Sum() else buffer
        case Clamp(at, most):
            return f"lanes_left({_sum(at)}, {most})"
        case int():
            text = "INT32_MIN" if value == -(2**31) else str(value)
            # In parentheses: templates put operands into any expression.
            return f"({text})" if value < 0 else text
    return str(value)


def _sum(at: Sum) -> str:
    return affine(at.const, [(c, v) for v, c in at.terms])
