"""The command line: collects the subcommands of `commands/`, turns errors into messages and exit
codes.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import time
from contextlib import suppress
from typing import Annotated, Any

import typer

from csp_embed import __version__
from csp_embed.errors import CspEmbedError, InputError
from csp_embed.interrupts import Interrupts
from csp_embed.report.text_table import fit
from csp_embed.streams import Guarded, open_missing

# In the order of `--help`. A module that is missing here has no command (tests/unit/test_cli.py).
GROUPS = (
    "compile", "simulate", "inspect", "certify", "isa", "deepbench", "build", "model", "partition",
    "hosts", "serve",
)  # fmt: skip

app = typer.Typer(
    name="csp-embed",
    help="Compiles tensor operators for accelerators by constraint solving, simulates, partitions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"csp-embed {__version__}")
        raise typer.Exit


@app.callback()
def _before_any_command(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print it and exit."),
    ] = False,
) -> None:
    """The options of csp-embed itself."""


def register_all() -> None:
    """Adds every group's commands to `app`, once."""
    if app.registered_commands:
        return
    for group in GROUPS:
        importlib.import_module(f"csp_embed.commands.{group}").register(app)


def main() -> None:
    """Runs the command line; never returns."""
    begun = time.monotonic()
    closed = open_missing()
    if "_CSP_EMBED_COMPLETE" in os.environ:  # A shell asks what could come next.
        register_all()
        app(prog_name="csp-embed")
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # A locale without the multiplication sign shows "?".
            reconfigure(errors="replace")
    as_json = "--json" in sys.argv
    before = sys.stdout, sys.stderr
    output = Guarded(sys.stdout)
    sys.stdout, sys.stderr = output, Guarded(sys.stderr, quiet=True)
    # These two keep their best plan on an interrupt, which takes a while; nothing else does.
    grace = 30.0 if {"partition", "serve"} & set(sys.argv[1:2]) else 1.5
    interrupts = Interrupts(grace, lambda: _tell_interrupted(as_json))
    interrupts.start()
    try:
        if closed:
            raise InputError(
                "standard output is closed",
                why="results have nowhere to go",
                hint="redirect it to a file, or to /dev/null: >/dev/null",
            )
        code = _run(as_json, interrupts)
        interrupts.ignore()
        sys.stdout.flush()
    except CspEmbedError as error:
        code = _fail(error, as_json and not closed)
    except OSError as error:
        # `_run` lets pass only what standard output itself raised.
        code = 0 if output.broken_pipe else _fail(_no_output(error), False)
    finally:
        interrupts.ignore()
        interrupts.stop()
        sys.stdout, sys.stderr = before
    searches = sys.modules.get("csp_embed.partition.supervise")  # Too heavy to import for `--help`.
    stopped = interrupts.seen and searches is not None and searches.ran_since(begun)
    if searches is not None and (stopped or searches.left_behind()):
        # A search that was left behind at its limit still uses native code, and a signal may have
        # come while a solver's threads were starting: tearing that down under them would end in a
        # crash, waiting for it would break the limit.
        for stream in before:
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _run(as_json: bool, interrupts: Interrupts) -> int:
    """The command of sys.argv: its exit code. Raises: OSError of standard output."""
    output = sys.stdout
    assert isinstance(output, Guarded)
    try:
        register_all()
        # Not by app(): Typer would catch interrupts and broken pipes in its own way.
        command = typer.main.get_command(app)
        with command.make_context("csp-embed", sys.argv[1:]) as context:
            command.invoke(context)
        return 0
    except CspEmbedError as error:
        return _fail(error, as_json)
    except typer.Exit as stop:
        return stop.exit_code
    except SystemExit as stop:
        if output.error is not None:  # Rich's answer to a broken pipe.
            raise output.error from stop
        # 130 is what code says that kept its best on an interrupt, whichever it was.
        return interrupts.exit_code if stop.code == 130 else int(stop.code or 0)
    except (KeyboardInterrupt, typer.Abort):
        _tell_interrupted(as_json)
        return interrupts.exit_code
    except Exception as error:
        if output.error is not None:
            raise output.error from error
        if interrupts.seen:  # Native modules turn an interrupted import into errors of their own.
            _tell_interrupted(as_json)
            return interrupts.exit_code
        if hasattr(error, "format_message"):  # click's usage errors
            return _usage(error, as_json)
        sys.stderr.write(
            "error[bug]: this is our mistake, not yours; please report it with these lines\n"
        )
        sys.excepthook(type(error), error, error.__traceback__)
        if as_json:
            sys.stdout.write(json.dumps({"error": "bug", "what": repr(error)}) + "\n")
        return 1


def error_document(error: CspEmbedError) -> dict[str, Any]:
    """The JSON form of an error."""
    return {
        "error": error.kind,
        "what": error.what,
        "where": error.where,
        "why": error.why,
        "try": error.hint,
    }


def _no_output(error: OSError) -> InputError:
    return InputError(
        "cannot write standard output",
        why=error.strerror or str(error),
        hint="redirect it to a file on a disk with space",
    )


def _tell_interrupted(as_json: bool) -> None:
    sys.stderr.write("stopped: Ctrl-C, SIGTERM or SIGHUP; finished results are kept\n")
    if as_json:
        sys.stdout.write(json.dumps({"error": "interrupted"}) + "\n")
        sys.stdout.flush()


def _usage(error: Any, as_json: bool) -> int:
    """Reports what click refuses; a call without arguments has got its help already."""
    text = error.format_message()
    if text or as_json:
        context = getattr(error, "ctx", None)
        names = {c.name for c in app.registered_commands}
        known = [a for a in sys.argv[1:2] if a in names]
        path = context.command_path if context is not None else " ".join(["csp-embed", *known])
        refusal = CspEmbedError(text or "there is no command", hint=f"{path} --help")
        refusal.kind = "usage"
        return _fail(refusal, as_json)
    return 2


def _fail(error: CspEmbedError, as_json: bool) -> int:
    columns = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
    sys.stderr.write(fit(error.render(), columns) + "\n")
    if as_json:
        sys.stdout.write(json.dumps(error_document(error)) + "\n")
    return error.exit_code
