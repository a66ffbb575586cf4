"""The picture shows what packing puts into the lanes."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from csp_embed import ops
from csp_embed.embed import embed
from csp_embed.embed.algebra.packing import pack
from csp_embed.machine.load import load_isa
from csp_embed.report.lanes import content, picture

CASES = [
    ops.conv2d(n=1, c=1, h=9, w=12, k=4, r=5, s=4),
    ops.depthwise_conv2d(n=1, c=7, h=6, w=6, r=3, s=3, pad=1),
    ops.max_pool2d(n=1, c=5, h=6, w=6, r=2, s=2),
]


@pytest.mark.parametrize("op", CASES, ids=lambda op: op.name)
def test_content_is_what_packing_puts_there(op):
    isa = load_isa("vta")
    embedding = embed(op, isa)[0]
    values = {c.name: c.extent - 1 for c in embedding.counters}
    for role in ("lhs", "rhs"):
        if role not in embedding.layouts:
            continue
        layout = embedding.layouts[role]
        shape = op.tensors[layout.tensor].shape
        at = np.array(layout.origin, int)
        for name, step in layout.step.items():
            at = at + values[name] * np.array(step, int)
        table = content(embedding, isa, role, values)
        if not all(0 <= a < g for a, g in zip(at, layout.grid, strict=True)):
            assert all(v is None for row in table for v in row)
            continue
        for t in range(len(shape)):
            index = np.indices(shape)[t].astype(np.int8)
            packed = pack(layout, embedding, isa, index)[tuple(at)]
            held = packed.reshape(len(table), -1)
            for m, row in enumerate(table):
                for n, value in enumerate(row):
                    if value is not None:
                        assert held[m][n] == value[t]


@pytest.mark.parametrize("op", CASES, ids=lambda op: op.name)
def test_picture_is_well_formed_and_whole(op):
    isa = load_isa("vta")
    embedding = embed(op, isa)[0]
    text = picture(embedding, isa, steps=2)
    assert text == picture(embedding, isa, steps=2)
    ElementTree.fromstring(text)
    assert len(re.findall("micro-operation at", text)) == 2
    cells = 2 * sum(
        isa.lane_shape(v.memory)[0] * isa.lane_shape(v.memory)[1]
        for r, v in embedding.layouts.items()
        if not r.startswith("add")
    )
    assert text.count("<title>") == cells
