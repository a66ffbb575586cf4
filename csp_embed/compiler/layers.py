"""Sweeps of layer lists: one JSON record per layer, resumable, on processes or a Dask cluster.

Every record names what was run (layer, machine, memory interface, layout), so that a file may hold
several machines
and a resumed sweep knows what is done.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from csp_embed.errors import CspEmbedError, InputError
from csp_embed.files import atomic, check_folder, check_writable
from csp_embed.spread import Lost, spread

# What the reference figures of `deepbench/` were measured on: configuration and memory interface.
REFERENCE_MACHINE = ("1x16x16", "de10")


@dataclass(frozen=True)
class Setting:
    """What a sweep holds fixed. config: path of a vta_config.json or None. simulate_macs: largest
    layer that is simulated
    and compared with NumPy. strict: also compile with the strict layout. certify: prove the stream
    right for all inputs."""

    isa: str = "vta"
    config: str | None = None
    memory: str = "de10"
    layout: str = "relaxed"
    strict: bool = True
    simulate_macs: int = 300_000_000
    cache: str | None = None
    certify: bool = False


def measure(record: Mapping[str, Any], setting: Setting) -> dict[str, Any]:
    """Compiles, judges and times one layer. Errors become part of the record: a sweep goes on."""
    start = time.perf_counter()
    # `class` groups layers in reports; lists that have none are grouped by operator.
    out: dict[str, Any] = {"id": record["id"], "class": record.get("class", record["op"])}
    try:
        out |= _measure(record, setting)
    # A layer that fails is a result of the sweep, and the others still run.
    except CspEmbedError as error:
        out |= {"status": "failed", "error": error.what, "why": error.why}
    figures: Mapping[str, Any] = record.get("reference") or {}
    reference = figures.get("cycles_rtl_de10")
    measured_on = (out.get("machine"), out.get("memory"))
    # Cycles of another board say nothing beside the reference's.
    if reference and out.get("cycles") and measured_on == REFERENCE_MACHINE:
        out |= {"reference_cycles": reference, "speedup": reference / out["cycles"]}
    return out | {"wall_seconds": round(time.perf_counter() - start, 3)}


def _identity(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the layer computes: an id alone may mean another shape in another list."""
    from csp_embed.ops.deepbench import ABOUT

    # Names, counts and reference figures do not change what is compiled.
    return {k: v for k, v in sorted(record.items()) if k in ("id", "op") or k not in ABOUT}


def _measure(record: Mapping[str, Any], setting: Setting) -> dict[str, Any]:
    from csp_embed.compiler.commands.layers import measure_commands
    from csp_embed.compiler.driver import Kernel, Options, compile
    from csp_embed.compiler.program.verify import judge
    from csp_embed.compiler.source.layers import measure_source
    from csp_embed.embed.algebra.packing import pack
    from csp_embed.judge.embedding.lower_bound import lower_bound
    from csp_embed.machine.costs import costs_of
    from csp_embed.machine.load import load_isa
    from csp_embed.ops import deepbench
    from csp_embed.ops.bound import natural
    from csp_embed.ops.data import random_tensors
    from csp_embed.report.kernel import figures
    from csp_embed.sim.cycles.engine import simulate_cycles
    from csp_embed.targets import target_of

    # Imported here: worker processes load the compiler, the parent need not.
    op = deepbench.build(record)
    machine = load_isa(setting.isa, setting.config)
    if target_of(machine) == "source":
        found = measure_source(op, machine, setting.layout)
        return found | {"count": record.get("count", 1), "status": "done"}
    if target_of(machine) == "commands":
        found = measure_commands(
            op, machine, layout=setting.layout, strict=setting.strict,
            simulate_macs=setting.simulate_macs, certify=setting.certify,
        )  # fmt: skip
        return found | {"count": record.get("count", 1), "status": "done"}
    cache = None if setting.cache is None else Path(setting.cache)
    options = Options(layout=setting.layout, memory=setting.memory, cache=cache)
    kernel = compile(op, machine, options=options)
    assert isinstance(kernel, Kernel)  # of a machine that reads a stream
    # Simulation grows with the products; beyond the limit only the rules are checked.
    simulate = natural(op)["macs"] <= setting.simulate_macs
    tensors = random_tensors(op, 0) if simulate else None
    verdict = judge(kernel, tensors, simulate=simulate)
    out = figures(kernel, None, verdict)
    out |= {"machine": machine.config_name or setting.isa, "memory": setting.memory,
            "macs": natural(op)["macs"], "count": record.get("count", 1)}  # fmt: skip
    port = costs_of(machine, setting.memory).port_bytes
    # Products that one step of the machine does at most.
    peak = math.prod(machine.dims.values())
    out |= {"natural_bytes": natural(op)["read_bytes"], "peak_macs": peak,
            "port_bytes_per_cycle": port}  # fmt: skip
    least = lower_bound(op, machine, costs_of(machine, setting.memory))
    out |= {"lower_bound": least.cycles, "lower_bound_binds": least.binds}
    # Which queue computes: reports split its time into steps and waiting.
    out["compute_queue"] = machine.instruction(kernel.embedding.instruction).queue
    out["problems"] = [str(p) for p in verdict.problems[:5]]
    report = simulate_cycles(machine, kernel.lowered.stream, memory=setting.memory)
    out["queues"] = {
        name: {
            "busy": q.busy,
            "port": q.port,
            "fetch": q.fetch,
            "done": q.done,
            "tokens": dict(q.tokens),
        }
        for name, q in report.queues.items()
    }
    out["port_bytes"] = {
        "read": report.read_bytes,
        "fetch": report.fetch_bytes,
        "written": report.written_bytes,
    }
    # Packing is the host's work; one operand's time shows its size.
    if tensors is not None:
        layout = next(v for v in kernel.embedding.layouts.values() if v.tensor == op.lhs.tensor)
        begin = time.perf_counter()
        pack(layout, kernel.embedding, machine, tensors[op.lhs.tensor])
        out["host_seconds"] = round(time.perf_counter() - begin, 6)
    if setting.certify:
        found = kernel.certify()
        out |= {"certified": found.ok, "certify_seconds": found.seconds,
                "log2_error": found.log2_error}  # fmt: skip
        out["problems"] += list(found.problems[:5])
    # The strict layout is the price of not repacking: both figures stand side by side.
    if setting.strict and setting.layout == "relaxed":
        try:
            strict = compile(
                op, machine, options=Options(layout="strict", memory=setting.memory, cache=cache)
            )
            assert isinstance(strict, Kernel)
            out["strict_cycles"] = strict.cycles
        except CspEmbedError as error:
            out["strict_cycles"], out["strict_why"] = None, error.what
    return out


def sweep(
    records: list[Mapping[str, Any]],
    setting: Setting,
    out: Path | None,
    *,
    jobs: int = 1,
    resume: bool = False,
    dask: str | None = None,
    time_limit: float | None = None,
    tell: Callable[[str, int, int], None] = lambda text, done, total: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Generator[dict[str, Any], None, None]:
    """Yields a record per layer as it ends and appends it to `out`.

    resume: layers that `out` already has under the same setting are yielded from there. An
    interrupt or time_limit (seconds, all layers together) loses only what is running. A layer whose
    process dies is begun once more, then recorded as failed; `warn` is told either time.
    Raises: InputError where `out` exists and resume is off, or cannot be written; TimeLimit.
    """
    if out is None and resume:
        raise InputError("--resume has nothing to continue", hint="--out sweep.jsonl --resume")
    check_writable(out)
    check_folder(setting.cache)
    # The setting as text is the key: a record of another setting is no duplicate.
    key = json.dumps(asdict(setting), sort_keys=True)
    # Through JSON, as the file has it: tuples become lists there.
    identity = {r["id"]: json.loads(json.dumps(_identity(r))) for r in records}
    done: dict[str, dict[str, Any]] = {}
    if out is not None and out.exists():
        if not resume:
            raise InputError(
                f"{out} exists",
                why="finished layers are never overwritten",
                hint=f"--out {out} --resume",
            )
        known = read_results(out)
        done = {
            r["id"]: r
            for r in known
            # Older records have no `layer`; their id must do.
            if r.get("setting") == key
            and r.get("layer", identity.get(r["id"])) == identity.get(r["id"])
            # A layer that died may have been killed by something else: it is tried again.
            and not r.get("died")
        }
        with atomic(out) as file:  # Drops a last line that an interrupt cut off.
            file.writelines(json.dumps(r) + "\n" for r in known)
    todo = [r for r in records if r["id"] not in done]
    yield from (done[r["id"]] for r in records if r["id"] in done)
    count = len(done)
    # Long ones first, so that the last job is a short one.
    todo.sort(key=lambda r: -r.get("macs", 0))

    def died(item: Mapping[str, Any], why: str, again: bool) -> None:
        warn(f"{item['id']}: {why}; " + ("it is begun again" if again else "it is given up"))

    results = spread(
        partial(measure, setting=setting), todo, jobs, dask, time_limit=time_limit, tell_death=died
    )
    with closing(results):  # Ends the workers at once, whatever ends this one.
        for result in results:
            # Told as a record, so that no layer vanishes from the file.
            if isinstance(result, Lost):
                result = _lost(result)
            count += 1
            tell(result["id"], count, len(records))
            line = result | {"layer": identity[result["id"]], "setting": key}
            if out is not None:
                _append(out, line)
            yield line


def _lost(lost: Lost) -> dict[str, Any]:
    """The record of a layer whose process died every time; `--resume` tries it again."""
    record = lost.item
    return {
        "id": record["id"], "class": record.get("class", record["op"]),
        "status": "failed", "died": True, "error": "its process died", "why": lost.why,
        "wall_seconds": 0.0,
    }  # fmt: skip


def _append(out: Path, record: dict[str, Any]) -> None:
    try:
        # Appended and closed for each record: an interrupt loses none.
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, default=float) + "\n")
    except OSError as error:
        raise InputError(
            f"cannot write {out}",
            why=error.strerror or str(error),
            hint="give another file with --out",
        ) from error


def read_results(path: Path) -> list[dict[str, Any]]:
    """Records of a results file; a last line cut off by an interrupt is dropped.

    Raises: InputError for a file that is missing or holds no records.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read {path}",
            why=str(error),
            hint="give a file that csp-embed deepbench --out wrote",
        ) from error
    out: list[Any] = []
    for n, text in enumerate(lines):
        try:
            out.append(json.loads(text))
        except json.JSONDecodeError as error:
            # An interrupt may cut the last line only.
            if n == len(lines) - 1:
                break
            raise InputError(
                f"{path} is no results file",
                where=f"{path}:{n + 1}",
                why=str(error),
                hint="--out of a sweep writes one",
            ) from error
        if not isinstance(out[-1], dict) or "id" not in out[-1]:
            raise InputError(
                f"{path} is no results file",
                where=f"{path}:{n + 1}",
                why="a record has no id",
                hint="give a file that csp-embed deepbench --out wrote",
            )
    return out
