"""`partition sweep`: one network on many platforms, on processes or a Dask cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csp_embed.commands.common import print_json, progress, say, say_table, stderr
from csp_embed.commands.given import refuse_each
from csp_embed.commands.planning.options import (
    BatchOption,
    ContiguousOption,
    DimOption,
    GranularityOption,
    IoFreeOption,
    JsonOption,
    MethodOption,
    NetworkArgument,
    ObjectiveOption,
    PipelineOption,
    ProfileOption,
    ReplicasOption,
    batch_sizes,
    known_objective,
    numbers,
    pairs,
)
from csp_embed.errors import CspEmbedError, InputError, TimeLimit
from csp_embed.files import atomic, check_folder, check_writable
from csp_embed.ir.network import LATENCY, Plan

if TYPE_CHECKING:
    from csp_embed.commands.planning.inputs import Request
    from csp_embed.spread import Lost


@dataclass(frozen=True)
class Setting:
    """What a sweep holds fixed. options: of `solve`."""

    request: Request
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


def sweep(
    context: typer.Context,
    network: NetworkArgument,
    platforms: Annotated[str, typer.Option(help="a.yaml,b.json,cpu_2gpu: files or shipped names.")],
    out: Annotated[Path | None, typer.Option(help="Results, one JSON record a line.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep what --out has of equal files and options.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 1,
    dask: Annotated[str | None, typer.Option(help="Address of a Dask scheduler.")] = None,
    plans: Annotated[str | None, typer.Option(help="Folder for the plan files.")] = None,
    objective: ObjectiveOption = LATENCY,
    method: MethodOption = "auto",
    contiguous: ContiguousOption = False,
    pipeline: PipelineOption = False,
    replicas: ReplicasOption = 1,
    batch: BatchOption = 1,
    granularity: GranularityOption = "fused",
    dim: DimOption = None,
    io_free: IoFreeOption = False,
    profile_file: ProfileOption = None,
    time_limit: Annotated[float | None, typer.Option(help="Seconds for each, wall clock.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Partition one network on several platforms: a table, and a record of each.

    A platform that fails gives one error; the others go on. The exit code is that of the first
    error.

    csp-embed partition sweep model.onnx --platforms cpu_2gpu,mine.yaml --jobs 2 --out table.jsonl
    """
    from csp_embed.commands.planning.inputs import Request, cost_model_of, is_onnx
    from csp_embed.network.files.plan import write_plan
    from csp_embed.partition.effects import without_effect
    from csp_embed.spread import Lost, spread

    # Each platform once, in the order given.
    names = list(dict.fromkeys(n.strip() for n in platforms.split(",") if n.strip()))
    if not names:
        raise InputError("no platform is named", hint="name files, or platforms that ship")
    known_objective(objective)
    if not Path(network).is_file():  # said once, not for every platform
        raise InputError(
            f"no such file: {network}",
            where=network,
            hint="give a graph file or an ONNX model; partition generate writes one",
        )
    ignored: dict[str, str] = {} if dask is None else {"jobs": "--dask"}
    if not is_onnx(network):
        ignored |= dict.fromkeys(("granularity", "io_free"), "a graph file, which has its layers")
    # One network for all: its cost model is the same everywhere.
    options = {"method": method, "cost_model": cost_model_of(network, None)}
    refuse_each(context, ignored | without_effect(options))
    profiles = pairs(profile_file, "--profile")
    # Before the workers start.
    _prepare(out, plans, names, resume)
    setting = Setting(
        Request(
            # Workers may start in another folder.
            target=_absolute(network), granularity=granularity, dims=numbers(dim, "--dim"),
            io_free=io_free, profiles={k: _absolute(v) for k, v in profiles.items()},
            batches=batch_sizes(batch, replicas),
        ),
        {
            "objective": objective, "method": method, "contiguous": contiguous,
            "pipeline": pipeline, "time_limit": time_limit, "replicas": replicas, "batch": batch,
        },
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    with progress(quiet=as_json) as tell:
        # Contents and options: what is equal need not be done again.
        keys = {name: _key(setting, name) for name in names}
        rows += _kept(out, keys, plans)
        tell("partitioning", len(rows), len(names))
        # Where a kept row stands nothing is solved.
        items = [(n, _absolute(n)) for n in names if n not in {r["platform"] for r in rows}]
        results = spread(partial(solve_on, setting=setting), items, jobs, dask)
        stopped = False
        try:
            for found in results:
                # A worker that died leaves a row, not an end of the sweep.
                row, plan = _died(found) if isinstance(found, Lost) else found
                # Not the key of a finished search: --resume does it again.
                stopped = plan is not None and "interrupted" in plan.reasons
                row["key"] = "" if stopped else keys[row["platform"]]
                if plans is not None and plan is not None:
                    # Written as it comes: an interrupt must not lose it.
                    row["plan"] = str(Path(plans) / _plan_file(row["platform"]))
                    write_plan(plan, row["plan"])
                rows.append(row)
                tell(str(row["platform"]), len(rows), len(names))
                # Appended: rows that stand are never written again.
                if out is not None:
                    with out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                if stopped:
                    break
        except KeyboardInterrupt:
            stopped = True
        results.close()  # ends the workers
    # In the order given, whoever was ready first.
    rows.sort(key=lambda row: names.index(row["platform"]))
    _end(rows, objective, out, as_json, stopped)


def _end(
    rows: list[dict[str, Any]], objective: str, out: Path | None, as_json: bool, stopped: bool
) -> None:
    """Prints what was found. Exit code 130 after Ctrl-C, else that of the first platform that
    failed."""
    if as_json:
        print_json(rows)
    else:
        # One quantity for all rows.
        say_table(
            HEAD, _rows(rows), "latency, ms" if objective == LATENCY else "period, ms a sample"
        )
        if out is not None:
            say(f"wrote {out}")
    if stopped:
        stderr.print("stopped by Ctrl-C or another signal: these are the plans so far")
        raise SystemExit(130)
    failed = [row for row in rows if "error" in row]
    # Errors below the table, whole.
    for row in failed:
        stderr.print(row["error"]["text"], markup=False, highlight=False, soft_wrap=True)
    if failed:
        raise SystemExit(failed[0]["error"]["exit_code"])


def _key(setting: Setting, platform: str) -> str:
    """Equal for equal contents and options: what a resumed sweep need not do again."""
    from csp_embed.network.files.schema import sha256

    # Profiles by content: a path may stand for another file tomorrow.
    profiles = [(k, *_digests([p])) for k, p in sorted(setting.request.profiles.items())]
    # Paths are no part of what was asked; contents are.
    request = replace(setting.request, target="", profiles={}, dims=dict(setting.request.dims))
    parts = [*_digests([setting.request.target, platform]), profiles, asdict(request)]
    return sha256(json.dumps([*parts, dict(setting.options)]).encode())


def _digests(paths: list[str]) -> list[str]:
    """Of the contents; what cannot be read is an error later, and never kept."""
    from csp_embed.network.files.platform import find_platform
    from csp_embed.network.files.schema import sha256

    found: list[str] = []
    for path in paths:
        try:
            found.append(sha256(find_platform(path).read_bytes()))
        except (InputError, OSError) as error:
            # An error as text: it differs from every digest.
            found.append(str(error))
    return found


def _kept(out: Path | None, keys: Mapping[str, str], plans: str | None) -> list[dict[str, Any]]:
    """Records of an earlier sweep that stand. A last line that an interrupt cut off goes."""
    from csp_embed.compiler.layers import read_results

    if out is None or not out.exists():
        return []
    # A last line that was cut off is dropped, and the file mended.
    known = read_results(out)
    with atomic(out) as file:
        file.writelines(json.dumps(row) + "\n" for row in known)
    kept: dict[str, dict[str, Any]] = {}
    for row in known:
        same = "error" not in row and row.get("key") == keys.get(str(row["id"]))
        # A plan file that is gone is made again.
        written = plans is None or row.get("value") is None or Path(row.get("plan", "")).is_file()
        if same and written:
            kept[row["id"]] = row
    return list(kept.values())


def _prepare(out: Path | None, plans: str | None, names: list[str], resume: bool) -> None:
    """Better to say now than after a long search. Raises: InputError."""
    if out is not None:
        check_writable(out)
        if out.exists() and not resume:
            why = "finished platforms are never overwritten"
            raise InputError(f"{out} exists", why=why, hint=f"--out {out} --resume")
    elif resume:
        raise InputError("--resume has nothing to continue", hint="--out sweep.jsonl --resume")
    if plans is not None:
        # Two platforms of one name in two folders.
        files = [_plan_file(n) for n in names]
        if len(set(files)) < len(files):
            raise InputError(
                "two platforms would write one plan file",
                why=", ".join(names),
                hint="rename one of them",
            )
        check_folder(plans)
        Path(plans).mkdir(parents=True, exist_ok=True)


def _plan_file(platform: str) -> str:
    return f"{Path(platform).stem}.json"


def _absolute(path: str) -> str:
    """For workers that were started in another folder."""
    return str(Path(path).resolve()) if Path(path).exists() else path


def solve_on(item: tuple[str, str], setting: Setting) -> tuple[dict[str, Any], Plan | None]:
    """(record of one platform, its plan); an error becomes part of the record: a sweep goes on.

    item: the platform as it was asked for, and where it is.
    """
    platform, path = item
    begin = time.perf_counter()
    plan: Plan | None = None
    row: dict[str, Any] = {"id": platform, "platform": platform, "network": setting.request.target}
    try:
        found, plan = _solve_on(path, setting)
        row |= found
    except CspEmbedError as error:
        # The error may name the file already.
        named = "" if platform in error.where else f"  platform: {platform}\n"
        first, _, rest = error.render().partition("\n")
        row["status"] = "INFEASIBLE" if error.exit_code == 3 else "FAILED"
        row["error"] = {
            "text": f"{first}\n{named}{rest}".rstrip(),
            "what": error.what,
            "exit_code": error.exit_code,
        }
    return row | {"seconds": round(time.perf_counter() - begin, 3)}, plan


def _died(lost: Lost) -> tuple[dict[str, Any], None]:
    """(record of a platform whose process died every time, no plan)."""
    platform, _ = lost.item
    text = f"error[worker]: {platform}: {lost.why}"
    # As if it had run into its limit.
    error = {"text": text, "what": lost.why, "exit_code": TimeLimit.exit_code}
    row = {"id": platform, "platform": platform, "status": "FAILED", "error": error, "seconds": 0.0}
    return row, None


def _solve_on(platform: str, setting: Setting) -> tuple[dict[str, Any], Plan | None]:
    begin, options = time.perf_counter(), dict(setting.options)
    from csp_embed.commands.planning.inputs import load_inputs, refuse_shared_host
    from csp_embed.partition.solve import solve

    request = replace(setting.request, platform=platform)
    # lenient: one graph for many platforms names devices of all.
    inputs = load_inputs(request, objective=str(setting.options["objective"]), lenient=True)
    refuse_shared_host(inputs, int(setting.options["replicas"]))
    if options["time_limit"] is not None and options["time_limit"] > 0:  # reading counts too
        options["time_limit"] = max(0.01, options["time_limit"] - (time.perf_counter() - begin))
    plan = solve(inputs.graph, inputs.platform, cost_model=inputs.cost_model, **options)
    plan = replace(plan, source=request.source())
    copies = [a for r in plan.replicas for a in r.assignments]
    row = {
        "objective": setting.options["objective"],
        "value": plan.objective,
        "lower_bound": plan.lower_bound,
        "gap": plan.gap,
        "status": plan.status,
        "method": plan.method,
        "devices": len(inputs.platform.devices),
        # Of replicas: devices of any copy.
        "used": len({a.device for a in plan.assignments or copies}),
        "transfers": len(plan.transfers) or sum(len(r.transfers) for r in plan.replicas),
    }
    return row, plan if plan.objective is not None else None


HEAD = (
    "platform", "value", "bound", "gap", "over best", "status", "method, or what failed", "devices",
    "transfers", "seconds",
)  # fmt: skip


def _rows(rows: list[dict[str, Any]]) -> list[list[str]]:
    # Against the best of those that have a value.
    found = [row["value"] for row in rows if row.get("value") is not None]
    out: list[list[str]] = []
    for row in rows:
        value = row.get("value")
        if value is None:
            why = row.get("error", {}).get("what", "")
            out.append([row["platform"], "-", "", "", "", row["status"], why, "", "", ""])
            continue
        gap = "" if row["gap"] is None else f"{100 * row['gap']:.2f} %"
        # A period of 0 has no ratio.
        over = f"{value / min(found):.2f} x" if min(found) else ""
        out.append([
            row["platform"], f"{value:.6g}", f"{row['lower_bound']:.6g}", gap, over,
            row["status"], row["method"], f"{row['used']} of {row['devices']}",
            str(row["transfers"]), f"{row['seconds']:.1f}",
        ])  # fmt: skip
    return out
