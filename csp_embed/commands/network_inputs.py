"""What a quantised network is fed: random stored values, or those of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from csp_embed.errors import InputError

if TYPE_CHECKING:
    from csp_embed.network.quantised.graph import Graph


def dims(given: list[str]) -> dict[str, int]:
    """What `--dim` says. Raises: InputError for another form."""
    found: dict[str, int] = {}
    for text in given:
        name, _, extent = text.partition("=")
        # An extent of 0 would make an empty network.
        if not name or not extent.isdecimal() or int(extent) < 1:
            raise InputError(f"--dim {text}", why="wanted NAME=N", hint="--dim batch=1")
        found[name] = int(extent)
    return found


def random_inputs(graph: Graph, samples: int, seed: int) -> list[dict[str, Any]]:
    """Stored values over the whole range of the type; the same for the same seed."""
    import numpy as np

    # By seed: the same inputs in every run.
    rng = np.random.default_rng(seed)
    made: list[dict[str, Any]] = []
    for _ in range(samples):
        feeds: dict[str, Any] = {}
        for name in graph.inputs:
            t = graph.tensors[name]
            # The whole range: corner values are where rounding goes wrong.
            low, high = t.range
            feeds[name] = rng.integers(low, high + 1, t.shape).astype(t.dtype)
        made.append(feeds)
    return made


def given_inputs(graph: Graph, path: Path) -> list[dict[str, Any]]:
    """Raises: InputError where the file cannot be read, an input is missing or of another form."""
    import zipfile

    import numpy as np

    # As the model stores them, not as floats.
    wanted = {n: graph.tensors[n] for n in graph.inputs}
    example = ", ".join(f"{n!r}: {t.dtype} {list(t.shape)}" for n, t in wanted.items())
    hint = f"numpy.savez(FILE, **arrays) with {example}, or more along axis 0"
    try:
        if not zipfile.is_zipfile(path):  # numpy.load takes anything else for a pickle
            with path.open("rb"):
                raise InputError(f"{path} is no whole .npz file", where=str(path), hint=hint)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read {path}", where=str(path), why=why, hint=hint) from error
    counts: set[float] = set()
    for name, t in wanted.items():
        array = arrays.get(name)
        # The first axis may be longer: several samples.
        if array is None or array.dtype != np.dtype(t.dtype) or array.shape[1:] != t.shape[1:]:
            has = ", ".join(f"{n!r}: {a.dtype} {list(a.shape)}" for n, a in arrays.items())
            raise InputError(
                f"the file does not hold input {name!r} as the model stores it",
                where=str(path), why=f"it holds {has or 'nothing'}", hint=hint,
            )  # fmt: skip
        # How many samples the file has of this input.
        counts.add(array.shape[0] / t.shape[0])
    # Inputs with different numbers of samples belong to no run.
    count = counts.pop() if len(counts) == 1 else 0
    if count != int(count) or count < 1:
        raise InputError("the inputs are not whole batches", where=str(path), hint=hint)
    return [
        # Samples one after the other, each of the model's own batch.
        {n: arrays[n][i * t.shape[0] : (i + 1) * t.shape[0]] for n, t in wanted.items()}
        for i in range(int(count))
    ]
