"""The analytic cost inside CP-SAT: exact products over blocks.

Takes: model, Vars, Problem, an upper bound.  Leaves: the minimised expression, in the units of
`algebra.cost.objective`. steps and packed elements are products of the blocks' factors, each a
linear expression in the options.
"""

from __future__ import annotations

import math
from typing import Any

from csp_embed.embed.algebra import cost
from csp_embed.embed.model.variables import Vars
from csp_embed.embed.problem import EmbedProblem, Option
from csp_embed.ir.operator import Role


def post(model: Any, vars: Vars, problem: EmbedProblem, limit: int) -> Any:
    """Posts the products, limits the cost to `limit`, minimises it; returns its expression."""
    w = problem.weights
    # No part may exceed the limit: that bounds every product's domain.
    most = {"steps": limit // (33 * w.step)}
    for role in vars.pairs[0][1].elements:
        each = max(w.vector, w.write) if role == Role.DST else w.read[role]
        most[role] = limit // (33 * max(each, 1))
    for what, n in most.items():
        _logarithms(model, vars, what, n)
    steps = _product(model, vars, problem, "steps", most["steps"])
    elements = {r: _product(model, vars, problem, r, n) for r, n in most.items() if r != "steps"}
    compute, read, write, host = cost.parts(w, steps, elements, commuted=False)
    *_, swapped = cost.parts(w, steps, elements, commuted=True)

    def top(*parts: Any) -> Any:
        out = model.new_int_var(0, limit // 32, "top")
        for part in parts:
            model.add(out >= part)
        return out

    packed = model.new_int_var(0, limit // 32, "host")
    model.add(packed >= host).only_enforce_if(~vars.commuted)
    model.add(packed >= swapped).only_enforce_if(vars.commuted)
    total = model.new_int_var(0, limit, "cost")
    model.add(total == cost.objective(compute, read, write, packed, slowest=top))
    model.minimize(total)
    return total


def _factor(option: Option, what: str) -> int:
    return option.steps if what == "steps" else option.elements[what]


def _product(model: Any, vars: Vars, problem: EmbedProblem, what: str, limit: int) -> Any:
    """The product over blocks of the picked options' factors, at most `limit`."""
    constant = 1
    factors: list[tuple[int, int, Any]] = []
    for block in range(len(problem.blocks) + 1):
        pairs = [(v, _factor(o, what)) for v, o in vars.pairs if o.block == block]
        values = sorted({f for _, f in pairs})
        if len(values) == 1:
            constant *= values[0]
            continue
        factors.append((values[0], values[-1], sum(f * v for v, f in pairs)))
    if not factors or not constant:
        return constant
    limit //= constant
    factors.sort(key=lambda f: f[1])
    least, most, product = factors[0]
    for n, (low, high, expression) in enumerate(factors[1:]):
        rest = math.prod(max(f[0], 1) for f in factors[n + 2 :])
        least, most = least * low, min(most * high, limit // rest)
        both = model.new_int_var(min(least, most), most, f"{what}{n}")
        model.add_multiplication_equality(both, [product, expression])
        product = both
    return constant * product


_SCALE = 1 << 20


def _logarithms(model: Any, vars: Vars, what: str, limit: int) -> None:
    """The product's upper limit once more, as a linear constraint that propagates far better:
    sum of log(factor) <= log(limit), rounded so that it never cuts off an answer."""
    terms = [(v, math.floor(_SCALE * math.log(max(_factor(o, what), 1)))) for v, o in vars.pairs]
    if any(c for _, c in terms):
        model.add(sum(c * v for v, c in terms if c) <= math.ceil(_SCALE * math.log(limit + 1)))
