"""How large the house is: files, lines and comments by folder, the longest files and functions.

    scripts/lines [--top 10] [--deep]

Lines are those of the file, comments and blank ones too: what a reader scrolls through. Comments
are lines that hold one, for a hundred lines; docstrings and what is said to tools are none.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import tokenize
from pathlib import Path
from statistics import median

PACKAGE = Path(__file__).resolve().parent.parent / "csp_embed"


# Said to the formatter, the linter or the type checker alone.
FOR_TOOLS = re.compile(r"#\s*(fmt:|noqa|pyright:|type:|ruff:|pragma)[^#(]*$")


def folder_of(path: Path, deep: bool) -> str:
    """The first folder below the package, or all of them; "." for its own modules."""
    parts = path.relative_to(PACKAGE).parts[:-1]
    return "/".join(parts if deep else parts[:1]) or "."


def comments(text: str) -> int:
    """Lines with a comment for people."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    found = [t.string for t in tokens if t.type == tokenize.COMMENT]
    return sum(not FOR_TOOLS.match(c) for c in found)


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
    parser.add_argument("--deep", action="store_true", help="folders inside folders each")
    args = parser.parse_args()
    texts = {p: p.read_text("utf-8") for p in sorted(PACKAGE.rglob("*.py"))}
    sizes = {p: len(text.splitlines()) for p, text in texts.items()}
    said = {p: comments(text) for p, text in texts.items()}
    folders = {p: folder_of(p, args.deep) for p in sizes}
    wide = max(map(len, folders.values())) + 2
    print(f"{'folder':<{wide}}{'files':>6}{'lines':>8}{'median':>8}{'comments':>10}  longest")
    for folder in [*sorted(set(folders.values())), "all"]:
        mine = {p: n for p, n in sizes.items() if folder in ("all", folders[p])}
        longest = max(mine, key=lambda p: mine[p])
        share = 100 * sum(said[p] for p in mine) / max(sum(mine.values()), 1)
        print(f"{folder:<{wide}}{len(mine):>6}{sum(mine.values()):>8}{median(mine.values()):>8.0f}"
              f"{share:>10.1f}  {longest.relative_to(PACKAGE)} {mine[longest]}")  # fmt: skip
    print("\nlongest files")
    for path in sorted(sizes, key=lambda p: -sizes[p])[: args.top]:
        print(f"{sizes[path]:>6}  {path.relative_to(PACKAGE)}")
    print("\nlongest functions")
    found = [(n, f"{p.relative_to(PACKAGE)}:{name}") for p in sizes for n, name in functions(p)]
    for n, name in sorted(found, key=lambda f: (-f[0], f[1]))[: args.top]:
        print(f"{n:>6}  {name}")


if __name__ == "__main__":
    main()
