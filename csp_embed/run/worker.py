"""A CPU device's process: it runs parts on request.

Messages in: ("load", part, path, form), ("run", part, feeds), ("measure", part, feeds, runs,
warm_ups, clock), ("stop",). Messages out: ("loaded", part), ("done", part, outputs, ms),
("measured", part, ms), ("error", text). A part is measured in a loop on equal inputs, as the
layers of a profile are; the transfer is not in it.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
from multiprocessing.connection import Connection, wait
from time import perf_counter
from typing import Any


def serve(pipe: Connection, core: int | None, threads: int, provider: str | None) -> None:
    """The process's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when a worker ends
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # held while it was started
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    from csp_embed.errors import CspEmbedError

    sessions: dict[int, Any] = {}
    try:
        while True:
            # One message at a time: the parent asks and waits.
            message = pipe.recv()
            if message[0] == "stop":
                return
            try:
                answer = _answer(message, sessions, threads, provider)
            except CspEmbedError as error:
                answer = ("error", error.render())
            except MemoryError:
                answer = ("error", "out of memory")
            pipe.send(answer)
    except (EOFError, OSError):
        # The answer could not be sent: nobody waits for it.
        return  # the parent is gone


def _answer(
    message: tuple[Any, ...], sessions: dict[int, Any], threads: int, provider: str | None
) -> tuple[Any, ...]:
    from csp_embed.network.onnx.runtime import open_session, run_call, run_session
    from csp_embed.network.profiles.measure import measure

    kind, part = message[:2]
    if kind == "load":
        sessions.pop(part, None)  # before the new one is made: memory
        sessions[part] = open_session(
            message[2], f"part {part}", threads, form=message[3], provider=provider
        )
        return ("loaded", part)
    session, where = sessions[part], f"part {part}"
    if kind == "run":
        # perf_counter here: the pipe's time is not the part's.
        begin = perf_counter()
        outputs = run_once(session, message[2], where)
        return ("done", part, outputs, 1e3 * (perf_counter() - begin))
    feeds, runs, warm_ups, clock = message[2:]
    run_session(session, None, feeds, where)  # a refusal has its own error here
    ms, _ = measure(run_call(session, feeds), runs, warm_ups, clock)
    return ("measured", part, ms)


def run_once(session: Any, feeds: dict[str, Any], where: str) -> dict[str, Any]:
    """Outputs by name."""
    from csp_embed.network.onnx.runtime import run_session

    # Names of the session, so that its outputs need not be in the plan's order.
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, run_session(session, names, feeds, where), strict=True))


def _end_with_parent() -> None:
    """A worker in the middle of a long run would outlive a killed parent by minutes."""
    parent = mp.parent_process()
    if parent is not None:
        # At once: an orderly end would wait for what still runs.
        wait([parent.sentinel])
        os._exit(1)
