"""A misspelt name gets the one that was meant, wherever names are taken."""

from __future__ import annotations

from pathlib import Path

import pytest

import csp_embed as ce
from csp_embed.errors import CspEmbedError
from csp_embed.machine.load import builtin_names, load_isa
from csp_embed.nearest import did_you_mean, nearest
from csp_embed.network.files.platform import find_platform, shipped_platforms

GRAPH = Path(__file__).parents[2] / "examples" / "data_parallel_wins.json"


@pytest.mark.parametrize("name", builtin_names())
def test_one_letter_wrong_finds_every_machine(name: str) -> None:
    """Left out, doubled, or in capitals: no other machine is nearer than the one that was meant."""
    for wrong in (name[:-2] + name[-1], name + name[-1], name.upper()):
        if wrong in builtin_names():
            continue
        with pytest.raises(CspEmbedError) as caught:
            load_isa(wrong)
        assert caught.value.hint == f"did you mean {name!r}?"
        assert name in caught.value.why


@pytest.mark.parametrize("name", shipped_platforms())
def test_platforms(name: str) -> None:
    with pytest.raises(CspEmbedError) as caught:
        find_platform(name + "s")
    assert caught.value.hint == f"did you mean {name!r}?"


def test_methods_and_keywords() -> None:
    for options, meant in (({"method": "exakt"}, "exact"), ({"metod": "exact"}, "method")):
        with pytest.raises(CspEmbedError) as caught:
            ce.partition(GRAPH, **options)
        assert caught.value.hint == f"did you mean {meant!r}?"


def test_what_is_like_nothing_gets_the_other_hint() -> None:
    assert did_you_mean("zebra", ["vta", "gemmini"], "give one of these") == "give one of these"
    with pytest.raises(CspEmbedError) as caught:
        load_isa("zebra")
    assert "give one of these names" in caught.value.hint
    assert nearest("zebra", []) == []
