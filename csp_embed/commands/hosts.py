"""worker, platform measure: devices on other hosts, and their links."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from csp_embed.commands.common import print_json, say
from csp_embed.commands.planning.options import JsonOption
from csp_embed.errors import InputError
from csp_embed.ir.network import Link

TokenOption = Annotated[
    str | None,
    typer.Option("--token-file", help="File with a secret that both ends know.", metavar="FILE"),
]
WorkersOption = Annotated[
    list[str] | None,
    typer.Option("--worker", help="HOST:PORT of a csp-embed worker; repeatable."),
]
# Addresses that only this host reaches.
_LOOPBACK = ("127.", "localhost", "::1")


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command("worker")(worker_command)
    platform = typer.Typer(
        name="platform", help="Platform files from measurements.", no_args_is_help=True
    )
    platform.callback()(lambda: None)  # a group also with one command
    platform.command("measure")(measure_command)
    app.add_typer(platform)


def worker_command(
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 takes a free one.")],
    device: Annotated[str, typer.Option(help="Which device of the platform this is.")],
    provider: Annotated[
        str | None, typer.Option(help="Execution provider of onnxruntime; the CPU's unless given.")
    ] = None,
    core: Annotated[int | None, typer.Option(min=0, help="Pin to this core.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of onnxruntime.")] = 1,
    token_file: TokenOption = None,
    once: Annotated[bool, typer.Option("--once", help="End with the first coordinator.")] = False,
) -> None:
    """Run the parts of plans that another host's run-plan sends: ONNX by onnxruntime.

    csp-embed worker --listen 0.0.0.0:7070 --device gpu0 --provider CUDAExecutionProvider
    --token-file secret.txt
    """
    # Here, not above: sockets and onnxruntime are for workers only.
    from csp_embed.run.hosts.serve import Settings
    from csp_embed.run.hosts.serve import listen as serve

    # From the right: addresses of IPv6 have colons of their own.
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"--listen {listen}: expected HOST:PORT", hint="--listen 127.0.0.1:7070")
    token = read_token(token_file)
    # Whoever reaches the port could run models: only this host may without a secret.
    if not token and not host.strip("[]").startswith(_LOOPBACK):
        raise InputError(
            f"--listen {listen} without --token-file",
            why="whoever reaches that address could run models here",
            hint="--token-file FILE with the same secret on both ends, or --listen 127.0.0.1:7070",
        )
    if core is not None:
        _pin(core)
    serve(
        host.strip("[]"), int(port), Settings(device, provider, threads, token),
        lambda text: print(text, flush=True), once,
    )  # fmt: skip


def _pin(core: int) -> None:
    if not hasattr(os, "sched_setaffinity"):
        raise InputError("--core: this system pins no processes", hint="leave it out")
    # A process may be confined to some cores already.
    free = os.sched_getaffinity(0)
    if core not in free:
        raise InputError(
            f"--core {core}: not a core of this process",
            why=f"it may use {sorted(free)}",
            hint=f"--core {min(free)}",
        )
    # This process only.
    os.sched_setaffinity(0, {core})


def read_token(path: str | None) -> str:
    """The secret in a file; "" for none. Raises: InputError."""
    from csp_embed.network.files.schema import read_bytes

    if path is None:
        return ""
    try:
        # Without the line's end, which editors add.
        token = read_bytes(path).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise InputError(
            "not a text file",
            where=path,
            why=str(error),
            hint="the token is one line of text; openssl rand -hex 16 > FILE makes one",
        ) from error
    # Short secrets are guessed.
    if len(token) < 16:
        raise InputError(
            "the token is too short", where=path, why=f"{len(token)} characters, 16 at least",
            hint="head -c 24 /dev/urandom | base64 > FILE",
        )  # fmt: skip
    return token


def measure_command(
    platform: Annotated[str, typer.Argument(help="Platform file with the links to measure.")],
    output: Annotated[str, typer.Option("-o", "--output", help="New platform file.")],
    worker: WorkersOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the links between workers: a copy of the platform file with true rates, latencies.

    Every device that starts a worker is reached from here; the host's own device counts as here.
    """
    from csp_embed.files import check_outputs
    from csp_embed.network.files.platform import find_platform, read_platform
    from csp_embed.network.files.schema import read_document
    from csp_embed.run.hosts.client import connect
    from csp_embed.run.hosts.links import measured_links

    # Before any worker is asked.
    check_outputs((output, (".yaml", ".yml", ".json")), reads=(platform,))
    if not worker:
        raise InputError("no workers given", hint="--worker HOST:PORT for each of them")
    path = find_platform(platform)
    known = read_platform(path)
    # Open connections are closed whatever comes.
    workers = connect(worker, read_token(token_file))
    try:
        # A worker may announce a device that the file does not have.
        strange = [d for d in workers if d not in known.by_name()]
        if strange:
            raise InputError(
                f"{path} has no device {strange[0]!r}",
                where=workers[strange[0]].address,
                hint="devices are " + ", ".join(known.by_name()),
            )
        links = measured_links(known, workers, known.host.device)
    finally:
        # A worker serves one coordinator: it must be let go.
        for one in workers.values():
            one.close()
    _write(Path(output), read_document(path)[0], known.links, links)
    if as_json:
        print_json({"platform": output, "links": [_row(link) for link in links]})
        return
    before = {link.between: link for link in known.links}
    for link in links:
        old = before[link.between]
        say(
            f"{link.name}: {link.bytes_per_ms:.4g} bytes/ms ({old.bytes_per_ms:.4g} before), "
            f"{link.latency_ms:.4g} ms ({old.latency_ms:.4g})"
        )
    say(f"wrote {output}")


def _write(path: Path, document: dict[str, Any], every: Any, measured: Any) -> None:
    """The same platform with its links one by one, those measured with their new figures."""
    import json

    import yaml

    from csp_embed.files import atomic

    new = {link.between: link for link in measured}
    # Links inside servers stand for several links at once.
    inside = {
        (f"{a}", f"{b}")
        for server in document.get("servers") or ()
        for a, b in (link["between"] for link in server.get("links") or ())
    }
    if inside:
        raise InputError(
            "links inside servers cannot be rewritten",
            where=str(path),
            hint="write them at the top level of the file: node0.gpu0 is a name there",
        )
    # All links one by one: what was measured differs from link to link.
    document = {**document, "links": [_row(new.get(link.between, link)) for link in every]}
    with atomic(path) as file:
        if path.suffix == ".json":
            json.dump(document, file, indent=1)
        else:
            yaml.safe_dump(document, file, sort_keys=False, width=100)


def _row(link: Link) -> dict[str, Any]:
    """A measured link's row; what its noise makes meaningless is cut off."""
    from csp_embed.network.files.graph import link_row

    def short(x: float | None) -> float | None:
        return None if x is None else float(f"{x:.4g}")

    return link_row(
        replace(
            link,
            bytes_per_ms=float(f"{link.bytes_per_ms:.6g}"),
            latency_ms=float(f"{link.latency_ms:.4g}"),
            handling=link.handling
            and tuple(
                replace(end, ms=float(f"{end.ms:.4g}"), bytes_per_ms=short(end.bytes_per_ms))
                for end in link.handling
            ),
        )
    )
