"""The examples in the docstrings of `csp_embed.ops` hold."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from csp_embed import ops

MODULES = [m.name for m in pkgutil.iter_modules(ops.__path__)]
WITH_EXAMPLES = {"convolution", "deepbench", "formula", "linear", "pointwise", "pooling", "wide"}


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"csp_embed.ops.{name}"))
    assert result.failed == 0
    assert (result.attempted > 0) == (name in WITH_EXAMPLES)
