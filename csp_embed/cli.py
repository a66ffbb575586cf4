"""The command line: collects the subcommands of `commands/`, turns errors into messages and exit
codes.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
from typing import Any

import typer

from csp_embed.errors import CspEmbedError

# In the order of `--help`. A module that is missing here has no command (tests/unit/test_cli.py).
GROUPS = ("compile", "simulate", "inspect", "isa", "deepbench", "model", "partition", "serve")

app = typer.Typer(
    name="csp-embed",
    help="Compiles tensor operators for accelerators by constraint solving, simulates, partitions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register_all() -> None:
    """Adds every group's commands to `app`, once."""
    if app.registered_commands:
        return
    for group in GROUPS:
        importlib.import_module(f"csp_embed.commands.{group}").register(app)


def main() -> None:
    """Runs the command line; never returns."""
    as_json = "--json" in sys.argv
    interrupts: list[int] = []
    _watch_interrupts(interrupts)
    try:
        register_all()
        # Not by app(): Typer would catch interrupts and broken pipes in its own way.
        command = typer.main.get_command(app)
        with command.make_context("csp-embed", sys.argv[1:]) as context:
            command.invoke(context)
        code = 0
        sys.stdout.flush()
    except CspEmbedError as error:
        _fail(error.render(), as_json, error_document(error))
        code = error.exit_code
    except typer.Exit as stop:
        code = stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = _interrupted(as_json)
    except BrokenPipeError:
        # `| head`: nothing is wrong; Python would complain again while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:  # noqa: BLE001 - the last resort: a bug report, not a trace
        if interrupts:  # Native modules turn an interrupted import into errors of their own.
            code = _interrupted(as_json)
        elif hasattr(error, "format_message"):  # click's usage errors
            code = _usage(error, as_json)
        else:
            sys.stderr.write(
                "error[bug]: this is our mistake, not yours; please report it with these lines\n"
            )
            sys.excepthook(*sys.exc_info())
            if as_json:
                sys.stdout.write(json.dumps({"error": "bug", "what": repr(error)}) + "\n")
            code = 1
    # The work is done: an interrupt from here on would only spoil the exit code.
    _on_interrupt(signal.SIG_IGN)
    sys.stdout.flush()
    sys.exit(code)


def error_document(error: CspEmbedError) -> dict[str, Any]:
    """The JSON form of an error."""
    return {
        "error": error.kind,
        "what": error.what,
        "where": error.where,
        "why": error.why,
        "try": error.hint,
    }


def _watch_interrupts(seen: list[int]) -> None:
    """Ctrl-C raises KeyboardInterrupt as always, and leaves a mark where that gets lost."""

    def interrupt(number: int, frame: Any) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    _on_interrupt(interrupt)


def _on_interrupt(handler: Any) -> None:
    """Only the main thread of a process may set it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handler)


def _interrupted(as_json: bool) -> int:
    _fail("stopped: Ctrl-C; finished results are kept", as_json, {"error": "interrupted"})
    return 130


def _usage(error: Any, as_json: bool) -> int:
    """Reports what click refuses; a call without arguments has got its help already."""
    text = error.format_message()
    if text or as_json:
        context = getattr(error, "ctx", None)
        known = {c.name for c in app.registered_commands} & set(sys.argv[1:2])
        path = context.command_path if context is not None else " ".join(["csp-embed", *known])
        refusal = CspEmbedError(text or "there is no command", hint=f"{path} --help")
        refusal.kind = "usage"
        _fail(refusal.render(), as_json, error_document(refusal))
    return 2


def _fail(text: str, as_json: bool, document: dict[str, Any]) -> None:
    sys.stderr.write(text + "\n")
    if as_json:
        sys.stdout.write(json.dumps(document) + "\n")
