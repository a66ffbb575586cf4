"""Frames between hosts: what goes in comes out, and nothing else gets through."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from csp_embed.errors import InputError
from csp_embed.run.hosts.wire import Broken, Message, receive, send


@pytest.fixture
def ends() -> Any:
    a, b = socket.socketpair()
    b.settimeout(5)
    with a, b:
        yield a, b


@pytest.mark.parametrize(
    "value",
    [
        np.arange(24, dtype=np.int8).reshape(2, 3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(20)[::3],
        np.float32(2.5).reshape(()),
        np.zeros((0, 7), np.float16),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.arange(5).astype(ml_dtypes.bfloat16),
        np.arange(-4, 4).astype(ml_dtypes.int4),
        np.arange(4).astype(ml_dtypes.float8_e4m3fn),
        np.arange(4, dtype=">i4"),
    ],
    ids=lambda v: f"{v.dtype}-{v.shape}",
)
def test_tensors_arrive_as_they_left(ends: Any, value: Any) -> None:
    a, b = ends
    send(a, Message("run", {"part": 3}, {"x": value, "y": value}, b"model"))
    got = receive(b)
    assert (got.kind, got.fields, got.blob) == ("run", {"part": 3}, b"model")
    for name in "xy":
        assert got.tensors[name].shape == value.shape
        assert got.tensors[name].dtype == value.dtype.newbyteorder("=")
        assert got.tensors[name].tolist() == value.tolist()


def test_a_timeout_is_one_of_silence_not_of_the_whole_message(ends: Any) -> None:
    """8 MB that the other end takes in 30 pieces, one every 50 ms, with a timeout of 1 s:
    `socket.sendall` would count the 1.5 s of all of them."""
    a, b = ends
    a.settimeout(1.0)
    value = np.arange(2_000_000, dtype=np.int32)
    sender = threading.Thread(target=send, args=(a, Message("run", {}, {"x": value})))
    sender.start()
    got = bytearray()
    while sender.is_alive():
        time.sleep(0.05)
        got += b.recv(280_000)
    b.setblocking(False)
    with suppress(BlockingIOError):
        while more := b.recv(1 << 20):
            got += more
    assert bytes(got[-value.nbytes :]) == value.tobytes()


def test_more_than_a_socket_buffer_arrives(ends: Any) -> None:
    a, b = ends
    big = np.random.default_rng(0).integers(0, 256, 5_000_000, np.uint8)
    sender = threading.Thread(target=send, args=(a, Message("run", {}, {"x": big})))
    sender.start()
    assert np.array_equal(receive(b).tensors["x"], big)
    sender.join()


@pytest.mark.parametrize("value", [np.array(["a", "bc"]), np.array([{}], object)])
def test_strings_and_objects_stay_at_home(ends: Any, value: Any) -> None:
    with pytest.raises(InputError, match="cannot travel"):
        send(ends[0], Message("run", {}, {"x": value}))


def header(**rows: Any) -> bytes:
    return json.dumps({"kind": "run", "fields": {}, "tensors": [rows]}).encode()


@pytest.mark.parametrize(
    ("head", "body", "why"),
    [
        (b"not json", b"", "no header"),
        (b"[]", b"", "no header"),
        (b'{"kind": "run"}', b"", "no header"),
        (header(name="x", dtype="object", shape=[1]), b"12345678", "type 'object'"),
        (header(name="x", dtype="__class__", shape=[1]), b"1", "type '__class__'"),
        (header(name="x", dtype="float32", shape=[-1]), b"1234", "shape"),
        (header(name="x", dtype="float32", shape=[2]), b"1234", "longer than the body"),
        (header(name="x", dtype="float32", shape="ab"), b"1234", "no header"),
    ],
)
def test_a_wrong_frame_is_refused(ends: Any, head: bytes, body: bytes, why: str) -> None:
    a, b = ends
    a.sendall(struct.pack("!IQ", len(head), len(body)) + head + body)
    with pytest.raises(Broken, match=why):
        receive(b)


def test_a_frame_of_monstrous_length_is_refused_before_it_is_read(ends: Any) -> None:
    a, b = ends
    a.sendall(struct.pack("!IQ", 10, 1 << 60))
    with pytest.raises(Broken, match="frame of"):
        receive(b)
    a.sendall(struct.pack("!IQ", 10, 1))
    with pytest.raises(Broken, match="frame of"):
        receive(b, most=0)


def test_an_end_in_the_middle_is_no_message(ends: Any) -> None:
    a, b = ends
    a.sendall(struct.pack("!IQ", 10, 0) + b"{}")
    a.shutdown(socket.SHUT_WR)
    with pytest.raises(Broken, match="ended"):
        receive(b)
