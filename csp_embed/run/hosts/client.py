"""The coordinator's end: devices on other hosts as runners.

Answers are matched to requests by number, so several may be under way: the next input travels
while a part runs. A worker that says nothing for SILENCE_S seconds, not even that it lives, is lost
like one whose connection ends: every wait for it becomes one `WorkerDied` that names it.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from csp_embed.errors import InputError, WorkerDied
from csp_embed.network.onnx.runtime import FAST
from csp_embed.run.device_parts import Part
from csp_embed.run.hosts.serve import HEARTBEAT_S, SILENCE_S
from csp_embed.run.hosts.wire import PROTOCOL, Broken, Message, answer_to, digest, receive, send
from csp_embed.run.runner import MANY, MEASURED, Array, Done, Ran, Timing
from csp_embed.run.turn import Turn

# Of making the connection; afterwards silence counts.
CONNECT_S = 5.0


class HostWorker:
    """A connection to one worker. device: the one that it says it is."""

    def __init__(self, address: str, token: str = "") -> None:
        self.address = address
        self.sock = _connected(address)
        self.device = _greeted(self.sock, address, token)
        self.lock = threading.Lock()  # of the socket's sending end
        # Numbers of requests: answers come back by them, in any order.
        self.calls = itertools.count(1)
        self.waiting: dict[int, threading.Event] = {}
        self.answers: dict[int, Message] = {}
        self.broken: str | None = None
        self.doing: dict[int, str] = {}
        self.closing = threading.Event()
        # One thread reads all answers, one tells that we live.
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._live, daemon=True).start()

    def ask(self, doing: str, message: Message) -> int:
        """Sends a request; returns its number. Raises: WorkerDied, InputError (strings)."""
        call = next(self.calls)
        # Registered before sending: the answer may come before `send` returns.
        self.waiting[call], self.doing[call] = threading.Event(), doing
        if self.broken is not None:
            raise self._death(call)
        try:
            with self.lock:
                fields = {**message.fields, "call": call}
                # One message at a time on the socket, whole.
                send(self.sock, Message(message.kind, fields, message.tensors, message.blob))
        except OSError as error:
            self._end(str(error))
            raise self._death(call) from error
        return call

    def ready(self, call: int, timeout: float) -> bool:
        """Whether `finish` would not wait. Raises: WorkerDied."""
        event = self.waiting[call]
        event.wait(timeout)
        # An answer that has come counts even if the connection broke behind it.
        if call not in self.answers and self.broken is not None:
            raise self._death(call)
        return event.is_set()

    def finish(self, call: int) -> Message:
        """The answer. Raises: WorkerDied, InputError where the worker refused."""
        self.waiting[call].wait()
        if call not in self.answers:
            raise self._death(call)
        # Taken out: a long run would else keep every tensor.
        message = self.answers.pop(call)
        doing = self.doing.pop(call)
        del self.waiting[call]
        if message.kind == "error":
            raise InputError(
                f"the worker of {self.device} failed {doing}",
                where=self.address,
                why=str(message.fields.get("why", "")),
                hint="the worker's own output tells more; run-plan --lost plans without a device",
            )
        return message

    def close(self) -> None:
        """Lets the worker go; it waits for the next coordinator."""
        self.closing.set()
        with suppress(OSError):
            # Says that nothing more comes, and lets what is on its way through.
            with self.lock:
                send(self.sock, Message("stop"))
            self.sock.shutdown(socket.SHUT_WR)
        self.sock.close()

    def _read(self) -> None:
        try:
            while True:
                message = receive(self.sock)
                call = message.fields.get("call")
                # Late answers to requests that were given up are dropped.
                if call in self.waiting:
                    self.answers[call] = message
                    self.waiting[call].set()
        except TimeoutError:
            self._end(f"nothing came for {SILENCE_S:g} s: the worker or the link is gone")
        except (Broken, OSError) as error:
            self._end(str(error))

    def _live(self) -> None:
        """The worker drops a coordinator that is silent."""
        while not self.closing.wait(HEARTBEAT_S) and self.broken is None:
            # A long tensor is a sign of life itself: never wait behind it.
            if self.lock.acquire(blocking=False):
                try:
                    send(self.sock, Message("alive"))
                except OSError as error:
                    self._end(str(error))
                finally:
                    self.lock.release()

    def _end(self, why: str) -> None:
        if self.broken is None:
            self.broken = why
        # Everybody who waits must learn of the end.
        for event in list(self.waiting.values()):
            event.set()

    def _death(self, call: int) -> WorkerDied:
        return WorkerDied(
            f"the worker of {self.device} died or its link broke while {self.doing[call]}",
            where=f"device {self.device}, worker {self.address}",
            why=self.broken or "the connection ended",
            hint="look at the worker's own output; start it again, or run with --replan",
        ).of(self.device)


class RemoteRunner:
    """One device of a HostWorker. lanes: as many requests as there are samples may be under way:
    some travel there, one runs, some travel back."""

    lanes = MANY

    def __init__(self, worker: HostWorker) -> None:
        self.worker = worker
        self.call, self.part = 0, -1
        # Of each sample under way: the tensors that the worker has, and how many parts were sent.
        self.there: dict[int, set[str]] = {}
        self.sent: dict[int, int] = {}
        # Whichever part needs a tensor first carries it: nothing may overtake it on the way.
        self.order = threading.Lock()

    def load(self, part: Part, path: Path, form: str = FAST) -> None:
        data = path.read_bytes()
        # The worker forgets its samples, too.
        self.there.clear()
        self.sent.clear()
        # By digest: a part that arrives damaged is refused, not run.
        fields = {"part": part.index, "sha256": digest(data), "form": form}
        call = self.worker.ask(f"loading {part.name}", Message("load", fields, blob=data))
        self.worker.finish(call)

    def start(self, part: Part, feeds: Mapping[str, Array]) -> None:
        # One device answers its own requests in order, so the last one is enough to remember.
        self.call, self.part = self._asked(part, feeds), part.index

    def ready(self, timeout: float) -> bool:
        return self.worker.ready(self.call, timeout)

    def finish(self) -> Done:
        return Done(self.part, self.worker.finish(self.call).tensors)

    def run(self, part: Part, feeds: Mapping[str, Array], turn: Turn | None = None) -> Ran:
        call = self._asked(part, feeds) if turn is None else self._in_turn(part, feeds, turn)
        answer = self.worker.finish(call)
        return Ran(answer.tensors, float(answer.fields["ms"]))

    # The worker's own clock: the way there and back is not the part's time.
    def time(self, part: Part, feeds: Mapping[str, Array], timing: Timing) -> tuple[float, str]:
        fields = {
            "part": part.index, "runs": timing.runs, "warm_ups": timing.warm_ups,
            "clock": timing.clock,
        }  # fmt: skip
        given = {n: feeds[n] for n in part.reads}
        call = self.worker.ask(f"measuring {part.name}", Message("measure", fields, given))
        return float(self.worker.finish(call).fields["ms"]), MEASURED

    def close(self) -> None:
        self.worker.close()

    def _asked(self, part: Part, feeds: Mapping[str, Array]) -> int:
        given = {n: feeds[n] for n in part.reads}
        return self.worker.ask(f"running {part.name}", Message("run", {"part": part.index}, given))

    def _in_turn(self, part: Part, feeds: Mapping[str, Array], turn: Turn) -> int:
        fields = {
            "part": part.index, "rank": turn.rank, "sample": turn.sample, "of": turn.needs.of,
            "reads": list(part.reads), "back": sorted(turn.needs.back),
        }  # fmt: skip
        with self.order:
            there = self.there.setdefault(turn.sample, set())
            given = {n: feeds[n] for n in part.reads if n not in there}
            there.update(part.reads, part.makes)
            self.sent[turn.sample] = self.sent.get(turn.sample, 0) + 1
            if self.sent[turn.sample] == turn.needs.of:  # nothing of this sample comes any more
                del self.there[turn.sample], self.sent[turn.sample]
            return self.worker.ask(f"running {part.name}", Message("run", fields, given))


def _connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        # Brackets are how addresses of IPv6 are written beside a port.
        sock = socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S)
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"no worker at {address}",
            why=str(error),
            hint="on that host: csp-embed worker --listen HOST:PORT --device NAME",
        ) from error
    sock.settimeout(SILENCE_S)
    # Small messages must not wait for more to send.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _greeted(sock: socket.socket, address: str, token: str) -> str:
    """The device that the worker is. Raises: InputError."""
    try:
        # No body before the greeting is through: whoever listens there may be anybody.
        hello = receive(sock, most=0)
        if hello.kind != "hello" or hello.fields.get("protocol") != PROTOCOL:
            raise Broken(f"it speaks {hello.fields.get('protocol', 'something else')}")
        # Without its token it would refuse us anyway; said here with what helps.
        if hello.fields["token"] and not token:
            raise InputError(
                f"the worker at {address} asks for its token", hint="--token-file FILE"
            )
        send(sock, Message("hello", {"answer": answer_to(token, str(hello.fields["nonce"]))}))
        reply = receive(sock, most=0)
        if reply.kind != "welcome":
            raise InputError(
                f"the worker at {address} refuses us",
                why=str(reply.fields.get("why", "")),
                hint="--token-file FILE with the worker's own token",
            )
    except InputError:
        sock.close()
        raise
    except (Broken, OSError, KeyError) as error:
        sock.close()
        raise InputError(
            f"what listens at {address} is no free worker of this version",
            # Silence here means that it serves another coordinator: it accepts one at a time.
            why=str(error) if not isinstance(error, TimeoutError) else "it serves somebody else",
            hint="one coordinator at a time; csp-embed worker on both ends of the same version",
        ) from error
    return str(hello.fields["device"])


def connect(addresses: Sequence[str], token: str = "") -> dict[str, HostWorker]:
    """Connections by device. Raises: InputError; nothing stays open then."""
    found: dict[str, HostWorker] = {}
    try:
        for address in addresses:
            worker = HostWorker(address, token)
            if worker.device in found:
                worker.close()
                raise InputError(
                    f"device {worker.device!r} is announced twice",
                    where=f"{found[worker.device].address} and {address}",
                    hint="start one of the workers with another --device",
                )
            found[worker.device] = worker
    except InputError:
        for worker in found.values():
            worker.close()
        raise
    return found
