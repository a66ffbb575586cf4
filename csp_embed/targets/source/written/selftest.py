"""A `main` that checks a kernel on data that is part of the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from csp_embed.ir.operator import Operator
from csp_embed.machine.spec import Isa
from csp_embed.targets.source.written.emit import CFile, literals
from csp_embed.targets.source.written.text import CTYPES

Array = NDArray[Any]


def main_text(file: CFile, op: Operator, tensors: Mapping[str, Array], isa: Isa) -> str:
    """tensors: all arguments, and the result that is expected under its name. The main prints the
    first difference and returns 1, or returns 0."""
    assert isa.program is not None
    out = op.out.tensor
    # Each tensor once, though packing and kernel may both read it.
    inputs = [t for t in dict.fromkeys((*file.prepared, *file.arguments)) if t != out]
    ctype = CTYPES[op.out_dtype]
    size = tensors[out].size
    lines = ["", "#include <stdio.h>"]
    for n, t in enumerate(inputs):
        lines += [f"static const {CTYPES[op.tensors[t].dtype]} input_{n}[] = {{",
                  *literals(tensors[t], "  "), "};"]  # fmt: skip
    lines += [f"static const {ctype} expected_values[] = {{", *literals(tensors[out], "  "), "};"]
    # Static: large arrays do not fit a stack.
    lines += [f"static {ctype} result_values[{size}];"]
    for kind, there in (("packed", file.packed), ("work", file.work)):
        if there:
            lines.append(f"static {file.name}_{kind}_t {kind}_area;")
    of = {t: f"input_{n}" for n, t in enumerate(inputs)} | {out: "result_values"}
    lines += ["", "int main(void) {"]
    arguments = [of[t] for t in file.arguments[:-1]]
    if file.packed:
        given = ", ".join([*(of[t] for t in file.prepared), "&packed_area"])
        lines.append(f"  {file.name}_pack({given});")
        arguments.append("&packed_area")
    if file.work:
        arguments.append("&work_area")
    # Twice: a run must not depend on what an earlier one left in the work area.
    call = f"  {file.name}({', '.join([*arguments, of[out]])});"
    lines += [call, call,
              f"  for (int i = 0; i < {size}; i++)",
              "    if (result_values[i] != expected_values[i]) {",
              '      printf("value %d is %d, expected %d\\n", i, (int)result_values[i],'
              " (int)expected_values[i]);",
              "      return 1;", "    }",
              f'  puts("{size} values are as expected");', "  return 0;", "}", ""]  # fmt: skip
    return "\n".join(lines)
