"""The judge's arithmetic and expressions against Python integers and brute force."""

import itertools
import random

import numpy as np
import pytest

from csp_embed import ops
from csp_embed.judge.certify.epilogue import HIGH, LOW, Algebra, decide
from csp_embed.judge.certify.field import P, add, integer, inverse, mul, number, total
from csp_embed.judge.certify.formula import Symbols, sums, taps

EDGES = [0, 1, 2, P - 1, P - 2, 1 << 60, (1 << 60) - 1, 1 << 32, (1 << 32) - 1]


def test_field_is_arithmetic_modulo_the_prime():
    rng = random.Random(0)
    values = [*EDGES, *(rng.randrange(P) for _ in range(200))]
    a, b = (np.array(v, np.uint64) for v in zip(*itertools.product(values, EDGES), strict=True))
    assert mul(a, b).tolist() == [int(x) * int(y) % P for x, y in zip(a, b, strict=True)]
    assert add(a, b).tolist() == [(int(x) + int(y)) % P for x, y in zip(a, b, strict=True)]
    assert int(total(a, 0)) == sum(a.tolist()) % P
    assert int(mul(inverse(12345), number(12345))) == 1
    assert integer(int(number(-7))) == -7
    assert integer(P // 3) is None


def element(symbols, tensor, index):
    """The value of one element, from the tables alone."""
    value = int(symbols.whole[tensor])
    for table, i in zip(symbols.tables[tensor], index, strict=False):
        value = value * int(table[i]) % P
    return value


OPERATORS = {
    "conv": lambda: ops.conv2d(n=2, c=3, h=5, w=4, k=4, r=3, s=2, stride=2, pad=1),
    "grouped": lambda: ops.conv2d(n=1, c=4, h=4, w=4, k=6, r=2, s=2, groups=2, pad=1),
    "tied": lambda: ops.parse_formula(
        "y[k,p] += x[c,p+r] * w[k,c,2-r]; r < 3", {"x": (3, 7), "w": (2, 3, 3)}
    ),
    "average": lambda: ops.avg_pool2d(n=1, c=2, h=5, w=5, r=2, s=2, m=200, shift=9),
    "batch": lambda: ops.batch_matmul(batch=2, m=3, n=4, k=5),
    "ragged result": lambda: ops.parse_formula(
        "y[4*g+k,p] += x[g,c,p] * w[g,k,c]", {"x": (3, 5, 7), "w": (3, 4, 5), "y": (11, 7)}
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_formula_in_the_field_is_the_sum_over_all_points(name):
    op = OPERATORS[name]()
    symbols = Symbols(op, {}, [3])
    shape = op.tensors[op.out.tensor].shape
    want = np.zeros(shape, dtype=object)
    for point in itertools.product(*(range(n) for n in op.axes.values())):
        at = dict(zip(op.axes, point, strict=True))

        def index(access, at=at):
            return tuple(ix.const + sum(c * at[a] for a, c in ix.terms) for ix in access.index)

        value = 1
        for access in (op.lhs, op.rhs):
            where = index(access)
            size = op.tensors[access.tensor].shape
            if not all(0 <= i < n for i, n in zip(where, size, strict=True)):
                value = 0
            elif access.tensor in op.values:
                value *= int(op.values[access.tensor][where])
            else:
                value *= element(symbols, access.tensor, where)
        if all(i < n for i, n in zip(index(op.out), shape, strict=True)):
            want[index(op.out)] += value
    assert sums(symbols).tolist() == [int(v) % P for v in want.reshape(-1)]


def test_taps_of_a_window_are_the_elements_under_it():
    op = ops.max_pool2d(n=1, c=2, h=5, w=4, r=3, s=2, stride=2, pad=1)
    symbols = Symbols(op, {}, [1])
    n, c, p, q = op.tensors["y"].shape
    for tap, (values, there) in zip(itertools.product(range(3), range(2)), taps(symbols),
                                    strict=True):  # fmt: skip
        for flat, (b, k, i, j) in enumerate(np.ndindex(n, c, p, q)):
            row, column = 2 * i + tap[0] - 1, 2 * j + tap[1] - 1
            inside = 0 <= row < 5 and 0 <= column < 4
            assert bool(there[flat]) == inside
            want = element(symbols, "x", (b, k, row, column)) if inside else 0
            assert int(values[flat]) == want


def expressions(rng, alg, depth):
    """(expression, the same as a function of NumPy int32) at random."""
    e, f = ("var", 0), (lambda x: x)
    for _ in range(depth):
        kind, k = (
            rng.choice(["add", "shr", "max", "min"]),
            rng.choice([-300, -7, 0, 1, 3, 8, 100, 127]),
        )
        g = f
        if kind == "add":
            e, f = alg.add(e, ("num", k)), (lambda x, g=g, k=k: g(x) + np.int32(k))
        elif kind == "shr":
            s = k % 9
            e, f = alg.shr(s, e), (lambda x, g=g, s=s: g(x) >> np.int32(s))
        else:
            numpy = np.maximum if kind == "max" else np.minimum
            e = alg.both(kind, e, ("num", k))
            f = lambda x, g=g, k=k, numpy=numpy: numpy(g(x), np.int32(k))  # noqa: E731
    return e, f


@pytest.mark.parametrize(("low", "high"), [(-5000, 5000), (LOW, HIGH), (-(1 << 20), 3)])
def test_decisions_agree_with_trying_values(low, high):
    """Normal forms keep the function; what is called equal is; what is not has a witness."""
    rng = random.Random(low)
    alg = Algebra([(low, high)])
    ends = [low, low + 1, high - 1, high, 0]
    x = np.array(sorted({*ends, *(rng.randrange(low, high + 1) for _ in range(20000))}), np.int32)
    equal = 0
    with np.errstate(over="ignore"):
        for _ in range(600):
            (a, f), (b, g) = (expressions(rng, alg, rng.randrange(1, 4)) for _ in range(2))
            same = np.array_equal(f(x).astype(np.int8), g(x).astype(np.int8))
            said = decide(alg, a, b)
            assert not said or same, (a, b)
            # Over a small range the decision is exact.
            assert said or not same or high - low > 1 << 26 or high - low > 20000, (a, b)
            equal += bool(said)
    assert equal


def test_shared_parts_are_tried_once_over_their_own_range():
    """(S >> 8) + b over all of int32 twice is too much; over its clip it is not."""
    alg = Algebra([(LOW, HIGH), (LOW, HIGH)])
    e = alg.clamp(-1000, 1000, alg.add(alg.shr(8, ("var", 0)), ("var", 1)))
    one, other = alg.shr(1, alg.shl(1, e)), e
    assert decide(alg, one, other) == "all 2,001 values"
    assert not decide(alg, alg.shr(1, alg.shl(25, e)), other)
    assert not decide(alg, alg.shr(8, ("var", 0)), alg.shr(8, ("var", 1)))
