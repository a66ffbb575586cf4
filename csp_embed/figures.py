"""What the figures of a run mean: each is defined here, once, and explained in docs/glossary.md.

Plain numbers in, plain numbers out, so that judges and reports can share them. Products are
multiply-accumulates of the machine's contraction; resets and elementwise steps are none.
"""

from __future__ import annotations


def utilisation(contract_steps: int, cycles: float | None, step_cycles: float = 1.0) -> float:
    """Executed products over peak, 0 to 1: how busy the contraction unit is.

    A step executes all lanes, pad lanes too, and takes `step_cycles`; the peak is a step in each of
    these. So the lanes cancel, and what was never executed is never counted.
    """
    return contract_steps * step_cycles / cycles if cycles else 0.0


def lane_utilisation(useful: int | None, contract_steps: int, lanes: int) -> float | None:
    """Useful products over executed products, 0 to 1; None where either is not known or none.

    useful: products of two elements that exist (`ops.bound.useful_products`). Each of them takes a
    lane of a step of its own, so there are never more of them than lanes times steps.
    """
    return None if useful is None or not contract_steps else useful / (contract_steps * lanes)


def useful_utilisation(whole: float, lanes: float | None) -> float | None:
    """Useful products over peak, 0 to 1: utilisation times lane utilisation."""
    return None if lanes is None else whole * lanes


def ratio_to_bound(cycles: int | None, bound_cycles: int) -> float | None:
    """Cycles over the bound of the plain form (`ops.bound.bound_cycles`); below 1 where the stream
    leaves work of the plain form out."""
    return cycles / bound_cycles if cycles else None
