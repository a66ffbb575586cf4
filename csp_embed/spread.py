"""One function over many items: here, on processes, or on a Dask cluster; results as they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

from csp_embed.errors import InputError, MissingLibrary


def spread(
    call: Callable[[Any], Any], items: Sequence[Any], jobs: int = 1, dask: str | None = None
) -> Iterator[Any]:
    """Yields call(item) for every item, in the order in which they end.

    call: importable by name (or a partial of such), and it turns errors into results: what it
    raises ends everything. jobs: processes. dask: address of a scheduler; jobs then says nothing.
    Raises: InputError, MissingLibrary.
    """
    if jobs < 1:
        raise InputError(f"--jobs {jobs} runs nothing", hint="--jobs 1 or more")
    if dask is not None:
        yield from _on_dask(call, items, dask)
    elif jobs == 1:
        for item in items:
            yield call(item)
    else:
        pool: Executor = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
        try:
            futures = [pool.submit(call, item) for item in items]
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _on_dask(call: Callable[[Any], Any], items: Sequence[Any], address: str) -> Iterator[Any]:
    try:
        from dask.distributed import Client
        from dask.distributed import as_completed as dask_completed
    except ImportError as error:
        raise MissingLibrary(
            "--dask needs the package distributed", hint="pip install 'csp-embed[dask]'"
        ) from error
    try:
        client = Client(address, timeout=5)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler at {address}",
            why=str(error),
            hint="start one with `dask scheduler`",
        ) from error
    with client:
        futures = client.map(call, items, pure=False)
        for _, result in dask_completed(futures, with_results=True):
            yield result
