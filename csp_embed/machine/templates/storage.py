"""Reads what a machine of templates keeps values in: register files, memories, the host's caches.

Takes: the sections `registers` and `memories` (docs/machines.md).  Leaves: their typed values; each
refusal is a SpecError with file:line.
"""

from __future__ import annotations

from collections.abc import Mapping

from csp_embed.machine.reading.tree import NAMES, Item, is_name
from csp_embed.machine.spec import Memory
from csp_embed.machine.templates.spec import FUNCTIONS, Cache, RegisterFile

TYPES = {"int8": 1, "uint8": 1, "int16": 2, "int32": 4}  # bytes of a lane


def read_file(name: str, item: Item, sizes: Mapping[str, int]) -> RegisterFile:
    """One register file. name: its key in the section. Raises: SpecError."""
    table = item.table(["count", "allocated_by"], ["type"])
    by = table["allocated_by"].text()
    # Who allocates decides everything else about the file, so it is asked first.
    if by not in ("compiler", "number"):
        raise table["allocated_by"].error(
            f"'{by}' is not handled",
            "`compiler`: registers are variables of C; `number`: templates name them by number",
            "compiler",
        )
    # A type says which C variables hold a register; a numbered one has none.
    if (by == "compiler") != ("type" in table):
        raise item.error(
            "`type` is missing" if by == "compiler" else "`type` has no effect",
            "variables have a C type, and registers named by number are no variables",
            "type: int32x4_t" if by == "compiler" else "leave it out",
        )
    count = table["count"].integer(sizes)
    if count < 1:
        raise table["count"].error(f"{count} registers", "at least one is needed")
    ctype = table["type"].text() if "type" in table else ""
    return RegisterFile(name, count, ctype, by == "number")


def read_variables(
    item: Item,
    file_of: Mapping[str, str],
    files: Mapping[str, RegisterFile],
    sizes: Mapping[str, int],
) -> tuple[dict[str, str], dict[str, int]]:
    """(C type, registers that a value takes) of each register memory."""
    ctypes: dict[str, str] = {}
    takes: dict[str, int] = {}
    for name, file in file_of.items():
        table = item.entries()[name].entries()
        # By default a value is a variable of the file's type, in one register.
        ctypes[name], takes[name] = files[file].ctype, 1
        if "variable" in table:
            # A number in the template's text is all that a numbered register needs.
            if files[file].numbered:
                raise table["variable"].error(
                    "`variable` has no effect", f"registers of {file} are named by number"
                )
            ctypes[name] = table["variable"].text()
        if "takes" in table:
            # Groups of registers (RISC-V), rows of a matrix accumulator (POWER).
            takes[name] = table["takes"].integer(sizes)
            if not 1 <= takes[name] <= files[file].count:
                raise table["takes"].error(
                    f"a value takes {takes[name]} registers",
                    f"file {file} has {files[file].count}",
                )
    return ctypes, takes


def read_memories(
    item: Item, dims: Mapping[str, int], files: Mapping[str, RegisterFile]
) -> tuple[tuple[Memory, ...], dict[str, str], Item]:
    """(register memories, the file of each, the item of the host's memory)."""
    found: list[Memory] = []
    file_of: dict[str, str] = {}
    host: Item | None = None
    for name, entry in item.entries().items():
        kind = entry.entries().get("kind")
        if kind is None or kind.text() not in ("registers", "host"):
            raise entry.error("`kind` is missing", "a memory is `kind: registers` or `kind: host`")
        # HOST by name: meanings and operands write it so.
        if kind.text() == "host":
            if name != "HOST" or host is not None:
                raise entry.error(f"a host memory called {name}", "there is one, called HOST")
            host = entry
            continue
        # Meanings have one table of names.
        taken = "dimension" if name in dims else "function" if name in FUNCTIONS else ""
        if taken or not is_name(name):
            why = f"a {taken} has that name, and meanings could not tell them apart"
            raise entry.error(f"a memory called '{name}'", why if taken else NAMES,
                              "rename the memory")  # fmt: skip
        table = entry.table(["kind", "file", "lanes", "type"], ["variable", "takes"])
        if table["file"].text() not in files:
            raise table["file"].error(
                f"unknown register file '{table['file'].text()}'", f"known: {', '.join(files)}"
            )
        if table["type"].text() not in TYPES:
            raise table["type"].error(
                f"unknown type '{table['type'].text()}'", f"types are {', '.join(TYPES)}"
            )
        # Row-major, as the meanings index them.
        lanes = tuple(i.word() for i in table["lanes"].items())
        for n, lane in enumerate(lanes):
            if lane not in dims:
                raise (
                    table["lanes"]
                    .items()[n]
                    .error(f"unknown dimension '{lane}'", f"dims are {', '.join(dims)}")
                )
        size = TYPES[table["type"].text()]
        for lane in lanes:
            size *= dims[lane]
        # Depth is the number of registers: files that several memories share count for each of
        # them.
        count = files[table["file"].text()].count
        found.append(
            Memory(
                name=name, id=len(found), lanes=lanes, dtype=table["type"].text(),
                dram_dtype=table["type"].text(), depth=count, portable_depth=count,
                # C in program order is one queue.
                elem_bytes=size, load_queue="program", store_queue="program",
            )
        )  # fmt: skip
        file_of[name] = table["file"].text()
    if host is None:
        raise item.error("no host memory", "operands lie in memory: HOST: {kind: host, …}")
    return tuple(found), file_of, host


def read_host(item: Item) -> tuple[int, tuple[Cache, ...]]:
    """(bytes that buffers are aligned to, caches from the first on)."""
    table = item.table(["kind", "align", "caches"])
    align = table["align"].integer({})
    # Four bytes: int32 sums and biases lie in these buffers.
    if align < 4 or align & (align - 1):
        raise table["align"].error(
            f"alignment {align}", "a power of two is needed, and sums take 4 bytes", "64"
        )
    caches: list[Cache] = []
    # Nearest first: sizes of tiles are reckoned against each in turn.
    for entry in table["caches"].items():
        given = entry.table(["bytes", "line", "bytes_per_cycle"])
        caches.append(
            Cache(
                given["bytes"].integer({}), given["line"].integer({}),
                given["bytes_per_cycle"].number(),
            )
        )  # fmt: skip
    if not caches:
        raise table["caches"].error("no cache is stated", "tiles are sized for one")
    return align, tuple(caches)
