"""`csp-embed worker`: runs the parts of plans for a coordinator on another host.

One coordinator at a time. Three threads, so that a tensor travels while a part runs: this one runs
what is asked, by rank; one reads requests into a queue; one sends answers, and a sign of life every
second. A connection that ends, or is silent for too long, gives the worker back to whoever asks
next; its models are forgotten.
Requests: load (blob: the model; part, sha256, form), run (part, call; tensors), or with a
sample (part, call, rank, sample, of, reads, back; those of the tensors that are not here yet),
measure (part, call, runs, warm_ups, clock; tensors), echo (call, work, back; tensors), stop.
Answers: loaded, done, measured, echo, error, each with `call`.
"""

from __future__ import annotations

import itertools
import math
import os
import queue
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from csp_embed.errors import CspEmbedError, InputError
from csp_embed.files import scratch_folder
from csp_embed.network.onnx.runtime import known_provider, open_session, run_call, run_session
from csp_embed.network.profiles.measure import measure
from csp_embed.run.hosts.wire import (
    PROTOCOL,
    Broken,
    Message,
    answer_to,
    digest,
    receive,
    send,
)
from csp_embed.run.worker import run_once

# Ten signs of life may be missed before the other end counts as gone.
HEARTBEAT_S, SILENCE_S = 1.0, 10.0


@dataclass(frozen=True)
class Settings:
    """device: which of the platform's devices this worker is. provider: of onnxruntime. token: what
    a coordinator must know; "" asks nothing."""

    device: str
    provider: str | None = None
    threads: int = 1
    token: str = ""


def listen(
    host: str, port: int, settings: Settings, say: Callable[[str], None], once: bool = False
) -> None:
    """Serves until it is interrupted; `once`: one coordinator. port 0: any free one, see `say`.

    Raises: InputError where it cannot listen there or lacks the provider.
    """
    # Refused at once, not at the first part.
    known_provider(settings.provider, "this worker")
    with _listening(host, port) as server:
        where = ":".join(str(x) for x in server.getsockname()[:2])
        say(f"worker of {settings.device} listens on {where}")
        while True:
            # One coordinator after another: models and devices are not shared.
            sock, peer = server.accept()
            with sock:
                ended = _Session(sock, settings).run()
            say(f"{peer[0]}:{peer[1]} {ended}")
            if once:
                return


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=4)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"cannot listen on {host}:{port}",
            why=str(error),
            hint="--listen HOST:PORT of this machine; port 0 takes a free one",
        ) from error


class _Session:
    """One coordinator, from its greeting to its end."""

    def __init__(self, sock: socket.socket, settings: Settings) -> None:
        self.sock, self.settings = sock, settings
        # Queues between the three threads: none of them ever waits on the socket of another.
        # Requests by rank, then as they came: (rank, number, request); None ends the session.
        self.requests: queue.PriorityQueue[tuple[float, int, Message | None]] = (
            queue.PriorityQueue()
        )
        self.came = itertools.count()
        self.answers: queue.Queue[Message | None] = queue.Queue()
        self.sessions: dict[int, Any] = {}
        # Of each sample under way: its tensors, and how many of its parts have run.
        self.held: dict[int, dict[str, Any]] = {}
        self.ran: dict[int, int] = {}
        self.lost = "went"

    def run(self) -> str:
        """How it ended, in words."""
        self.sock.settimeout(SILENCE_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._greet()
        except (Broken, OSError, KeyError) as error:
            return f"was refused: {error}"
        threads = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._write, daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            with scratch_folder("csp-embed-worker-") as folder:
                # None ends the session, whoever put it there.
                while (request := self.requests.get()[-1]) is not None:
                    self.answers.put(self._answer(request, folder))
        finally:
            # The writer ends by itself once its queue says so; the socket is closed after that.
            self.answers.put(None)
            threads[1].join(timeout=SILENCE_S)
            self.sock.close()
        return self.lost

    def _greet(self) -> None:
        """Tells who we are; whoever does not know the token gets no further than a small frame."""
        # A number used once: what is heard on the way cannot be sent again.
        nonce = secrets.token_hex(16)
        fields = {
            "protocol": PROTOCOL,
            "device": self.settings.device,
            "nonce": nonce,
            "token": bool(self.settings.token),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        }
        send(self.sock, Message("hello", fields))
        reply = receive(self.sock, most=0)
        wanted = answer_to(self.settings.token, nonce)
        # In constant time: how long it takes tells nothing of the secret.
        if self.settings.token and not secrets.compare_digest(
            str(reply.fields.get("answer", "")), wanted
        ):
            send(self.sock, Message("error", {"call": 0, "why": "the token is another one"}))
            raise Broken("another token")
        send(self.sock, Message("welcome"))

    def _read(self) -> None:
        try:
            while True:
                message = receive(self.sock)
                if message.kind == "stop":
                    break
                if message.kind == "run" and "sample" in message.fields:
                    # Now, not when it runs: another part of the sample may be run before it.
                    sample = int(message.fields["sample"])
                    self.held.setdefault(sample, {}).update(message.tensors)
                if message.kind != "alive":
                    self._queue(message)
        except (Broken, OSError, TypeError, ValueError) as error:
            self.lost = f"was lost: {error}"
        # Whatever the reason, the session ends.
        self._queue(None)

    def _queue(self, request: Message | None) -> None:
        rank = 0.0 if request is None else request.fields.get("rank", 0.0)
        # What is no number could not be compared with the others; the end comes before all.
        if request is None or not isinstance(rank, int | float) or rank != rank:
            rank = -math.inf
        self.requests.put((rank, next(self.came), request))

    def _write(self) -> None:
        try:
            while True:
                try:
                    message = self.answers.get(timeout=HEARTBEAT_S)
                except queue.Empty:
                    # Silence would look like death, so something is sent every second.
                    message = Message("alive")
                if message is None:
                    return
                self._send(message)
        except OSError as error:
            self.lost = f"was lost: {error}"
            self._queue(None)

    def _send(self, message: Message) -> None:
        try:
            send(self.sock, message)
        except CspEmbedError as error:
            # A tensor that cannot travel, told before a byte was sent.
            call = message.fields.get("call", 0)
            send(self.sock, Message("error", {"call": call, "why": error.render()}))

    def _answer(self, request: Message, folder: Path) -> Message:
        call = request.fields.get("call", 0)
        try:
            return self._work(request, folder, call)
        except CspEmbedError as error:
            # Errors of one request are answers: the session goes on.
            return Message("error", {"call": call, "why": error.render()})
        except MemoryError:
            return Message("error", {"call": call, "why": "out of memory"})
        except (KeyError, TypeError, ValueError) as error:
            return Message("error", {"call": call, "why": f"a request of no known form: {error}"})

    def _work(self, request: Message, folder: Path, call: int) -> Message:
        if request.kind == "echo":
            begin = perf_counter()
            _keep_busy(int(request.fields.get("work", 0)))
            ms = 1e3 * (perf_counter() - begin)
            # Without `back` only the way here is timed.
            back = request.tensors if request.fields["back"] else {}
            return Message("echo", {"call": call, "ms": ms}, back)
        part = int(request.fields["part"])
        if request.kind == "load":
            self._load(part, request, folder)
            return Message("loaded", {"call": call})
        # A part that was never loaded is a KeyError, answered above.
        session, where = self.sessions[part], f"part {part}"
        if request.kind == "run":
            given = self._given(request)
            begin = perf_counter()
            outputs = run_once(session, given, where)
            ms = 1e3 * (perf_counter() - begin)
            back = self._kept(request, outputs)
            return Message("done", {"call": call, "ms": ms}, back)
        if request.kind != "measure":
            raise ValueError(request.kind)
        fields = request.fields
        run_session(session, None, request.tensors, where)  # a refusal has its own error here
        ms, _ = measure(
            run_call(session, request.tensors), fields["runs"], fields["warm_ups"], fields["clock"]
        )
        return Message("measured", {"call": call, "ms": ms})

    def _given(self, request: Message) -> dict[str, Any]:
        """What a part reads: what came with it, and what is here of its sample."""
        if "sample" not in request.fields:
            return dict(request.tensors)
        held = self.held[request.fields["sample"]]
        return {n: held[n] for n in request.fields["reads"]}

    def _kept(self, request: Message, outputs: dict[str, Any]) -> dict[str, Any]:
        """The outputs that are asked for; the others stay until the sample's last part here."""
        if "sample" not in request.fields:
            return outputs
        sample = request.fields["sample"]
        self.held[sample].update(outputs)
        self.ran[sample] = self.ran.get(sample, 0) + 1
        if self.ran[sample] == request.fields["of"]:
            del self.held[sample], self.ran[sample]
        return {n: outputs[n] for n in request.fields["back"]}

    def _load(self, part: int, request: Message, folder: Path) -> None:
        # Another plan, or the same one anew: samples begin again.
        self.held.clear()
        self.ran.clear()
        if digest(request.blob) != request.fields["sha256"]:
            raise InputError(
                f"part {part} arrived damaged",
                why="its sha256 is another one",
                hint="run it again; the same failure twice means a broken network or disk",
            )
        self.sessions.pop(part, None)  # before the new one is made: memory
        path = folder / f"{part}.onnx"
        path.write_bytes(request.blob)
        try:
            self.sessions[part] = open_session(
                path, f"part {part}", threads=self.settings.threads,
                form=str(request.fields["form"]), provider=self.settings.provider,
            )  # fmt: skip
        finally:
            # The session has read it: models may be large, and the disk small.
            path.unlink()


def _keep_busy(rounds: int) -> None:
    """Keeps the core busy as a part does, a few us a round, mostly without the interpreter."""
    x = np.ones(1 << 12, np.float32)
    for _ in range(rounds):
        np.sin(x)
