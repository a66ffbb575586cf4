"""A CPU device: a process pinned to one core that runs parts on request.

Messages in: ("load", part, path), ("run", part, feeds), ("stop",). Messages out: ("loaded", part),
("done", part, outputs, ms), ("error", text). Times are of the model alone, without the transfer.
"""

from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection
from typing import Any


def serve(pipe: Connection, core: int | None, threads: int) -> None:
    """The process's whole life."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    from csp_embed.errors import CspEmbedError
    from csp_embed.network.runtime import open_session

    sessions: dict[int, Any] = {}
    try:
        while True:
            message = pipe.recv()
            if message[0] == "stop":
                return
            try:
                if message[0] == "load":
                    _, part, path = message
                    sessions[part] = open_session(path, f"part {part}", threads)
                    pipe.send(("loaded", part))
                else:
                    _, part, feeds = message
                    pipe.send(("done", part, *run_once(sessions[part], feeds)))
            except CspEmbedError as error:
                pipe.send(("error", error.render()))
            except Exception as error:
                if not type(error).__module__.startswith("onnxruntime"):
                    raise
                pipe.send(("error", f"{type(error).__name__}: {error}"))
    except (EOFError, KeyboardInterrupt):
        return  # the parent is gone, or both were told to stop


def run_once(session: Any, feeds: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """(outputs by name, ms)."""
    names = [o.name for o in session.get_outputs()]
    begin = time.perf_counter_ns()
    values = session.run(names, feeds)
    ms = (time.perf_counter_ns() - begin) / 1e6
    return dict(zip(names, values, strict=True)), ms
