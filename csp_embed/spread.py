"""One function over many items: here, on processes, or on a Dask cluster; results as they end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process, resource_tracker
from typing import Any

from csp_embed.errors import InputError, MissingLibrary, TimeLimit

# A worker that died takes its item with it; so often is an item begun before it is given up.
ATTEMPTS = 2
# What a worker has to end in once it is asked to, before it is killed.
GRACE_SECONDS = 0.5


@dataclass(frozen=True)
class Lost:
    """Stands for the result of an item whose worker died every time. why: how, e.g. signal 9."""

    item: Any
    why: str


def spread(
    call: Callable[[Any], Any],
    items: Sequence[Any],
    jobs: int = 1,
    dask: str | None = None,
    *,
    time_limit: float | None = None,
    tell_death: Callable[[Any, str, bool], None] = lambda item, why, again: None,
) -> Generator[Any, None, None]:
    """Yields call(item) for every item, in the order in which they end.

    call: importable by name (or a partial of such), and it turns errors into results: what it
    raises ends everything. jobs: processes; 1 stays in this one unless there is a limit.
    dask: address of a scheduler; jobs then says nothing. time_limit: seconds of wall clock for all
    items. tell_death: called with (item, why, whether it is begun again) where a worker died; an
    item that is given up yields a `Lost`. Whatever ends the iteration ends the workers.
    Raises: InputError, MissingLibrary; TimeLimit when the limit comes before the last result.
    """
    if jobs < 1:
        raise InputError(f"--jobs {jobs} runs nothing", hint="--jobs 1")
    if time_limit is not None and not time_limit > 0:
        raise InputError(f"--time-limit {time_limit} leaves no time", hint="--time-limit 60")
    if dask is not None:
        yield from _on_dask(call, items, dask, time_limit)
    elif jobs == 1 and time_limit is None:
        for item in items:
            yield call(item)
    else:
        pool = _Pool(call, min(jobs, len(items)))
        try:
            yield from pool.run(items, time_limit, tell_death)
        finally:
            pool.close()


class _Pool:
    """Processes that take one item after the other.

    Not concurrent.futures: there one dead worker loses every item, and running ones cannot be
    ended.
    """

    def __init__(self, call: Callable[[Any], Any], jobs: int) -> None:
        self.call = call
        self.idle = [_Worker(call) for _ in range(jobs)]
        self.busy: list[_Worker] = []

    def run(
        self,
        items: Sequence[Any],
        time_limit: float | None,
        tell_death: Callable[[Any, str, bool], None],
    ) -> Iterator[Any]:
        end = None if time_limit is None else time.monotonic() + time_limit
        todo = [(item, 1) for item in reversed(items)]
        while todo or self.busy:
            while todo and self.idle:
                worker = self.idle.pop()
                self.busy.append(worker)
                worker.begin(*todo.pop())
            left = None if end is None else max(0.0, end - time.monotonic())
            ready = connection.wait([w.connection for w in self.busy], left)
            if not ready:
                raise _limit(time_limit, len(self.busy) + len(todo))
            for worker in [w for w in self.busy if w.connection in ready]:
                self.busy.remove(worker)
                try:
                    good, result = worker.connection.recv()
                except (EOFError, OSError):
                    why = worker.why_dead()
                    again = worker.attempt < ATTEMPTS
                    tell_death(worker.item, why, again)
                    if again:
                        todo.append((worker.item, worker.attempt + 1))
                    self.idle.append(_Worker(self.call))
                    if not again:
                        yield Lost(worker.item, why)
                    continue
                self.idle.append(worker)
                if not good:
                    raise result
                yield result

    def close(self) -> None:
        workers = [*self.idle, *self.busy]
        for worker in workers:
            worker.process.terminate()
        end = time.monotonic() + GRACE_SECONDS
        for worker in workers:
            worker.process.join(max(0.0, end - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()


class _Worker:
    """A process and this side of the pipe to it."""

    item: Any = None
    attempt = 0

    def __init__(self, call: Callable[[Any], Any]) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, call), daemon=True)
        # Ctrl-C reaches the whole group of processes: only the parent may react. The mask is
        # inherited; the tracker, which resets it, must run before.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def begin(self, item: Any, attempt: int) -> None:
        self.item, self.attempt = item, attempt
        with suppress(OSError):  # It is dead: the next wait finds the closed pipe and says so.
            self.connection.send(item)

    def why_dead(self) -> str:
        self.process.join()
        code = self.process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"the process {self.process.pid} died by {how}"


def _serve(pipe: connection.Connection, call: Callable[[Any], Any]) -> None:
    """A worker's life: items in, (True, result) or (False, exception) out."""
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_follow_parent, daemon=True).start()
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            answer = True, call(item)
        except Exception as error:  # noqa: BLE001 (raised again in the parent)
            answer = False, error
        pipe.send(answer)


def _leave(number: int, frame: Any) -> None:
    """By an exception, so that half-written files are removed on the way out."""
    raise SystemExit(128 + number)


def _follow_parent() -> None:
    """A parent that was killed takes its workers with it."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _limit(seconds: float | None, left: int) -> TimeLimit:
    return TimeLimit(
        f"the limit of {seconds:.3g} s came with {left} left",
        hint="give more time, or --resume from what --out kept",
    )


def _on_dask(
    call: Callable[[Any], Any], items: Sequence[Any], address: str, time_limit: float | None
) -> Iterator[Any]:
    try:
        from dask.distributed import Client
        from dask.distributed import as_completed as dask_completed
    except ImportError as error:
        raise MissingLibrary(
            "--dask needs the package distributed", hint="pip install 'csp-embed[dask]'"
        ) from error
    try:
        client = Client(address, timeout=5)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler at {address}", why=str(error), hint="dask scheduler"
        ) from error
    with client:
        futures = client.map(call, items, pure=False)
        done = 0
        try:
            for _, result in dask_completed(futures, with_results=True, timeout=time_limit):
                done += 1
                yield result
        except TimeoutError as error:
            raise _limit(time_limit, len(items) - done) from error
        finally:
            client.cancel(futures)
