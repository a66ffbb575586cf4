"""Every error that the package raises says one thing to try."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from csp_embed import errors, ops
from csp_embed.errors import CspEmbedError, OperatorError

PACKAGE = Path(errors.__file__).parent
KINDS = {n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, CspEmbedError)}
# Raised inside one run of a stream only, which catches them and adds place and hint.
INNER = {"machine/interpreter.py", "machine/commands/interpreter.py"}


def without_hint(text: str) -> list[int]:
    """Lines that raise an error of ours without a word on what to try."""
    found: list[int] = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
            continue
        call = node.exc
        named = isinstance(call.func, ast.Name) and call.func.id in KINDS
        # `**` may bring one.
        if named and not {k.arg for k in call.keywords} & {"hint", None}:
            found.append(node.lineno)
    return found


def test_the_search_finds_one() -> None:
    assert without_hint("raise InputError('no', why='so')\nraise InputError('no', hint='a')") == [1]


def test_every_error_says_what_to_try() -> None:
    bad = {
        name: lines
        for path in sorted(PACKAGE.rglob("*.py"))
        if (name := path.relative_to(PACKAGE).as_posix()) not in INNER
        and (lines := without_hint(path.read_text("utf-8")))
    }
    assert bad == {}


@pytest.mark.parametrize(
    ("formula", "hint"),
    [
        ("y[c] += x[c,h]", "multiply by ones"),
        ("y[i] = max(x[i,j])", "y[i] max= x[i,j]"),
        ("y[i] += x[i,k] * w[k", "docs/formulas.md"),
    ],
)
def test_formulas(formula: str, hint: str) -> None:
    with pytest.raises(OperatorError) as caught:
        ops.parse_formula(formula, {"x": (2, 3), "w": (3,)})
    assert hint in caught.value.hint
