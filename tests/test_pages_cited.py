"""Pages and files that code, tests and specs cite stand in the repository."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "csp_embed", "tests", "scripts", "isa_specs", "deepbench", "platforms", "profiles", "examples",
)  # fmt: skip
TEXTS = (".py", ".yaml", ".md", ".sh", ".c", ".json", "")


def cited(text: str) -> set[str]:
    """Names of pages: `docs/x.md`, `isa_specs/README.md`, `vta.md`."""
    return set(re.findall(r"(?<![\w/.])((?:[\w-]+/)*[\w-]+\.md)\b", text))


def test_cited_pages_exist() -> None:
    paths = [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*"))]
    texts = [p for p in paths if p.is_file() and p.suffix in TEXTS and p != Path(__file__)]
    assert len(texts) > 300
    missing = [
        (str(path.relative_to(ROOT)), name)
        for path in texts
        for name in cited(path.read_text("utf-8"))
        if not any((folder / name).is_file() for folder in (ROOT, ROOT / "docs", path.parent))
    ]
    assert missing == []


def test_the_scan_sees_a_missing_page() -> None:
    assert cited("as facts/vta.md and `KNOWN.md` say") == {"facts/vta.md", "KNOWN.md"}


def test_every_rule_that_is_cited_is_stated() -> None:
    """ "rule 7" in the code of embeddings means that line of docs/embedding-rules.md."""
    page = (ROOT / "docs" / "embedding-rules.md").read_text("utf-8")
    stated = {int(n) for n in re.findall(r"^(\d+)\. \*\*", page, re.MULTILINE)}
    for path in sorted((ROOT / "csp_embed" / "embed").rglob("*.py")):
        for number in re.findall(r"\brule (\d+)\b", path.read_text("utf-8")):
            assert int(number) in stated, (path, number)


# Files of other projects, which their names are said beside.
FOREIGN = {
    "envs.py", "distributed/utils.py", "config/parallel.py", "apps/gemmini/src/exo/matmul.py",
    "src/exo/platforms/gemmini.py",
}  # fmt: skip


def files_cited(text: str) -> set[str]:
    """Names of Python files: `choose.py`, `schedule/choose.py`."""
    return set(re.findall(r"(?:[\w.]+/)*\w+\.py\b", text))


def test_cited_files_exist() -> None:
    """A file that moved takes its name along in what others say of it."""
    files = [p for f in ("csp_embed", "tests", "scripts") for p in sorted((ROOT / f).rglob("*.py"))]
    known = [p.relative_to(ROOT).as_posix() for p in files] + ["setup.py"]
    missing = [
        (path.relative_to(ROOT).as_posix(), name)
        for path in files
        if path != Path(__file__)
        for name in files_cited(path.read_text("utf-8")) - FOREIGN
        if not any(f"/{k}".endswith(f"/{name}") for k in known)
    ]
    assert missing == []


def test_the_scan_sees_a_missing_file() -> None:
    assert files_cited("as in schedule/choose.py, fill.py") == {"schedule/choose.py", "fill.py"}
