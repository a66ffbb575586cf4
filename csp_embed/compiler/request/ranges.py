"""How large the tensors of an epilogue can be: what is known of them, or promised.

Takes: an Operator and the constants of `compile`.  Leaves: epilogue step -> largest magnitude. The
schedule adds a tensor by multiply-accumulate only where that reaches every value it may have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import OperatorError
from csp_embed.ir.operator import Operator

Array = NDArray[Any]


def magnitudes(op: Operator, constants: Mapping[str, Array]) -> dict[int, int]:
    """Largest magnitude of each epilogue tensor, by its step's number, where known or promised.

    Raises: OperatorError for a constant that breaks its promise.
    """
    out: dict[int, int] = {}
    for i, step in enumerate(op.epilogue):
        if step.access is None:
            continue
        name = step.access.tensor
        # Known values are better than a promise, and must keep it.
        known = op.values.get(name, constants.get(name))
        if known is not None:
            array = np.asarray(known)
            # int64 first: |-2^31| has no int32.
            size = np.abs(array.astype(np.int64))
            if step.bias_range is not None and array.size and size.max() > step.bias_range:
                raise _broken_promise(name, array, size, step.bias_range)
            out[i] = int(size.max()) if array.size else 0
        elif step.bias_range is not None:
            # Neither known nor promised: no entry, and no multiply-accumulate.
            out[i] = step.bias_range
    return out


def _broken_promise(name: str, array: Array, size: Array, promised: int) -> OperatorError:
    at = np.unravel_index(int(np.argmax(size)), size.shape)
    index = ",".join(str(int(n)) for n in at)
    return OperatorError(
        f"{name}[{index}] is {int(array[at])}",
        where="bias_range (--bias-range)",
        why=f"the operator promises |{name}| <= {promised}",
        hint=f"--bias-range {int(size.max())}; or none: values that are known need no promise",
    )
