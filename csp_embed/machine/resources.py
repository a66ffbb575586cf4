"""Folders of data that ship with the package: `isa_specs` and `deepbench`.

They stand at the top of the repository for people; a wheel carries them inside `csp_embed` (see
setup.py), a checkout (editable install) has them beside it.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from csp_embed.errors import InputError


def folder(name: str) -> Traversable:
    """The data folder `name`; InputError where the installation lacks it."""
    # First inside: an installed wheel must not pick up folders that happen to lie beside it.
    package = files("csp_embed")
    inside = package / name
    if inside.is_dir():
        return inside
    beside = Path(str(package)).parent / name
    if beside.is_dir():
        return beside
    raise InputError(
        f"the data folder '{name}' is missing from this installation",
        where=str(package),
        hint="reinstall csp-embed from a wheel or a checkout",
    )
