"""`--data FILE.npz`: the operands that a user brings."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from csp_embed.compiler.request.operands import operand
from csp_embed.errors import InputError
from csp_embed.ir.operator import Operator


def read_operands(op: Operator, path: Path) -> tuple[dict[str, Any], list[str]]:
    """(operands by name, as the operator declares them; what of the file is not used, in words).

    Raises: InputError where the file cannot be read, or an operand is missing or of the wrong shape
    or type.
    """
    given = _read(path)
    # Neither the result nor what the program computes by itself.
    wanted = [t for t in op.tensors if t != op.out.tensor and t not in op.values]
    try:
        found = {name: operand(op, given, name) for name in wanted}
    except InputError as error:
        # Under the file's name: the operand alone does not say where it came from.
        raise InputError(error.what, where=str(path), why=error.why, hint=error.hint) from error
    # Named, since a misspelt name would else be taken for a missing operand.
    unused = [
        f"{name} of {path} is not used: {op.name} takes {', '.join(wanted)}"
        for name in given
        if name not in found
    ]
    return found, unused


def _read(path: Path) -> dict[str, Any]:
    """Every array of the file."""
    hint = "--data takes a NumPy .npz file: numpy.savez(FILE, x=…, w=…)"
    try:
        # numpy.load takes anything else for a pickle, and says so.
        if not zipfile.is_zipfile(path):
            # Opened once, so that a missing file is told as missing.
            with open(path, "rb"):
                raise InputError(f"{path} is no whole .npz file", hint=hint)
        # No pickles: a file of operands must not run code.
        with np.load(path, allow_pickle=False) as file:
            return {k: file[k] for k in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        why = getattr(error, "strerror", None)
        raise InputError(f"cannot read {path}", why=why or str(error), hint=hint) from error
