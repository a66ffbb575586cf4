"""Program files of machines that are fed commands: the stream, HOST before it, where results lie.

Arrays of the `.npz`: `meta` (JSON text), `commands` uint64[n, words of a command], `before_addr`,
`before_len`, `before_data` (byte ranges of HOST), `claim0` … (which element of a tensor each item
of HOST is, in runs; `meta.claims` says whose and where) and logical tensors under their names in
the formula, the result as NumPy computes it. See docs/program-file.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed import __version__
from csp_embed.compiler.commands.kernel import POINT_STEPS, CommandKernel
from csp_embed.compiler.commands.runs import runs_of, values_of
from csp_embed.compiler.request.operands import operands
from csp_embed.errors import CspEmbedError, InputError
from csp_embed.files import atomic
from csp_embed.ir.operator import Operator
from csp_embed.ir.stream import Program
from csp_embed.judge import commands as judge
from csp_embed.judge.certify.certificate import Certificate
from csp_embed.judge.certify.commands.certify import certify_commands
from csp_embed.judge.certify.commands.stated import Claim, Stated
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
_CLAIM = "claim"


@dataclass(frozen=True)
class CommandFile:
    """What such a file holds. tensors: operands and, under its name, the expected result. claims:
    which element each item of HOST is, and what is done to it; None in files that do not say."""

    meta: Mapping[str, Any]
    words: NDArray[np.uint64]
    before: tuple[tuple[int, NDArray[np.uint8]], ...]
    tensors: Mapping[str, Array]
    places: NDArray[np.int64]
    operator: Operator
    isa: Isa
    claims: tuple[Claim, ...] | None = None

    def problems(self, *, values: bool = True, whole: bool | None = None) -> list[str]:
        """What is wrong with the stream and its values; see `judge/commands.py`."""
        # Point by point is exact by definition, but takes milliseconds a step.
        at_once = len(self.words) > 4 * POINT_STEPS if whole is None else whole
        stream = judge.Stream(self.words, self.before, self.places)
        return judge.problems(
            self.isa, stream, self.operator, self.tensors, values=values, whole=at_once
        )

    def certify(self, *, seed: int | None = None, rounds: int = 1) -> Certificate:
        """Whether the stream is right for all inputs; see `judge/certify/commands`.

        Raises: CheckError where the judge cannot decide; InputError for a file without claims.
        """
        if self.claims is None:
            raise InputError("the file does not say how operands lie in HOST", hint=_HINT)
        stated = Stated(self.words, self.before, self.places, self.claims,
                        int(self.meta["claims"]["offset"]), self.tensors)  # fmt: skip
        return certify_commands(self.isa, stated, self.operator, seed=seed, rounds=rounds)

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
    claims = tuple(_claims(kernel))
    said = [{"tensor": c.tensor, "address": c.address, "dtype": c.dtype, "scale": c.scale,
             "offset": c.offset} for c in claims]  # fmt: skip
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
        "claims": {"offset": p.epilogue.offset, "items": said},
    }
    return CommandFile(meta, p.words, before, given, kernel.places, op, kernel.isa, claims)


def _claims(kernel: CommandKernel) -> Iterator[Claim]:
    """How `CommandProgram.image` packs operands, for who judges it."""
    p = kernel.lowered
    for role, r in p.regions.items():
        # A constant is plain bytes.
        if role not in p.embedding.layouts or role == "dst":
            continue
        added = role.startswith("add")
        yield Claim(
            r.place.layout.tensor, r.address, p.moves[role].dtype, r.map,
            1 << p.epilogue.shift if added else 1, p.epilogue.offset if role == "add0" else 0,
        )  # fmt: skip


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
    for n, c in enumerate(file.claims or ()):
        runs = runs_of(c.which)
        small = runs.astype(np.int32)
        arrays[f"{_CLAIM}{n}"] = [small if (small == runs).all() else runs]
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
        claims = _stated(meta, arrays, sum(len(d) for _, d in before))
        own = {*_OWN, *(f"{_CLAIM}{n}" for n in range(len(claims or ())))}
        tensors = {n: v for n, v in arrays.items() if n not in own}
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
    return CommandFile(meta, words, before, tensors, places, operator, isa, claims)


def _stated(
    meta: Mapping[str, Any], arrays: Mapping[str, Array], most: int
) -> tuple[Claim, ...] | None:
    """Raises: KeyError, TypeError, ValueError for claims that are none."""
    if "claims" not in meta:
        return None
    found: list[Claim] = []
    for n, c in enumerate(meta["claims"]["items"]):
        which = values_of(arrays[f"{_CLAIM}{n}"], most)
        if c["dtype"] not in ("int8", "int32"):
            raise ValueError(f"claim {n} is of {c['dtype']}")
        found.append(Claim(str(c["tensor"]), int(c["address"]), c["dtype"], which,
                           int(c["scale"]), int(c["offset"])))  # fmt: skip
    int(meta["claims"]["offset"])
    return tuple(found)


def _places(meta: Mapping[str, Any], op: Operator, shape: tuple[int, ...]) -> NDArray[np.int64]:
    # The offsets of the axes, spread over the whole result.
    said = meta["tensors"][op.out.tensor]
    at: Array = np.full([1] * len(shape), int(said["addr"]), np.int64)
    for digit in said["digits"]:
        line = np.array(digit["offset_bytes"], np.int64)
        at = at + line.reshape([-1 if a == digit["axis"] else 1 for a in range(len(shape))])
    return np.ascontiguousarray(np.broadcast_to(at, shape))
