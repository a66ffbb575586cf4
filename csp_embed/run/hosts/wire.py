"""Messages between a coordinator and a worker on another host: JSON and raw tensors, no pickle.

A frame is `u32 length of header, u64 length of body` (big endian), the header as JSON, the body as
bytes: the tensors one after the other, row-major and little endian, then a blob (a model). Whoever
reads a frame decides nothing by it but which array or file to make, so a hostile peer can fill
memory up to the limits below and do no more.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError

Array = NDArray[Any]
PROTOCOL = "csp-embed-worker/4"
_LENGTHS = struct.Struct("!IQ")
MOST_HEADER, MOST_BODY = 1 << 22, 1 << 35  # bytes: 4 MiB of names and shapes, 32 GiB of tensors
_CHUNK = 1 << 20
SMALL = 1 << 16  # bytes that a socket takes at once
_AT_ONCE = 1 << 15  # bytes: a link of 100 kbit/s brings them well before silence is death


class Broken(Exception):
    """The connection ended, or what came is no message of this protocol. Never seen by users: the
    two ends turn it into an error that names the other one."""


@dataclass(frozen=True)
class Message:
    """kind: what is asked or answered. fields: JSON values. tensors: by name. blob: a model."""

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Array] = field(default_factory=dict)
    blob: bytes = b""


def send(sock: socket.socket, message: Message) -> None:
    """Raises: OSError where the connection is gone, InputError for tensors that cannot travel."""
    rows: list[dict[str, Any]] = []
    pieces: list[memoryview | bytes] = []
    for name, value in message.tensors.items():
        # Objects and strings would have to be pickled, and a pickle runs code.
        if _numbers(value.dtype.name) is None:
            raise InputError(
                f"tensor {name!r} of type {value.dtype} cannot travel to another host",
                why="only numbers do: strings and sequences have no fixed bytes",
                hint="plan the layers that read it and that make it onto one device",
            )
        rows.append({"name": name, "dtype": value.dtype.name, "shape": list(value.shape)})
        if value.size:
            # Little endian on the wire, whatever this machine has.
            if value.dtype.kind in "iufc":  # those of ml_dtypes know no order of bytes
                value = value.astype(value.dtype.newbyteorder("<"), copy=False)
            pieces.append(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    header = json.dumps(
        {"kind": message.kind, "fields": dict(message.fields), "tensors": rows}
    ).encode()
    if message.blob:
        pieces.append(message.blob)
    body = sum(len(p) for p in pieces)
    first = _LENGTHS.pack(len(header), body) + header
    # Small messages whole in one call: the reader is woken once.
    if body <= SMALL:
        first, pieces = b"".join([first, *pieces]), []
    for piece in (first, *pieces):
        _send_all(sock, piece)


def _send_all(sock: socket.socket, data: memoryview | bytes) -> None:
    """The socket's timeout is one of silence. `sendall` counts it over the whole message, and a
    large model on a slow link takes longer."""
    rest = memoryview(data)
    while rest:
        rest = rest[sock.send(rest) :]


def receive(sock: socket.socket, most: int = MOST_BODY) -> Message:
    """The next message, its body at most so many bytes.

    Raises: Broken, OSError; TimeoutError after the socket's own timeout of silence.
    """
    head, length = _LENGTHS.unpack(_exactly(sock, _LENGTHS.size))
    # Before anything is allocated: lengths come from the other end.
    if head > MOST_HEADER or length > most:
        raise Broken(f"a frame of {head:,} and {length:,} bytes")
    try:
        header = json.loads(bytes(_exactly(sock, head)))
        kind, fields, rows = header["kind"], dict(header["fields"]), header["tensors"]
        shapes = [(str(r["name"]), _dtype(r["dtype"]), _shape(r["shape"])) for r in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise Broken(f"no header: {error}") from error
    sizes = [dtype.itemsize * prod(shape) for _, dtype, shape in shapes]
    # Sizes are computed from the header: they must lie in the body.
    if sum(sizes) > length:
        raise Broken("tensors longer than the body")
    body = _exactly(sock, length)
    tensors: dict[str, Array] = {}
    at = 0
    for (name, dtype, shape), size in zip(shapes, sizes, strict=True):
        # Views into one buffer: nothing is copied.
        tensors[name] = np.frombuffer(body, dtype, prod(shape), at).reshape(shape)
        at += size
    return Message(str(kind), fields, tensors, bytes(body[at:]))


def _wait_for(sock: socket.socket, count: int) -> None:
    """Lets the next `recv` wait for that many bytes, where the system and the socket can."""
    with suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


def _exactly(sock: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    view, got = memoryview(data), 0
    while got < count:
        # Woken for each packet, a slow link's reader would take the core from what computes.
        _wait_for(sock, min(_AT_ONCE, count - got))
        n = sock.recv_into(view[got : got + _CHUNK])
        if n == 0:
            raise Broken("the connection ended")
        got += n
    return data


def _numbers(name: str) -> np.dtype[Any] | None:
    """The NumPy type of that name, those that only ml_dtypes has (bfloat16, float8, int4) included;
    None where its values are no plain numbers."""
    try:
        found = np.dtype(name)
    except TypeError:
        import ml_dtypes

        own = getattr(ml_dtypes, name, None)
        if not isinstance(own, type) or not issubclass(own, np.generic):
            return None
        found = np.dtype(own)
    registered = 2  # NumPy's mark of a type that another package brings
    # Strings and objects have other kinds; dates too, which nobody sends.
    return found if found.kind in "biufc" or found.isbuiltin == registered else None


def _dtype(name: str) -> np.dtype[Any]:
    found = _numbers(name)
    if found is None:
        raise ValueError(f"type {name!r}")
    return found.newbyteorder("<") if found.kind in "iufc" else found


def _shape(value: Any) -> tuple[int, ...]:
    shape = tuple(int(n) for n in value)
    # Negative sizes could cancel in the product.
    if any(n < 0 for n in shape):
        raise ValueError(f"shape {shape}")
    return shape


def digest(data: bytes) -> str:
    """sha256 in hexadecimal: both ends name a model by it."""
    return hashlib.sha256(data).hexdigest()


def answer_to(token: str, nonce: str) -> str:
    """What proves that one knows the token, without sending it (HMAC-SHA256, RFC 2104)."""
    return hmac.new(token.encode(), nonce.encode(), hashlib.sha256).hexdigest()
