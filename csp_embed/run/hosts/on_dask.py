"""Devices that are Dask workers: each announces its device as a resource of its own name.

    dask worker SCHEDULER --resources "gpu0=1" --nthreads 1

Parts travel as bytes once, named by their digest; a worker that restarted is sent them again. Dask
waits for ever for a resource that went away, so whoever waits here also looks whether its worker is
still known to the scheduler.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from csp_embed.errors import CspEmbedError, InputError, MissingLibrary, WorkerDied
from csp_embed.network.onnx.runtime import FAST
from csp_embed.run.device_parts import Part
from csp_embed.run.hosts.wire import digest
from csp_embed.run.runner import MANY, MEASURED, Array, Done, Ran, Timing
from csp_embed.run.turn import Turn

LOOK_S = 1.0  # how often a wait looks for its worker
# In a worker's process: sessions by (digest of the model, form).
_SESSIONS: dict[tuple[str, str], Any] = {}


def clients(address: str) -> tuple[Any, dict[str, DaskRunner]]:
    """(the client, a runner for each resource that exactly one worker announces).

    Raises: MissingLibrary, InputError.
    """
    try:
        from dask.distributed import Client
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
    # -1: all workers; by default only the first few are told.
    workers = client.scheduler_info(n_workers=-1)["workers"]
    owners: dict[str, list[str]] = {}
    for where, row in workers.items():
        for device in row.get("resources", {}):
            owners.setdefault(device, []).append(where)
    # A device is one worker: with two, nobody could say where a part runs.
    twice = [d for d, rows in owners.items() if len(rows) > 1]
    if twice or not owners:
        client.close()
        raise InputError(
            f"device {twice[0]!r} is announced twice" if twice else "no worker announces a device",
            where=f"{address}: " + ", ".join(owners[twice[0]] if twice else workers),
            hint='dask worker SCHEDULER --resources "cpu0=1" --nthreads 1, one for each device',
        )
    return client, {d: DaskRunner(client, d, rows[0]) for d, rows in owners.items()}


class DaskRunner:
    """One device. lanes: Dask sends the next inputs while a part runs."""

    lanes = MANY

    def __init__(self, client: Any, device: str, where: str) -> None:
        self.client, self.device, self.where = client, device, where
        self.models: dict[int, tuple[str, str, Any]] = {}
        self.future: Any = None
        self.part = -1

    def load(self, part: Part, path: Path, form: str = FAST) -> None:
        data = path.read_bytes()
        name = digest(data)
        # Sent now, so that the first run does not pay for it.
        self._wait(f"loading {part.name}", self._submit(_load, name, data, form))
        self.models[part.index] = (name, form, data)

    def start(self, part: Part, feeds: Mapping[str, Array]) -> None:
        self.future, self.part = self._asked(part, feeds), part.index

    def ready(self, timeout: float) -> bool:
        from dask.distributed import wait

        if self.future.done():
            return True
        try:
            wait(self.future, timeout=max(timeout, 1e-3))
        except TimeoutError:
            # Not done in time: is it still there at all?
            self._alive(f"running part {self.part}")
        return bool(self.future.done())

    def finish(self) -> Done:
        outputs, _ = self._wait(f"running part {self.part}", self.future)
        return Done(self.part, outputs)

    def run(self, part: Part, feeds: Mapping[str, Array], turn: Turn | None = None) -> Ran:
        rank = 0.0 if turn is None else turn.rank
        return Ran(*self._wait(f"running {part.name}", self._asked(part, feeds, rank)))

    def time(self, part: Part, feeds: Mapping[str, Array], timing: Timing) -> tuple[float, str]:
        name, form, _ = self.models[part.index]
        given = {n: feeds[n] for n in part.reads}
        future = self._submit(
            _measure, name, form, given, timing.runs, timing.warm_ups, timing.clock
        )
        return float(self._wait(f"measuring {part.name}", future)), MEASURED

    def close(self) -> None:
        """The client is closed by who made it."""

    def _asked(self, part: Part, feeds: Mapping[str, Array], rank: float = 0.0) -> Any:
        name, form, _ = self.models[part.index]
        return self._submit(_run, name, form, {n: feeds[n] for n in part.reads}, rank=rank)

    def _submit(self, call: Any, *arguments: Any, rank: float = 0.0) -> Any:
        # pure=False: Dask would answer an equal call from its memory, and nothing would be
        # measured.
        return self.client.submit(
            call, *arguments, workers=[self.where], resources={self.device: 1}, pure=False,
            retries=0, priority=-rank,  # Dask takes the greatest first
        )  # fmt: skip

    def _wait(self, doing: str, future: Any) -> Any:
        while True:
            try:
                return future.result(timeout=LOOK_S)
            except TimeoutError:
                self._alive(doing)
            except CspEmbedError as error:
                # The worker's own refusal, as Dask hands it over.
                raise InputError(
                    f"the worker of {self.device} failed {doing}",
                    where=self.where, why=error.render(),
                hint="the worker's own output tells more; run-plan --lost does without it",
            ) from error  # fmt: skip
            except Exception as error:  # Dask's own family: KilledWorker, CancelledError, …
                # Anything else is no answer of the cluster but a mistake here.
                if type(error).__module__.split(".")[0] not in ("distributed", "dask"):
                    raise
                raise self._death(doing, str(error)) from error

    def _alive(self, doing: str) -> None:
        # A worker that was started again has another address: it is not this one.
        if self.where not in self.client.scheduler_info(n_workers=-1)["workers"]:
            raise self._death(doing, "the scheduler does not know it any more")

    def _death(self, doing: str, why: str) -> WorkerDied:
        return WorkerDied(
            f"the worker of {self.device} died while {doing}",
            where=f"device {self.device}, Dask worker {self.where}",
            why=why,
            hint="look at the worker's own output; start it again, or run with --replan",
        ).of(self.device)


def _load(name: str, data: bytes, form: str) -> bool:
    """In the worker. Older models go when a new part of the same plan comes plain again."""
    import onnx

    from csp_embed.network.onnx.runtime import open_session

    # A digest of what came, not of what was sent.
    if digest(data) != name:
        raise InputError(
            "the part arrived damaged",
            why="its sha256 is another one",
            hint="run it again; the same failure twice means a broken network or disk",
        )
    _SESSIONS[name, form] = open_session(onnx.load_from_string(data), name[:12], form=form)
    return True


def _run(name: str, form: str, feeds: dict[str, Array]) -> tuple[dict[str, Array], float]:
    from csp_embed.run.worker import run_once

    begin = perf_counter()
    outputs = run_once(_session(name, form), feeds, name[:12])
    return outputs, 1e3 * (perf_counter() - begin)


def _measure(
    name: str, form: str, feeds: dict[str, Array], runs: int, warm_ups: int, clock: str
) -> float:
    from csp_embed.network.onnx.runtime import run_call, run_session
    from csp_embed.network.profiles.measure import measure

    session = _session(name, form)
    run_session(session, None, feeds, name[:12])  # a refusal has its own error here
    return measure(run_call(session, feeds), runs, warm_ups, clock)[0]


def _session(name: str, form: str) -> Any:
    # Dask may restart a worker between two calls.
    try:
        return _SESSIONS[name, form]
    except KeyError:
        raise InputError(
            "the worker was started again and lost its parts", hint="run the plan again"
        ) from None
