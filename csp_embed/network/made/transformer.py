"""Stacks of equal transformer layers as work: attention and feed-forward with residual sums."""

from __future__ import annotations

from csp_embed.errors import InputError
from csp_embed.network.made.generate import Sketch
from csp_embed.network.profiles.work import Work


def transformer(
    layers: int,
    *,
    hidden: int = 1024,
    sequence: int = 128,
    expand: int = 4,
    vocabulary: int = 32000,
    item_bytes: int = 2,
    blocks: bool = False,
) -> Sketch:
    """A decoder of `layers` layers on one sequence.

    hidden: width; expand: feed-forward width over hidden; item_bytes of a weight or activation.
    blocks: one task per layer, else six (norm1, qkv, attention, projection, up, down).
    Raises: InputError for numbers below 1.
    """
    if min(layers, hidden, sequence, expand, vocabulary, item_bytes) < 1:
        raise InputError(
            "transformer: every number must be at least 1",
            hint="partition generate transformer --n 2 -o graph.json",
        )
    s, h, b = sequence, hidden, item_bytes
    x = s * h * b
    # Token numbers of 8 bytes are read, rows of the table come out.
    works = [Work("embed", "Gather", (), 0, s * h, s * 8, x, vocabulary * h * b)]
    edges: list[tuple[str, str, int]] = []
    last = "embed"
    for at in range(layers):
        parts = _layer(f"l{at}.", s, h, expand, b)
        if blocks:
            parts = [_joined(f"l{at}", parts, x)]
            works += parts
            edges.append((last, f"l{at}", x))
            last = f"l{at}"
            continue
        norm, qkv, attention, projection, up, down = (w.layer for w in parts)
        works += parts
        # Both residual sums are edges: they are what makes cutting a layer expensive.
        edges += [
            (last, norm, x),
            (norm, qkv, x),
            (qkv, attention, 3 * x),
            (attention, projection, x),
            (last, projection, x),
            (projection, up, x),
            (up, down, expand * x),
            (projection, down, x),
        ]
        last = down
    macs = s * h * vocabulary
    works.append(
        Work("head", "MatMul", (), macs, 2 * macs, x, s * vocabulary * b, h * vocabulary * b)
    )
    edges.append((last, "head", x))
    return Sketch(f"transformer-{layers}x{hidden}", tuple(works), tuple(edges))


def _layer(prefix: str, s: int, h: int, expand: int, b: int) -> list[Work]:
    x = s * h * b

    def dense(name: str, inputs: int, outputs: int, extra_ops: int, extra_read: int) -> Work:
        macs = s * inputs * outputs
        read, written = s * inputs * b + extra_read, s * outputs * b
        ops = 2 * macs + extra_ops
        return Work(prefix + name, "MatMul", (), macs, ops, read, written, inputs * outputs * b)

    # Scores and their sum with the values: two products of s x s x h.
    scores = 2 * s * s * h
    return [
        Work(prefix + "norm1", "LayerNormalization", (), 0, 8 * s * h, x, x, 2 * h * b),
        dense("qkv", h, 3 * h, 0, 0),
        # 5 a score: subtract, exp, add, divide, scale.
        Work(prefix + "attention", "Attention", (), scores, 2 * scores + 5 * s * s, 3 * x, x, 0),
        dense("projection", h, h, s * h, x),
        # 18 a value: a GELU and the norm before it, about.
        dense("up", h, expand * h, 18 * s * h, 0),
        dense("down", expand * h, h, s * h, x),
    ]


def _joined(name: str, parts: list[Work], x: int) -> Work:
    return Work(
        layer=name,
        op="TransformerLayer",
        nodes=(),
        macs=sum(w.macs for w in parts),
        ops=sum(w.ops for w in parts),
        # One task: what lies between its parts never leaves it.
        read_bytes=x,
        written_bytes=x,
        weight_bytes=sum(w.weight_bytes for w in parts),
    )
