"""Index maps of a compiled kernel, tested as a black box so that every index error shows.

Takes: a contraction without epilogue whose result is int32, and something that computes it.
Leaves: a Part of a certificate: equal to NumPy at random points, and how likely a wrong kernel is
to pass. docs/certify.md, "Kernels of C", has the argument.

A kernel whose loops and addresses do not depend on data leaves in each element a sum of products
of operands: a bilinear form with integer coefficients. So does the formula. Where both differ,
their difference D is a polynomial of degree 2 that is not zero, and by the lemma of Schwartz and
Zippel it is zero for at most 2 of 256 where each operand is drawn from 256 values. int32 shows D
itself as long as |D| stays below 2^32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import CheckError
from csp_embed.ir.operator import Operator
from csp_embed.judge.certify.certificate import Part
from csp_embed.ops.reference import evaluate

Array = NDArray[Any]
Run = Callable[[Mapping[str, Array]], Array]
VALUES = 256  # of an int8
# D has at most twice as many products as are made, each at most 2^14.
MOST_PRODUCTS = 1 << 17


def sums_at_random(op: Operator, run: Run, products: int, rounds: int, seed: int) -> Part:
    """Whether `run` computes `op` for all inputs, by `rounds` random points.

    op: a contraction of int8 tensors into int32, nothing after it. run: tensors by name -> result.
    products: how many the kernel makes for one element at most, padding included.
    Raises: CheckError for an operator of another kind, or with too long sums.
    """
    assert op.kind == "contract"
    assert not op.epilogue
    assert op.out_dtype == "int32"
    if products >= MOST_PRODUCTS:
        raise CheckError(
            f"sums of {products:,} products cannot be told apart in int32",
            where=op.formula(), why="their difference could be a multiple of 2^32",
            hint="kernel.check() compares the values of one input",
        )  # fmt: skip
    free = [n for n in op.tensors if n != op.out.tensor and n not in op.values]
    assert all(op.tensors[n].dtype == "int8" for n in free)
    if op.rhs is not None and op.rhs.tensor == op.lhs.tensor:
        # Squares are no form that is linear in each operand, and the count of values halves.
        raise CheckError(
            f"{op.lhs.tensor} is multiplied with itself", where=op.formula(),
            why="that is no bilinear form", hint="kernel.check() compares the values of one input",
        )  # fmt: skip
    rng = np.random.Generator(np.random.PCG64DXSM(seed))
    problems: list[str] = []
    for number in range(rounds):
        # All 256 values alike: the lemma counts zeros among the values that can be drawn.
        point = {n: rng.integers(-128, 128, op.tensors[n].shape, np.int8) for n in free}
        wanted, found = evaluate(op, point)[op.out.tensor], run({**op.values, **point})
        if not np.array_equal(wanted, found):
            wrong = np.argwhere(wanted != found)
            index = ",".join(str(int(i)) for i in wrong[0])
            problems.append(
                f"point {number}: {len(wrong):,} of {wanted.size:,} sums are not the formula's, the"
                f" first is {op.out.tensor}[{index}]"
            )
            break
    # A wrong kernel has a wrong element, and that element has to pass every round.
    error = rounds * math.log2(len(free) / VALUES)
    return Part(
        "sums", tuple(problems),
        f"{int(np.prod(op.tensors[op.out.tensor].shape)):,} sums of up to {products:,} products are"
        f" NumPy's at {rounds} random points of all int8 values", error,
    )  # fmt: skip


def values_at_random(op: Operator, run: Run, draw: Callable[[int], Mapping[str, Array]],
                     rounds: int) -> Part:  # fmt: skip
    """Whether the kernel itself, epilogue included, gives NumPy's values. A test, no proof. draw:
    operands of a round."""
    for number in range(rounds):
        tensors = draw(number)
        wanted, found = evaluate(op, tensors)[op.out.tensor], run(tensors)
        if not np.array_equal(wanted, found):
            index = ",".join(str(int(i)) for i in np.argwhere(wanted != found)[0])
            return Part("values", (f"{op.out.tensor}[{index}] is not what NumPy computes",), "")
    return Part("values", (), f"a test: the kernel's results are NumPy's on {rounds} random inputs")
