"""Pages that code, tests and specs cite stand in the repository."""

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
