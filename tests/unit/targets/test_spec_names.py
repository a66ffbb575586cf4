"""A file that leaves out what may be left out, and names that no meaning could use."""

from pathlib import Path

import pytest
import yaml
from source_machine import DOT4

import csp_embed as ce
from csp_embed.compiler import machine_suite
from csp_embed.errors import SpecError
from csp_embed.machine.load import builtin, config_names, load_isa
from csp_embed.machine.program_file import isa_of, read_program
from csp_embed.machine.selfcheck import check as self_check

TERN = (Path(__file__).parents[2] / "data" / "specs" / "tern.yaml").read_text()


def outer() -> dict:
    place = builtin("toy_outer")
    assert place is not None
    return yaml.safe_load(place.read_text())


def one_size() -> dict:
    """toy_outer with its sizes as numbers of `let`, without configuration and limits."""
    spec = outer()
    sizes = spec.pop("configuration")["named"]["std"]
    del spec["limits"]
    spec["let"] = {**sizes, **spec["let"]}
    return spec


def test_a_machine_of_one_size_needs_no_configuration_and_no_limits(tmp_path):
    file = tmp_path / "one.yaml"
    file.write_text(yaml.safe_dump(one_size(), sort_keys=False))
    assert config_names(file) == ["fixed"]
    isa = load_isa(file)
    assert {o.kind for o in machine_suite.run(isa)} == {"equal"}
    # Limits that nobody states are the strict ones.
    assert isa.limits == load_isa("vta").limits
    kernel = ce.compile(ce.matmul(m=9, n=5, k=7, clip=(0, 9)), isa=file)
    kernel.save(tmp_path / "k.npz")
    # The file carries the machine.

    assert isa_of(read_program(tmp_path / "k.npz")).dims == isa.dims
    with pytest.raises(SpecError, match="has no effect"):
        load_isa(file, "std")


def test_a_word_of_pythons_syntax_is_no_name():
    spec = yaml.safe_dump(outer()).replace("name: there", "name: from")
    mill = TERN.replace("{at: ", "{from: ")
    dot = DOT4.replace("{x: X, a", "{in: X, a")
    for text in (spec, mill, dot):
        with pytest.raises(SpecError, match="is not a name") as error:
            load_isa(yaml.safe_load(text))
        assert "Python" in error.value.why


def test_an_operand_called_like_a_dimension_that_is_always_there():
    text = DOT4.replace("{d: ACC, x: X, w: W}", "{d: ACC, x: X, b: W}")
    with pytest.raises(SpecError, match="called 'b'") as error:
        load_isa(yaml.safe_load(text))
    assert "b, o and i always are" in error.value.why


def test_a_memory_of_sums_may_hold_one_element():
    spec = outer()
    for name in ("TILE", "TILE8"):
        spec["memories"][name]["depth"] = 1
    isa = load_isa(spec, "std")
    assert all(f.ok for f in self_check(isa))
    assert "wrong" not in {o.kind for o in machine_suite.run(isa)}
