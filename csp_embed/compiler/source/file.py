"""Program files of machines whose loops run in a CPU: the C text, its operands, what is expected.

Arrays of the `.npz`: `meta` (JSON text), `source` (the C text) and logical tensors under their
names in the formula, the result as NumPy computes it. See docs/program-file.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.compiler.source.kernel import SourceKernel
from csp_embed.errors import CspEmbedError, InputError
from csp_embed.files import atomic
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.ir.stream import Program
from csp_embed.judge.embedding.certificate import check_certificate, rebuild
from csp_embed.machine.contracts import contracted
from csp_embed.machine.program_file import (
    isa_meta,
    isa_of,
    read_arrays,
    write_arrays,
)
from csp_embed.machine.spec import Isa
from csp_embed.ops.document import from_document, to_document
from csp_embed.ops.reference import evaluate
from csp_embed.targets.source import tiles
from csp_embed.targets.source.constants import constant_data
from csp_embed.targets.source.lower import SourceProgram, lower
from csp_embed.targets.source.written.emit import CFile, write, write_plain

Array = NDArray[Any]
FORMAT = "csp-embed-source/1"
# Fields of CFile beside its text: how the function is called.
_SIGNATURE = ("name", "arguments", "prepared", "packed", "work", "threads")
_HINT = "write it again with csp-embed compile -o"


@dataclass(frozen=True)
class SourceFile:
    """What such a file holds. tensors: operands and, under its name, the expected result."""

    meta: Mapping[str, Any]
    text: str
    tensors: Mapping[str, Array]
    operator: Operator
    isa: Isa

    @property
    def file(self) -> CFile:
        """The C file with its signature."""
        # The signature is data, since the text is not parsed.
        said = self.meta["signature"]
        return CFile(
            self.text, str(said["name"]), tuple(said["arguments"]), tuple(said["prepared"]),
            bool(said["packed"]), bool(said["work"]), int(said["threads"]),
        )  # fmt: skip

    @property
    def operands(self) -> dict[str, Array]:
        """All tensors but the result."""
        return {n: v for n, v in self.tensors.items() if n != self.operator.out.tensor}

    @property
    def expected(self) -> Array:
        return self.tensors[self.operator.out.tensor]

    def kernel(self) -> SourceKernel:
        """The kernel: the file's text, and the loops of the embedding that it states.

        Raises: InputError where the certificate or the tile cannot be read."""
        embedding, program = self._program()
        why = str(self.meta.get("why", ""))
        isa = self.isa if embedding is None else contracted(self.isa, embedding.instruction)
        return SourceKernel(self.operator, isa, self.file, embedding, program, why, 0.0)

    def _program(self) -> tuple[Embedding | None, SourceProgram | None]:
        # Plain loops have no tile.
        if self.meta.get("tiling") is None:
            return None, None
        try:
            certificate = self.meta["certificate"]["embedding"]
            # From the certificate: the embedding is stored once.
            embedding = rebuild(certificate, self.operator, self.isa)
            tiling = tiles.read(self.meta["tiling"], embedding)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "the file's embedding or tile cannot be read",
                why=f"{type(error).__name__}: {error}",
                hint=_HINT,
            ) from error
        return embedding, lower(embedding, contracted(self.isa, embedding.instruction), tiling)

    def problems(self) -> list[str]:
        """What contradicts the file's own statements: certificate, loops, text, expected values."""
        kernel = self.kernel()
        found: list[str] = []
        if self.meta.get("certificate") is not None:
            found += list(check_certificate(self.meta["certificate"], self.meta).problems)
        found += [str(b) for b in kernel.verify()]
        # Written again: a text that was changed by hand is found so.
        if self._again(kernel) != self.text:
            found.append("source: the text is not what the stated embedding and tile give")
        expected = evaluate(self.operator, self.operands)[self.operator.out.tensor]
        if not np.array_equal(expected, self.expected):
            found.append("formula: the expected values are not those that NumPy computes")
        return found

    def _again(self, kernel: SourceKernel) -> str:
        """The text that the stated embedding and tile give."""
        name = self.file.name
        if kernel.program is None:
            return write_plain(self.operator, self.isa, name, kernel.why, self.file.threads).text
        packed = any(b.role == "packed" for b in kernel.program.buffers)
        # The file holds packed constants only where they were known.
        known = packed and not self.file.packed
        data = constant_data(kernel.program, kernel.isa, self.operands) if known else {}
        return write(kernel.program, kernel.isa, name, data, self.file.threads).text


def save(path: str | Path, kernel: SourceKernel, tensors: Mapping[str, Array]) -> None:
    """Writes a program file with these operands; NumPy computes what is expected.

    Raises: InputError where the path cannot be written.
    """
    op = kernel.operator
    meta = isa_meta(kernel.isa) | {
        "format": FORMAT,
        "operator": to_document(op),
        "signature": {n: getattr(kernel.file, n) for n in _SIGNATURE},
        "why": kernel.why,
        "embedding": None if kernel.embedding is None else kernel.embedding.formula(),
        "tiling": None if kernel.program is None else kernel.program.tiling.document(),
        "certificate": None if kernel.embedding is None else kernel.certificate(),
    }
    # Text as an array: one kind of file for all programs.
    arrays = {"meta": np.array(json.dumps(meta)), "source": np.array(kernel.text)}
    arrays |= {n: np.asarray(v) for n, v in sorted(tensors.items())}
    # Expected values are NumPy's, computed when the file is written.
    arrays[op.out.tensor] = evaluate(op, tensors)[op.out.tensor]
    with atomic(path, "wb") as file:
        write_arrays(file, {n: [v] for n, v in arrays.items()})


def read(path: str | Path) -> SourceFile:
    """Raises: InputError naming the file and what is wrong with it; SpecError for its machine."""
    arrays = read_arrays(Path(path))
    try:
        meta, text = json.loads(str(arrays.pop("meta"))), str(arrays.pop("source"))
        if meta.get("format") != FORMAT:
            raise ValueError(f"its format is {meta.get('format')!r}, not {FORMAT!r}")
        # Tensors of the file complete the document: values of constants.
        operator = from_document(meta["operator"], arrays)
        missing = [t for t in operator.tensors if t not in arrays]
        if missing or any(n not in meta["signature"] for n in _SIGNATURE):
            raise ValueError(f"it lacks {', '.join(missing) or 'parts of its signature'}")
    except (KeyError, TypeError, ValueError, AttributeError, CspEmbedError) as error:
        raise InputError(
            f"{path} is no whole program file", where=str(path), why=str(error), hint=_HINT
        ) from error
    for name, declared in operator.tensors.items():
        if arrays[name].shape != declared.shape:
            raise InputError(
                f"tensor {name} has shape {arrays[name].shape}", where=str(path),
                why=f"the formula declares {declared.shape}", hint=_HINT,
            )  # fmt: skip
    # isa_of asks for the meta alone.
    blank = Program(meta, np.zeros((0, 2), np.uint64), (), (), {})
    return SourceFile(meta, text, arrays, operator, isa_of(blank))
