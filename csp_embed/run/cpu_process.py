"""A CPU device: a worker process pinned to one core, asked over a pipe.

A worker may die at any moment (out of memory, killed). Then the pipe breaks on our side, in a send,
a receive or already in the start: each becomes one `WorkerDied` that names the worker and what it
was doing. The other way round a worker ends itself when this process is gone.
"""

from __future__ import annotations

import multiprocessing as mp
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from csp_embed.errors import InputError, WorkerDied
from csp_embed.network.onnx.runtime import FAST
from csp_embed.run.device_parts import Part
from csp_embed.run.runner import MEASURED, Array, Done, Ran, Timing
from csp_embed.run.turn import Turn
from csp_embed.run.worker import serve

# How long an end is waited for before a worker is killed.
_PATIENCE_S = 5.0


class CpuProcess:
    """A process pinned to one core (or not, where the system cannot).

    device: whose it is. crew: all workers of one run; while one is waited for, the death of another
    ends the wait. provider: an execution provider of onnxruntime instead of the CPU's.
    """

    lanes = 1  # the pipe would block both ends

    def __init__(
        self,
        device: str,
        core: int | None,
        crew: list[CpuProcess],
        threads: int = 1,
        provider: str | None = None,
    ) -> None:
        context = mp.get_context("spawn")  # a fork would inherit onnxruntime's threads
        self.device, self.core, self.crew = device, core, crew
        self.doing = "starting"
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=serve,
            args=(theirs, core, threads, provider),
            daemon=True,
            name=f"worker of {device}",
        )
        try:
            with _signals_held():
                self.process.start()
        except OSError as error:
            raise self._death() from error
        finally:
            # Our copy of their end: with it open, its closing would never be noticed.
            theirs.close()
        crew.append(self)

    def load(self, part: Part, path: Path, form: str = FAST) -> None:
        self._ask(f"loading {part.name}", ("load", part.index, str(path), form))
        self._answer()

    def start(self, part: Part, feeds: Mapping[str, Array]) -> None:
        # Only what it reads: the other tensors need not cross the pipe.
        given = {n: feeds[n] for n in part.reads}
        self._ask(f"running {part.name}", ("run", part.index, given))

    def ready(self, timeout: float) -> bool:
        try:
            return self.pipe.poll(timeout)
        except OSError as error:
            raise self._death() from error

    def finish(self) -> Done:
        _, part, outputs, _ = self._answer()
        return Done(part, outputs)

    def run(self, part: Part, feeds: Mapping[str, Array], turn: Turn | None = None) -> Ran:
        self.start(part, feeds)
        _, _, outputs, ms = self._answer()
        return Ran(outputs, ms)

    def time(self, part: Part, feeds: Mapping[str, Array], timing: Timing) -> tuple[float, str]:
        # A part is measured in its own process: the pipe's time is not in it.
        given = {n: feeds[n] for n in part.reads}
        message = ("measure", part.index, given, timing.runs, timing.warm_ups, timing.clock)
        self._ask(f"measuring {part.name}", message)
        return float(self._answer()[2]), MEASURED

    def close(self) -> None:
        """Ends the worker: kindly where it waits for work, at once where it is in the middle."""
        # It never started: there is nothing to end.
        if self.process.pid is None:
            return
        if self in self.crew:
            # Out of the crew first: its end must not look like a death to the others.
            self.crew.remove(self)
        # "starting" counts as waiting: it reads its pipe as soon as it is up.
        if not self.doing or self.doing == "starting":
            with suppress(OSError):  # it may be gone already
                self.pipe.send(("stop",))
                self.process.join(timeout=_PATIENCE_S)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.pipe.close()

    def _ask(self, doing: str, message: tuple[Any, ...]) -> None:
        # What it was doing when it died is what the user is told.
        starting = self.doing == "starting"
        self.doing = doing
        try:
            self.pipe.send(message)
        except OSError as error:
            self.doing = "starting" if starting else doing
            raise self._death() from error

    def _answer(self) -> Any:
        # The death of any other worker ends this wait: the run is lost then anyway.
        others = {other.process.sentinel: other for other in self.crew if other is not self}
        ready = wait([self.pipe, *others])
        if self.pipe not in ready:
            raise next(other for s, other in others.items() if s in ready)._death()
        try:
            message = self.pipe.recv()
        except (EOFError, OSError) as error:  # OSError: it died in the middle of a message
            raise self._death() from error
        doing, self.doing = self.doing, ""
        if message[0] == "error":
            raise InputError(
                f"the worker of {self.device} failed {doing}",
                where=self.device,
                why=message[1],
                hint="run the model in one piece first: csp-embed profile MODEL",
            )
        return message

    def _death(self) -> WorkerDied:
        """The error for a broken pipe."""
        code = None
        # It may have no exit code yet, as the pipe breaks first.
        if self.process.pid is not None:
            self.process.join(timeout=_PATIENCE_S)
            code = self.process.exitcode
        when = f" while {self.doing}" if self.doing else " while it waited for work"
        return WorkerDied(
            f"the worker of {self.device} died{when}",
            where=f"device {self.device}, process {self.process.pid}, "
            + ("not pinned" if self.core is None else f"core {self.core}"),
            why=_cause(code),
            hint="run the plan again; where memory is short, plan for fewer CPU devices",
        ).of(self.device)


def _cause(code: int | None) -> str:
    if code is None:
        return "its pipe broke"
    # A negative exit code is a signal's number.
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        name = f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        name = f"signal {-code}"
    note = ", which the system sends where memory runs out" if -code == 9 else ""
    return f"it was ended by {name}{note}"


@contextmanager
def _signals_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until a process has got what it needs to start: without that it would
    print a trace of its own. The process inherits the mask and so never sees Ctrl-C: whoever asked
    it decides when it ends."""
    # Systems without POSIX masks start their processes unguarded.
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it sets the same mask when it starts, and unsets it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
