"""The arguments that name an operator, a machine and pins, shared by every command that takes them.

They are declared once, by `csp-embed compile`; `with_operator` gives them to other commands.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from csp_embed.commands.compile import compile_command
from csp_embed.commands.compiling import request
from csp_embed.ir.operator import Operator

if TYPE_CHECKING:
    from csp_embed.compiler.request.options import Options
    from csp_embed.machine.spec import Isa


# What names an operator, a machine and pins: declared by `compile`, used by all.
SHARED = (
    "what", *request.PLAIN, *request.LISTED, *request.FLAGS, "tensor_layout", "shape", "step",
    "isa", "vta_config", "memory", "layout", "fix", "forbid",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What the shared arguments say."""

    op: Operator
    isa: Isa
    options: Options


def with_operator(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose first parameter is an `Asked`, as typer wants it: with all shared arguments
    before its own options."""
    # With extras: Annotated carries what typer shows.
    hints = get_type_hints(compile_command, include_extras=True)
    shared = [p for n, p in inspect.signature(compile_command).parameters.items() if n in SHARED]
    own_hints = get_type_hints(command, include_extras=True)
    # Without the first, which is the Asked itself.
    own = list(inspect.signature(command).parameters.values())[1:]

    def run(**given: Any) -> None:
        # Own options are taken out first; what is left is shared.
        mine = {p.name: given.pop(p.name) for p in own}
        command(asked(given), **mine)

    parameters = [p.replace(annotation=hints[p.name]) for p in shared]
    parameters += [p.replace(annotation=own_hints[p.name]) for p in own]
    # Those without a default, such as the context, come first, as in any signature.
    parameters.sort(key=lambda p: p.default is not inspect.Parameter.empty)
    # typer reads signature, annotations, text and name: all must be the command's.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__doc__, run.__name__ = command.__doc__, command.__name__
    return run


def asked(given: dict[str, Any]) -> Asked:
    """Raises: OperatorError, SpecError, InputError."""
    from csp_embed.compiler.request.arguments import fitted
    from csp_embed.compiler.request.options import Options
    from csp_embed.machine.load import load_isa

    op = request.from_options(given["what"], given["shape"] or [], given["step"] or [], given)
    # As `compile` reads them.
    mode, pins = request.pins(given["layout"] or [], given["fix"] or [], given["forbid"] or [])
    isa = load_isa(given["isa"], given["vta_config"])
    return Asked(fitted(op, isa), isa, Options(layout=mode, memory=given["memory"], pins=pins))
