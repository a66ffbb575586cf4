"""Traces of requests as CSV: arrival_s, prompt_tokens, output_tokens."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

from csp_embed.errors import InputError
from csp_embed.network.files.schema import read_bytes
from csp_embed.serving.files.form import SERVING
from csp_embed.serving.simulate import Trace

COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens")


def read_trace(path: str | Path) -> Trace:
    """Requests of a CSV file with a header, put in order of arrival. Raises: InputError."""
    # Bytes that are no text fail below as numbers, with their line.
    text = read_bytes(path, SERVING).decode("utf-8", "replace")
    rows = csv.DictReader(text.splitlines())
    missing = [c for c in COLUMNS if c not in (rows.fieldnames or ())]
    if missing:
        raise InputError(
            f"the trace has no column {missing[0]}", where=f"{path}:1", hint=",".join(COLUMNS)
        )
    values: list[tuple[float, int, int]] = []
    # The header is line 1.
    for line, row in enumerate(rows, start=2):
        try:
            arrival = float(row["arrival_s"])
            prompt, output = int(row["prompt_tokens"]), int(row["output_tokens"])
        except (TypeError, ValueError) as error:
            raise InputError(
                "not three numbers",
                where=f"{path}:{line}",
                why=str(error),
                hint="a line is arrival_s,prompt_tokens,output_tokens",
            ) from error
        # Infinity and nan are floats to Python.
        if not math.isfinite(arrival) or arrival < 0 or prompt < 1 or output < 1:
            raise InputError(
                "a request needs an arrival of at least 0 s and at least 1 token each way",
                where=f"{path}:{line}",
                hint="a line is arrival_s,prompt_tokens,output_tokens: 0.5,128,64",
            )
        values.append((arrival, prompt, output))
    # Stable: requests of one time stay in the file's order.
    values.sort(key=lambda v: v[0])
    # An empty trace has columns too; whoever runs it says that it is empty.
    columns = list(zip(*values, strict=True)) or [(), (), ()]
    return Trace(
        np.array(columns[0], float), np.array(columns[1], np.int64), np.array(columns[2], np.int64)
    )
