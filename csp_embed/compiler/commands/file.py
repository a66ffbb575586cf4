"""Program files of machines that are fed commands: the stream, HOST before it, where results lie.

Arrays of the `.npz`: `meta` (JSON text), `commands` uint64[n, words of a command], `before_addr`,
`before_len`, `before_data` (byte ranges of HOST) and logical tensors under their names in the
formula, the result as NumPy computes it. See docs/program-file.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed import __version__
from csp_embed.compiler.commands.kernel import POINT_STEPS, CommandKernel
from csp_embed.compiler.request.operands import operands
from csp_embed.errors import CspEmbedError, InputError
from csp_embed.files import atomic
from csp_embed.ir.operator import Operator
from csp_embed.ir.stream import Program
from csp_embed.judge import commands as judge
from csp_embed.judge.embedding.certificate import check_certificate
from csp_embed.machine.program_file import (
    isa_meta,
    isa_of,
    range_arrays,
    read_arrays,
    read_ranges,
    write_arrays,
)
from csp_embed.machine.spec import Isa
from csp_embed.ops.document import from_document, to_document
from csp_embed.ops.reference import evaluate
from csp_embed.targets.stream.places import offsets

Array = NDArray[Any]
FORMAT = "csp-embed-commands/1"
_HINT = "write it again with csp-embed compile -o"
# Names that no tensor may have.
_OWN = ("meta", "commands", "before_addr", "before_len", "before_data", "places")


@dataclass(frozen=True)
class CommandFile:
    """What such a file holds. tensors: operands and, under its name, the expected result."""

    meta: Mapping[str, Any]
    words: NDArray[np.uint64]
    before: tuple[tuple[int, NDArray[np.uint8]], ...]
    tensors: Mapping[str, Array]
    places: NDArray[np.int64]
    operator: Operator
    isa: Isa

    def problems(self, *, values: bool = True, whole: bool | None = None) -> list[str]:
        """What is wrong with the stream and its values; see `judge/commands.py`."""
        # Point by point is exact by definition, but takes milliseconds a step.
        at_once = len(self.words) > 4 * POINT_STEPS if whole is None else whole
        stream = judge.Stream(self.words, self.before, self.places)
        return judge.problems(
            self.isa, stream, self.operator, self.tensors, values=values, whole=at_once
        )

    def certificate_problems(self) -> list[str]:
        """What contradicts the embedding's certificate."""
        return list(check_certificate(self.meta["certificate"], self.meta).problems)


def content(kernel: CommandKernel, tensors: Mapping[str, Array]) -> CommandFile:
    """A file's content with these operands; NumPy computes what is expected.

    Raises: InputError for missing or wrong tensors.
    """
    op = kernel.operator
    given = operands(op, kernel.constants, tensors)
    # HOST before the run does not depend on the result: it is zeros there.
    before = tuple(kernel.before(given))
    # Expected values come from the formula alone.
    given[op.out.tensor] = evaluate(op, given)[op.out.tensor]
    found = offsets(kernel.places)
    place: dict[str, Any] = {}
    if found is not None:
        # Offsets of each axis add up to the place of an element.
        digits = [{"axis": t, "offset_bytes": v} for t, v in enumerate(found[1])]
        shape = list(kernel.places.shape)
        place = {op.out.tensor: {"addr": found[0], "dtype": op.out_dtype, "shape": shape,
                                 "digits": digits}}  # fmt: skip
    p = kernel.lowered
    meta = isa_meta(kernel.isa) | {
        "format": FORMAT,
        "version": __version__,
        "operator": to_document(op),
        # Text for people: the file's meaning is in its words.
        "embedding": kernel.embedding.formula(),
        "order": p.walk.show(),
        "counts": dict(p.counts),
        "bytes": {"loaded": p.loaded, "stored": p.stored},
        "certificate": kernel.certificate(),
        "tensors": place,
    }
    return CommandFile(meta, p.words, before, given, kernel.places, op, kernel.isa)


def write(path: str | Path, file: CommandFile) -> None:
    """Writes a program file; equal ones give equal bytes.

    Raises: InputError where the path cannot be written.
    """
    arrays: dict[str, Any] = {
        "meta": [np.array(json.dumps(file.meta, sort_keys=True))],
        "commands": [file.words],
    }
    # Two places at most for the result: a sum of offsets, or every address.
    arrays |= range_arrays("before", file.before)
    if not file.meta["tensors"]:  # no sum of one number per axis says where the result lies
        arrays["places"] = [file.places]
    arrays |= {n: [np.asarray(v)] for n, v in sorted(file.tensors.items())}
    with atomic(path, "wb") as out:
        write_arrays(out, arrays)


def read(path: str | Path) -> CommandFile:
    """Raises: InputError naming the file and what is wrong with it; SpecError for its machine."""
    # Types and shapes are judged below, in the words of this format.
    arrays = read_arrays(Path(path))
    try:
        meta = json.loads(str(arrays["meta"]))
        if meta.get("format") != FORMAT:
            raise ValueError(f"its format is {meta.get('format')!r}, not {FORMAT!r}")
        words = arrays["commands"]
        before = read_ranges(path, "before", arrays)
        tensors = {n: v for n, v in arrays.items() if n not in _OWN}
        # From its own text: the file needs no operator list.
        operator = from_document(meta["operator"], tensors)
        shape = operator.tensors[operator.out.tensor].shape
        places = arrays["places"] if "places" in arrays else _places(meta, operator, shape)
        # Every tensor of the operator is needed to compare.
        missing = [t for t in operator.tensors if t not in tensors]
        if missing or words.dtype != np.uint64 or words.ndim != 2:
            raise ValueError(f"it lacks {', '.join(missing) or 'words of commands'}")
        for name, declared in operator.tensors.items():
            if tensors[name].shape != declared.shape:
                raise ValueError(f"tensor {name} has shape {tensors[name].shape}")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, CspEmbedError) as error:
        raise InputError(
            f"{path} is no whole program file", where=str(path), why=str(error), hint=_HINT
        ) from error
    # isa_of asks for the meta alone; the stream is none of 128-bit words.
    isa = isa_of(Program(meta, np.zeros((0, 2), np.uint64), (), (), {}))
    if isa.commands is None:
        raise InputError(f"{isa.name} is not fed commands", where=str(path), hint=_HINT)
    return CommandFile(meta, words, before, tensors, places, operator, isa)


def _places(meta: Mapping[str, Any], op: Operator, shape: tuple[int, ...]) -> NDArray[np.int64]:
    # The offsets of the axes, spread over the whole result.
    said = meta["tensors"][op.out.tensor]
    at: Array = np.full([1] * len(shape), int(said["addr"]), np.int64)
    for digit in said["digits"]:
        line = np.array(digit["offset_bytes"], np.int64)
        at = at + line.reshape([-1 if a == digit["axis"] else 1 for a in range(len(shape))])
    return np.ascontiguousarray(np.broadcast_to(at, shape))
