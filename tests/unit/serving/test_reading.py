"""Instances that contradict themselves are refused with the place and the reason."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import serving_oracle as oracle

import csp_embed as ce
from csp_embed.errors import Infeasible, InputError
from csp_embed.serving.files.read import instance_from


@pytest.fixture
def document() -> dict[str, Any]:
    value = oracle.random_document(0, machines=3, layers=4)
    value["model"] |= {"activation_bytes_per_token": 100, "token_bytes": 2}
    return value


def first_type(d: dict[str, Any]) -> dict[str, Any]:
    return next(iter(d["node_types"].values()))


@pytest.mark.parametrize(
    ("change", "what", "where"),
    [
        (lambda d: d.update(format="x"), "not a layer-placement-1 file", ""),
        (lambda d: d.update(nodes=[]), "there are no machines", "nodes"),
        (lambda d: d["nodes"][0].update(type="Z"), "unknown type 'Z'", "nodes[0]"),
        (lambda d: d["nodes"][1].update(id="m0"), "m0 is there twice", "nodes[1]"),
        (lambda d: d["model"].update(layers=0), "not a whole number", "model.layers"),
        (lambda d: d["model"].update(layers=4.0), "not a whole number", "model.layers"),
        (lambda d: first_type(d).pop("tokens_per_s_by_layers"), "no throughput table", "node_type"),
        (lambda d: first_type(d).update(max_layers=99), "its table ends", "max_layers"),
        (lambda d: first_type(d)["tokens_per_s_by_layers"].__setitem__(0, float("nan")),
         "not a finite number", "[0]"),
        (lambda d: first_type(d)["tokens_per_s_by_layers"].__setitem__(0, -1.0),
         "not a finite number", "[0]"),
        (lambda d: first_type(d)["tokens_per_s_by_layers"].__setitem__(0, "fast"),
         "is not a number", "[0]"),
        (lambda d: d["links"][0].update(tokens_per_s=float("inf")), "not a finite", "links[0]"),
        (lambda d: d["links"][0].pop("tokens_per_s"), "needs tokens_per_s", "links[0]"),
        (lambda d: d["links"][0].update(to="nobody"), "no such machine", "links[0]"),
        (lambda d: d["links"][0].update(to=d["links"][0]["from"]), "to itself", "links[0]"),
        (lambda d: d["links"].append(dict(d["links"][0])), "there twice", "links["),
        (lambda d: d.update(partial_inference="no"), "true or false", "partial_inference"),
        (lambda d: d["coordinator"].pop("to_nodes"), "to_nodes is missing", "coordinator"),
    ],
)  # fmt: skip
def test_refusals(change: Any, what: str, where: str, document: dict[str, Any]) -> None:
    change(document)
    with pytest.raises(InputError) as error:
        instance_from(document, "file.json")
    assert what in error.value.what
    assert error.value.where.startswith("file.json")
    assert where in error.value.where


@pytest.mark.parametrize(("factor", "words"), [(1 / 8, "bits were taken"), (3, "contradict")])
def test_bits_for_bytes(factor: float, words: str, document: dict[str, Any]) -> None:
    """tokens/s times bytes per token must be the bytes/s that the file states too."""
    link = document["links"][0]
    link["bytes_per_s"] = link["tokens_per_s"] * 100
    instance_from(copy.deepcopy(document))
    link["bytes_per_s"] *= factor
    with pytest.raises(InputError) as error:
        instance_from(document)
    assert words in error.value.what + error.value.why


def test_bytes_alone_say_tokens(document: dict[str, Any]) -> None:
    for link in document["links"]:
        link["bytes_per_s"] = 100 * link.pop("tokens_per_s")
    plain = oracle.random_document(0, machines=3, layers=4)
    assert (instance_from(document).link == instance_from(plain).link).all()


def test_intervals_end_with_the_model(document: dict[str, Any]) -> None:
    """A machine that could hold more layers than there are holds them all, no more."""
    for kind in document["node_types"].values():
        kind |= {"max_layers": 6, "tokens_per_s_by_layers": [60.0, 30, 20, 15, 90, 90]}
    assert {len(t.table) for t in instance_from(document).types} == {4}
    assert ce.serve(document).value <= 3 * 15 + 1e-9


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["model"].update(layers=50),
        lambda d: d["coordinator"].update(to_nodes=[]),
        lambda d: d.update(links=[]) or d["model"].update(layers=9),
    ],
)
def test_a_model_that_fits_nowhere(change: Any, document: dict[str, Any]) -> None:
    change(document)
    with pytest.raises(Infeasible) as error:
        ce.serve(document)
    assert "fits nowhere" in error.value.what
