"""What an embedding becomes on a machine that is fed commands: words, and the image of HOST."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.embedding import Embedding
from csp_embed.machine.commands.transfers import Transfer
from csp_embed.targets.commands.epilogue import Epilogue
from csp_embed.targets.commands.order import Walk
from csp_embed.targets.commands.regions import Region
from csp_embed.targets.commands.writer import CONSTANT

Array = NDArray[Any]


@dataclass(frozen=True)
class CommandProgram:
    """regions: operand ("lhs", "rhs", "dst", "add0", …, "constant") -> where it lies. moves: the
    copies that bring it. words: the stream. loaded, stored: bytes that copies move. counts:
    commands by name."""

    embedding: Embedding
    walk: Walk
    epilogue: Epilogue
    regions: Mapping[str, Region]
    moves: Mapping[str, Transfer]
    words: NDArray[np.uint64]
    counts: Mapping[str, int]
    steps: int
    loaded: int
    stored: int
    cycles: float

    def image(self, tensors: Mapping[str, Array]) -> list[tuple[int, NDArray[np.uint8]]]:
        """Byte ranges of HOST before the run."""
        found = []
        for role, r in self.regions.items():
            if role == "dst":
                continue
            if role == CONSTANT:
                # Where sums begin with a constant, it lies in HOST like a tensor.
                data = np.full(r.size // r.item, self.epilogue.offset, self.moves[role].dtype)
                found.append((r.address, data.view(np.uint8)))
                continue
            tensor = np.asarray(tensors[r.place.layout.tensor])
            # Tensors are added in front of the shift, so they are shifted up by it.
            if role.startswith("add"):
                tensor = tensor.astype(np.int64) << self.epilogue.shift
                # The constant of the epilogue comes with the first tensor that sums begin with.
                if role == "add0":
                    tensor = tensor + self.epilogue.offset
            found.append((r.address, r.image(tensor, self.moves[role].dtype)))
        return found
