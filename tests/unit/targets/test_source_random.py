"""Random small operators as C against NumPy; a longer run is made by hand (--hypothesis-seed)."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from source_machine import ISA, assert_equal

from csp_embed import ops
from csp_embed.compiler.source.chain import compile_source
from csp_embed.ops.data import random_tensors


@st.composite
def operators(draw):
    def low(a, b):
        return draw(st.integers(a, b))

    epilogue = draw(st.sampled_from([
        {}, {"shift": 3}, {"shift": 5, "bias": True, "clip": (-20, 99)},
        {"shift": 2, "bias_before_shift": True},
    ]))  # fmt: skip
    kind = draw(st.sampled_from(["matmul", "batch", "conv1d", "conv2d", "depthwise", "transposed"]))
    if kind == "matmul":
        return ops.matmul(m=low(1, 40), n=low(1, 20), k=low(1, 40), **epilogue)
    if kind == "batch":
        return ops.batch_matmul(batch=low(1, 3), m=low(1, 20), n=low(1, 9), k=low(1, 20))
    if kind == "conv1d":
        return ops.conv1d(n=low(1, 2), c=low(1, 9), w=low(9, 30), k=low(1, 20), r=low(1, 4),
                          stride=low(1, 3), dilation=low(1, 2), pad=low(0, 3),
                          **epilogue)  # fmt: skip
    if kind == "conv2d":
        return ops.conv2d(n=low(1, 2), c=low(1, 9), h=low(3, 9), w=low(3, 12), k=low(1, 20),
                          r=low(1, 3), s=low(1, 3), stride=low(1, 2), pad=low(0, 2),
                          layout=draw(st.sampled_from(["NCHW", "NHWC"])), **epilogue)  # fmt: skip
    if kind == "depthwise":
        return ops.depthwise_conv2d(n=1, c=low(1, 12), h=low(3, 9), w=low(3, 9), r=3, s=3,
                                    stride=low(1, 2), pad=low(0, 1), **epilogue)  # fmt: skip
    return ops.conv_transpose2d(n=1, c=low(1, 6), h=low(2, 5), w=low(2, 5), k=low(1, 12),
                                r=low(2, 3), s=low(2, 3), stride=low(1, 2), **epilogue)  # fmt: skip


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(operators())
def test_random_operators_are_bit_equal(op):
    assert_equal(compile_source(op, ISA, {}), random_tensors(op, 1))
