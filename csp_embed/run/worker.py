"""A CPU device: a process pinned to one core that runs parts on request.

Messages in: ("load", part, path), ("run", part, feeds), ("measure", part, feeds, runs, warm_ups,
clock), ("stop",). Messages out: ("loaded", part),
("done", part, outputs), ("measured", part, ms), ("error", text). A part is measured in a loop on
equal inputs, as the layers of a profile are; the transfer is not in it.
"""

from __future__ import annotations

import os
from functools import partial
from multiprocessing.connection import Connection
from typing import Any


def serve(pipe: Connection, core: int | None, threads: int) -> None:
    """The process's whole life."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    from csp_embed.errors import CspEmbedError
    from csp_embed.network.profile import measure
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
                elif message[0] == "run":
                    _, part, feeds = message
                    pipe.send(("done", part, run_once(sessions[part], feeds)))
                else:
                    _, part, feeds, runs, warm_ups, clock = message
                    session = sessions[part]
                    ms, _ = measure(partial(session.run, None, feeds), runs, warm_ups, clock)
                    pipe.send(("measured", part, ms))
            except CspEmbedError as error:
                pipe.send(("error", error.render()))
            except Exception as error:
                if not type(error).__module__.startswith("onnxruntime"):
                    raise
                pipe.send(("error", f"{type(error).__name__}: {error}"))
    except (EOFError, KeyboardInterrupt):
        return  # the parent is gone, or both were told to stop


def run_once(session: Any, feeds: dict[str, Any]) -> dict[str, Any]:
    """Outputs by name."""
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))
