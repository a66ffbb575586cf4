"""How few steps any covering of a ground problem can have, regular or not.

Takes: Ground (its number of steps is not read).  Leaves: a bound, proved by counting.
"""

from __future__ import annotations

import math

import numpy as np

from csp_embed.ir.ground import Ground


def least_steps(ground: Ground) -> int:
    """A lower bound on the steps of every covering.

    A lane of an operand's memory element holds one tensor element in a step (rule 2), so a step
    meets at most `spread` points of that tensor element there: the instruction points that share
    the lane. An element that d points touch fills ceil(d / spread) lanes at least, and a step has
    as many lanes of the operand as its memory element.
    """
    # A step has so many places.
    best = math.ceil(len(ground.points) / ground.lanes)
    for role in ground.dims:
        elements = ground.elements[role]
        # Instruction points that share one lane of the operand.
        spread = ground.lanes // ground.lane_count(role)
        degrees = np.bincount(elements)
        # Rounded up for each element: a lane holds one of them in a step.
        filled = int(np.sum(-(-degrees // spread)))
        best = max(best, math.ceil(filled / ground.lane_count(role)))
    return best
