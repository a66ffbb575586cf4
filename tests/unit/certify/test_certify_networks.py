"""Programs of networks are certified layer by layer; what is changed is refused, or equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csp_embed.errors import CspEmbedError, InputError
from csp_embed.ir.stream import Program
from csp_embed.judge.certify.network import meaning
from csp_embed.judge.certify.network.run import certify_network
from csp_embed.machine.program_file import isa_of, write_program
from tests.command_line import run
from tests.oracles.exact_stream import order_fault
from tests.oracles.network_mutants import NETWORK_KINDS, STATED, network_mutant
from tests.oracles.network_program import difference
from tests.oracles.small_networks import small_networks


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Program]:
    folder = tmp_path_factory.mktemp("networks")
    return {name: program for name, (program,) in small_networks(folder)}


@pytest.mark.parametrize("name", ["small", "residual"])
def test_a_network_is_certified(programs: Mapping[str, Program], name: str) -> None:
    program = programs[name]
    found = certify_network(isa_of(program), program, name)
    assert found.ok, found.show()
    assert found.log2_error < -50
    assert [p.name for p in found.parts] == ["order", "frame", "sums", "steps", "requantisation"]
    assert [la.name for la in found.layers] == [
        la["name"] for la in program.meta["network"]["layers"]
    ]
    # The oracle of the mutants below agrees that the program is right.
    assert not difference(isa_of(program), program, program, range(2))


@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_what_is_changed_is_refused_or_no_change(
    programs: Mapping[str, Program], kind: str
) -> None:
    refused = 0
    for n, program in enumerate(programs.values()):
        isa = isa_of(program)
        for seed in range(3):
            made = network_mutant(isa, program, kind, 10 * n + seed)
            if made is None:
                continue
            changed, what = made
            try:
                found = certify_network(isa, changed, "changed").ok
            except CspEmbedError:
                found = False
            refused += not found
            if found:
                stream = program if kind in STATED else changed
                meant = changed if kind == "meaning" else program
                assert not difference(isa, stream, meant, range(3)), what
                assert kind in STATED or not order_fault(isa, changed), what
    assert refused > 0


def test_a_layer_without_a_proof_is_named(
    programs: Mapping[str, Program], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Then nothing is said of the whole, and the exit code is that of a refusal."""
    known = {k: v for k, v in meaning.KINDS.items() if k != "AveragePool"}
    monkeypatch.setattr(meaning, "KINDS", known)
    file = tmp_path / "net.npz"
    write_program(file, programs["small"])
    got = run(capsys, "certify", file)
    assert got.code == 5
    assert "layer average_pool_2d.3: not certified: AveragePool has no form" in got.out
    assert "layer conv_2d.2: certified" in got.out
    assert "NOT certified as a whole: 4 of 5 layers are" in got.out
    document = run(capsys, "certify", file, "--json").document
    assert not document["ok"]
    assert [la["ok"] for la in document["layers"]] == [True, True, True, False, True]


def test_an_overwritten_tensor_is_seen(programs: Mapping[str, Program]) -> None:
    """A layer that reads where a later tensor lies is refused, though each layer alone is right."""
    program = programs["small"]
    meta: Any = program.meta
    network = meta["network"]
    moved = {**network["statement"]["places"]}
    names = [o["output"] for o in network["statement"]["operators"]][:2]
    moved[names[0]] = {**moved[names[0]], "addr": moved[names[1]]["addr"]}
    statement = {**network["statement"], "places": moved}
    changed = replace(program, meta={**meta, "network": {**network, "statement": statement}})
    found = certify_network(isa_of(program), changed, "changed")
    assert any(p.startswith("frame:") for p in found.problems)


@pytest.mark.parametrize(
    ("key", "value"), [("layers", 3), ("tensors", {}), ("places", {"x": {"addr": "?"}})]
)
def test_a_statement_that_cannot_be_read(
    programs: Mapping[str, Program], key: str, value: Any
) -> None:
    program = programs["small"]
    network: Any = program.meta["network"]
    statement = {**network["statement"], key: value}
    changed = replace(
        program, meta={**program.meta, "network": {**network, "statement": statement}}
    )
    with pytest.raises(InputError, match="cannot be understood"):
        certify_network(isa_of(program), changed, "net.npz")


def test_products_in_the_field_are_those_of_integers() -> None:
    """Three parts of 21 bits against Python's integers."""
    from csp_embed.judge.certify.field import P
    from csp_embed.judge.certify.network.sums import products

    rng = np.random.default_rng(0)
    windows = rng.integers(0, 50, (2, 3, 7))
    out = np.arange(2 * 3 * 4).reshape(3, 2, 4).transpose(1, 0, 2)
    weights = rng.integers(-128, 128, (8, 7))
    x = rng.integers(0, P, 50, dtype=np.uint64)
    m = meaning.Meaning("sum", windows, out, (-128, 127))
    found = products(m, weights, x)
    for g in range(2):
        for p in range(3):
            for k in range(4):
                row = zip(weights[4 * g + k].tolist(), windows[g, p].tolist(), strict=True)
                assert int(found[out[g, p, k]]) == sum(w * int(x[i]) for w, i in row) % P
