"""Linear programs with their dual values, by GLOP through MathOpt. OR-tools is imported inside.

GLOP is a simplex code on one thread: equal input, equal output.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Row = tuple[NDArray[np.int64], Floats, float]  # columns, coefficients, right-hand side


def duals(objective: Floats, at_most: Sequence[Row], equal: Sequence[Row]) -> Floats | None:
    """Multipliers >= 0 of the `at_most` rows at an optimum of

        min objective x,  x >= 0,  a x <= b (at_most),  a x = b (equal)

    or None where GLOP finds no optimum. Callers must not rely on more than their signs: rounding
    leaves them nearly optimal."""
    found = optimum(objective, at_most, equal)
    return None if found is None else found[1]


def optimum(
    objective: Floats, at_most: Sequence[Row], equal: Sequence[Row]
) -> tuple[Floats, Floats, Floats] | None:
    """(x, multipliers >= 0 of `at_most`, multipliers of `equal`) of the same program."""
    from ortools.math_opt.python import mathopt

    model = mathopt.Model()
    x = [model.add_variable(lb=0.0) for _ in objective]
    model.minimize(
        mathopt.LinearSum([float(c) * v for c, v in zip(objective, x, strict=True) if c])
    )
    fixed = [
        model.add_linear_constraint(_sum(mathopt, x, columns, factors) == right)
        for columns, factors, right in equal
    ]
    rows = [
        model.add_linear_constraint(_sum(mathopt, x, columns, factors) <= right)
        for columns, factors, right in at_most
    ]
    result = mathopt.solve(model, mathopt.SolverType.GLOP)
    # One without the other is a program that GLOP gave up on.
    if not result.has_dual_feasible_solution() or not result.has_primal_feasible_solution():
        return None
    values, multipliers = result.variable_values(), result.dual_values()
    return (
        # Rounding leaves values a little below 0, which callers would have to mend everywhere.
        np.array([max(0.0, values[v]) for v in x]),
        # Duals of <= rows of a minimum are not positive; callers want them the other way round.
        np.array([max(0.0, -multipliers[row]) for row in rows]),
        np.array([-multipliers[row] for row in fixed]),
    )


def _sum(mathopt, x, columns, factors):  # type: ignore[no-untyped-def]
    """sum of factor * x[column]."""
    return mathopt.LinearSum([float(f) * x[c] for c, f in zip(columns, factors, strict=True)])
