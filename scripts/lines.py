"""How large the house is: files and lines by folder, the longest files and functions.

    scripts/lines [--top 10]

Lines are those of the file, comments and blank ones too: what a reader scrolls through.
"""

from __future__ import annotations

import argparse
import ast
from pathlib import Path
from statistics import median

PACKAGE = Path(__file__).resolve().parent.parent / "csp_embed"


def folder_of(path: Path) -> str:
    """The first folder below the package; "." for its own modules."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else "."


def functions(path: Path) -> list[tuple[int, str]]:
    """(lines, name) of every function and method."""
    tree = ast.parse(path.read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        ((n.end_lineno or n.lineno) - n.lineno + 1, n.name)
        for n in ast.walk(tree)
        if isinstance(n, kinds)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--top", type=int, default=10, help="longest files and functions listed")
    args = parser.parse_args()
    sizes = {p: len(p.read_text("utf-8").splitlines()) for p in sorted(PACKAGE.rglob("*.py"))}
    print(f"{'folder':<12}{'files':>6}{'lines':>8}{'median':>8}  longest")
    for folder in [*sorted({folder_of(p) for p in sizes}), "all"]:
        mine = {p: n for p, n in sizes.items() if folder in ("all", folder_of(p))}
        longest = max(mine, key=lambda p: mine[p])
        name = longest.relative_to(PACKAGE)
        print(f"{folder:<12}{len(mine):>6}{sum(mine.values()):>8}{median(mine.values()):>8.0f}"
              f"  {name} {mine[longest]}")  # fmt: skip
    print("\nlongest files")
    for path in sorted(sizes, key=lambda p: -sizes[p])[: args.top]:
        print(f"{sizes[path]:>6}  {path.relative_to(PACKAGE)}")
    print("\nlongest functions")
    found = [(n, f"{p.relative_to(PACKAGE)}:{name}") for p in sizes for n, name in functions(p)]
    for n, name in sorted(found, key=lambda f: (-f[0], f[1]))[: args.top]:
        print(f"{n:>6}  {name}")


if __name__ == "__main__":
    main()
