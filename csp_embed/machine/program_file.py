"""Program files (`.npz`): every array checked on reading, bytes a function of content.

Arrays: `meta` (JSON text), `insn` uint64[n, 2], `before_*` and `after_*` (addr uint64[], len
uint32[], data uint8[]): byte ranges of DRAM; all others are tensors. See docs/program-file.md.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError
from csp_embed.files import atomic
from csp_embed.ir.stream import Program
from csp_embed.machine.load import builtin_names, load_isa, load_text
from csp_embed.machine.spec import Isa
from csp_embed.narrow import is_object

FORMAT = "csp-embed-program/1"
Ranges = tuple[tuple[int, NDArray[np.uint8]], ...]
# Addresses are 32 bits in the format, as in VTA's loads and stores.
_ADDRESS_SPACE = 1 << 32
# Names end in these; types are exact, so that a file reads back to equal bytes.
_RANGES = {"addr": np.uint64, "len": np.uint32, "data": np.uint8}
_OWN = ("meta", "insn", *(f"{when}_{part}" for when in ("before", "after") for part in _RANGES))
# Timestamps would make two equal programs differ.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def isa_meta(isa: Isa) -> dict[str, Any]:
    """What a program's meta holds of its machine, so that `isa_of` finds it again."""
    document: dict[str, Any] = {
        "isa": isa.name, "config": dict(isa.config), "config_name": isa.config_name
    }  # fmt: skip
    return document | ({"isa_spec": isa.spec_text} if isa.spec_text else {})


def isa_of(program: Program) -> Isa:
    """The machine that a program was made for, by its meta.

    Raises: InputError where the meta names none; SpecError where what it names is illegal.
    """
    config = program.meta.get("config")
    if not is_object(config):
        raise InputError(
            "the program file does not name its machine", why="its meta has no `config`",
            hint="compile it again",
        )  # fmt: skip
    name = program.meta.get("isa", "vta")
    # A machine of the user's travels as text: the file must run where the spec is not.
    text = program.meta.get("isa_spec")
    if isinstance(text, str) and text:
        isa = load_text(text, "the program file's isa_spec", None, config)
    elif name in builtin_names():
        isa = load_isa(name, config)
    else:
        raise InputError(
            f"the program file names an unknown machine {name!r}",
            why=f"known: {', '.join(builtin_names())}",
            hint="give the machine's file with --isa",
        )
    # The name of a configuration says nothing about sizes, but reports show it.
    called = program.meta.get("config_name")
    return replace(isa, config_name=called) if isinstance(called, str) else isa


def write_program(path: str | Path, program: Program) -> None:
    """Writes `program`; the file appears whole or not at all, equal programs give equal bytes.

    Raises: InputError where the path cannot be written.
    """
    # Parts are written one after the other: joining weights of 512 MB would hold them twice.
    arrays: dict[str, Sequence[NDArray[Any]]] = {
        "meta": [np.array(json.dumps(program.meta, sort_keys=True))],
        "insn": [np.asarray(program.insn, dtype="<u8").reshape(-1, 2)],
    }
    arrays |= range_arrays("before", program.before)
    arrays |= range_arrays("after", program.after)
    # Sorted: equal programs give equal bytes, whatever order tensors came in.
    for name in sorted(program.tensors):
        assert name not in _OWN, f"a tensor may not be called {name}"
        arrays[name] = [np.asarray(program.tensors[name])]
    with atomic(path, "wb") as file:
        write_arrays(file, arrays)


def read_program(path: str | Path) -> Program:
    """The program in `path`.

    Raises: InputError naming the file and what is wrong: not there, not an npz, truncated, an array
        missing or of a wrong type, ranges that do not add up, overlap or leave the address space.
    """
    arrays = read_arrays(Path(path))
    missing = [name for name in _OWN if name not in arrays]
    if missing:
        raise _bad(path, f"it lacks the arrays {', '.join(missing)}", "this is no program file")
    # Types are checked here once; simulators index these arrays without looking again.
    insn = arrays["insn"]
    if insn.dtype != np.uint64 or insn.ndim != 2 or insn.shape[1] != 2:
        raise _bad(path, f"insn is {insn.dtype}{list(insn.shape)}", "uint64[n, 2] is expected")
    tensors = {name: array for name, array in arrays.items() if name not in _OWN}
    for name, array in tensors.items():
        # Objects and texts would need pickle, which can run code.
        if array.dtype.kind not in "iufb":
            raise _bad(path, f"tensor {name} is {array.dtype}", "numbers are expected")
    return Program(
        meta=_meta(path, arrays["meta"]),
        insn=np.ascontiguousarray(insn, dtype=np.uint64),
        before=read_ranges(path, "before", arrays),
        after=read_ranges(path, "after", arrays),
        tensors=tensors,
    )


def _bad(path: str | Path, what: str, why: str = "") -> InputError:
    return InputError(
        what, where=str(path), why=why, hint="write it again with csp-embed compile -o"
    )


def _meta(path: str | Path, array: NDArray[Any]) -> Mapping[str, Any]:
    if array.dtype.kind != "U" or array.ndim != 0:
        raise _bad(path, f"meta is {array.dtype}{list(array.shape)}", "one text is expected")
    try:
        meta = json.loads(str(array))
    except (json.JSONDecodeError, RecursionError) as error:
        raise _bad(path, "meta is not JSON", str(error)) from error
    if not is_object(meta):
        raise _bad(path, f"meta is a JSON {type(meta).__name__}", "an object is expected")
    # Files from before the key existed have the first format.
    if meta.get("format", FORMAT) != FORMAT:
        raise _bad(path, f"format {meta['format']!r} is not known", f"this version reads {FORMAT}")
    return meta


def read_ranges(path: str | Path, when: str, arrays: Mapping[str, NDArray[Any]]) -> Ranges:
    """The byte ranges "before" or "after". Raises: InputError where they do not add up."""
    for part, dtype in _RANGES.items():
        array = arrays[f"{when}_{part}"]
        if array.dtype != dtype or array.ndim != 1:
            found = f"{array.dtype}{list(array.shape)}"
            raise _bad(path, f"{when}_{part} is {found}", f"{np.dtype(dtype)}[] is expected")
    addr, size, data = (arrays[f"{when}_{part}"] for part in _RANGES)
    # uint32 would wrap around when summed.
    lengths = size.astype(np.int64)
    if len(addr) != len(size) or int(lengths.sum()) != len(data):
        raise _bad(
            path,
            f"the {when} ranges do not add up",
            f"{len(addr)} addresses, {len(size)} lengths, their sum {int(lengths.sum())} bytes, "
            f"data {len(data)} bytes",
        )
    # As uint64, where an address just below 2^64 wraps: the first test catches it.
    far = np.flatnonzero(
        (addr >= _ADDRESS_SPACE) | (addr + size.astype(np.uint64) > _ADDRESS_SPACE)
    )
    if len(far):
        n = int(far[0])
        raise _bad(
            path, f"{when} range {n} leaves the 32-bit address space",
            f"address {int(addr[n]):#x}, {int(lengths[n])} bytes",
        )  # fmt: skip
    # In order of address two ranges overlap only with a neighbour.
    order = np.argsort(addr, kind="stable")
    ends = addr[order].astype(np.int64) + lengths[order]
    clash = np.flatnonzero(ends[:-1] > addr[order][1:].astype(np.int64))
    if len(clash):
        n, m = int(order[clash[0]]), int(order[clash[0] + 1])
        raise _bad(
            path, f"{when} ranges {n} and {m} overlap", f"{int(addr[n]):#x} and {int(addr[m]):#x}"
        )
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return tuple((int(a), data[starts[n] : starts[n + 1]]) for n, a in enumerate(addr))


def range_arrays(when: str, ranges: Ranges) -> dict[str, Sequence[NDArray[Any]]]:
    """The three arrays of a list of ranges; the data stay in parts, weights may have 512 MB."""
    # Bytes of any array, without a copy where it is contiguous.
    parts = [np.ascontiguousarray(data).reshape(-1).view(np.uint8) for _, data in ranges]
    return {
        f"{when}_addr": [np.array([a for a, _ in ranges], dtype="<u8")],
        f"{when}_len": [np.array([len(p) for p in parts], dtype="<u4")],
        f"{when}_data": parts or [np.empty(0, np.uint8)],
    }


def write_arrays(file: IO[bytes], arrays: Mapping[str, Sequence[NDArray[Any]]]) -> None:
    """A stored (uncompressed) npz; an array is given as its parts along axis 0."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, parts in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
            # zipfile must know at the start whether an entry needs 64-bit sizes.
            info.file_size = sum(part.nbytes for part in parts)
            with archive.open(info, "w", force_zip64=info.file_size > 1 << 30) as entry:
                # Header 1.0: npy files that every reader knows.
                header = np.lib.format.header_data_from_array_1_0(parts[0])
                if len(parts) > 1:
                    header["shape"] = (sum(len(p) for p in parts), *parts[0].shape[1:])
                np.lib.format.write_array_header_1_0(entry, header)
                for part in parts:
                    # As the header says: an array in Fortran order is written without a transposed
                    # copy.
                    order = "F" if header["fortran_order"] else "C"
                    entry.write(part.tobytes(order))


Kind = Literal["stream", "commands", "source"]


def program_kind(path: str | Path) -> Kind:
    """What a program file holds: instructions, commands of a fed machine, or C for a CPU.

    A file that cannot be read counts as a stream: reading it as one says what is wrong with it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return "stream"
    # Two kinds have an array that no other has; names alone tell, nothing is unpacked.
    if "commands.npy" in names:
        return "commands"
    return "source" if "source.npy" in names else "stream"


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            return dict(_arrays(archive))
    except OSError as error:
        raise InputError(
            f"cannot read {path}",
            where=str(path),
            why=error.strerror or str(error),
            hint="csp-embed compile ... -o FILE.npz writes one",
        ) from error
    except _DAMAGE as error:
        raise _bad(path, "this is not a whole program file", str(error)) from error


# What zipfile and numpy raise on damaged, encrypted, foreign or absurdly large content.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    OverflowError,
    TypeError,
    struct.error,
)


def _arrays(archive: zipfile.ZipFile) -> Iterator[tuple[str, NDArray[Any]]]:
    for info in archive.infolist():
        with archive.open(info) as entry:
            array = np.lib.format.read_array(entry, allow_pickle=False)
            # numpy stops at the array's end; what stands behind it would be ignored.
            if entry.read(1):
                raise ValueError(f"{info.filename} is longer than its array")
        yield info.filename.removesuffix(".npy"), array
