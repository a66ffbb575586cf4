"""Options that a user wrote, and the refusal of those that the chosen way of running ignores.

No option is taken and then without effect: who gives one wants something of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import typer

from csp_embed.errors import InputError


def given_options(context: typer.Context) -> dict[str, str]:
    """Parameter name -> option as typed, for those that stand on the command line."""
    # Every parameter, whatever its default.
    out: dict[str, str] = {}
    for parameter in context.command.params:
        name = parameter.name or ""
        source: Any = context.get_parameter_source(name)
        # Not from a default or the environment: only what somebody wrote.
        if source is not None and source.name == "COMMANDLINE":
            # The long form is what `--help` shows.
            spelled = [o for o in parameter.opts if o.startswith("--")] or parameter.opts
            out[name] = spelled[0]
    return out


def refuse_ignored(
    context: typer.Context, ignored: Iterable[str], mode: str, *, why: str = "", hint: str = ""
) -> None:
    """Raises: InputError for the first of `ignored` (parameter names) that was given. mode: what
    makes it one without effect, as the user wrote it."""
    given = given_options(context)
    # The first one is enough: the user mends one after the other.
    for name in ignored:
        if name in given:
            raise InputError(
                f"{given[name]} has no effect with {mode}",
                why=why,
                # A mode is an option, or what the file is: only the first can be left out.
                hint=hint
                or f"leave out {given[name]}" + (f" or {mode}" if mode.startswith("--") else ""),
            )


def refuse_each(context: typer.Context, ignored: Mapping[str, str]) -> None:
    """The same for options that different modes make so. ignored: parameter name -> mode."""
    for name, mode in ignored.items():
        refuse_ignored(context, (name,), mode)
