"""The one part of the build that pyproject.toml cannot say.

`isa_specs/` and `deepbench/` stand at the top of the repository for people; in a wheel they must
lie inside the package (`csp_embed/isa_specs`), where csp_embed/machine/resources.py finds them. An
editable install reads them where they are.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

DATA_FOLDERS = ("isa_specs", "deepbench", "platforms", "profiles")
DATA_SUFFIXES = (".yaml", ".json", ".md")


class BuildWithData(build_py):
    """Copies the data folders into the built package."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source, target in self._data():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        own = super().get_outputs(include_bytecode)
        return own if self.editable_mode else [*own, *(str(target) for _, target in self._data())]

    def _data(self) -> list[tuple[Path, Path]]:
        """(file, where it goes) for every data file."""
        return [
            (path, Path(self.build_lib, "csp_embed", path))
            for folder in DATA_FOLDERS
            for path in sorted(Path(folder).rglob("*"))
            if path.suffix in DATA_SUFFIXES
        ]


setup(cmdclass={"build_py": BuildWithData})
