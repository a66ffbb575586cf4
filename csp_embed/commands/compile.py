"""`csp-embed compile`: an operator to a program file and a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from csp_embed.commands.common import print_json, progress, say
from csp_embed.commands.compiling import options
from csp_embed.commands.given import refuse_ignored
from csp_embed.errors import InputError
from csp_embed.files import check_folder, check_outputs

if TYPE_CHECKING:
    from csp_embed.commands.compiling.watch import Watch

EXAMPLES = """Compiles one operator for a machine, checks the stream, simulates it and compares with
NumPy.

Examples:

  csp-embed compile conv2d --n 1 --c 3 --h 56 --w 56 --k 64 --r 7 --s 7 -o c.npz

  csp-embed compile matmul --m 35 --n 700 --k 2048 -o g.npz

  csp-embed compile 'y\\[i,j] += x\\[i,k] * w\\[j,k]' --shape x=4,8 --shape w=3,8

  csp-embed compile elementwise --shape x=64,16 --step 'add z' --step 'shr 3'

  csp-embed compile deepbench:conv000 --explain
"""


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command(name="compile", help=EXAMPLES)(compile_command)


def compile_command(
    context: typer.Context,
    what: options.What,
    n: options.Extent = None,
    c: options.Extent = None,
    d: options.Extent = None,
    h: options.Extent = None,
    w: options.Extent = None,
    k: options.Extent = None,
    t: options.Extent = None,
    r: options.Extent = None,
    s: options.Extent = None,
    m: options.Extent = None,
    batch: options.Extent = None,
    multiplier: options.Extent = None,
    groups: options.Extent = None,
    stride: options.Listed = None,
    pad: options.Pad = None,
    dilation: options.Listed = None,
    output_pad: options.Listed = None,
    tensor_layout: options.TensorLayout = None,
    shape: options.Shape = None,
    step: options.Step = None,
    shift: options.Shift = None,
    bias: options.Bias = False,
    bias_before_shift: options.BiasBeforeShift = False,
    bias_range: options.BiasRange = None,
    clip: options.Clip = None,
    isa: options.Isa = "vta",
    vta_config: options.VtaConfig = None,
    memory: options.Memory = None,
    layout: options.Layout = None,
    fix: options.Fix = None,
    forbid: options.Forbid = None,
    host_weight: options.HostWeight = 0.0,
    top: options.Top = 0,
    cache: options.Cache = None,
    reuse: options.Reuse = None,
    within: options.Within = 0.0,
    output: options.Output = None,
    seed: options.Seed = None,
    data: options.Data = None,
    engine: options.Engine = None,
    threads: options.Threads = 1,
    selftest: options.SelfTest = False,
    verify: options.Verify = False,
    explain: options.Explain = False,
    bound: options.Bound = False,
    report: options.Report = None,
    certificate: options.Certificate = None,
    stop_after: options.StopAfter = None,
    print_after: options.PrintAfter = None,
    check: options.Check = False,
    stages: options.Stages = False,
    show: options.Show = False,
    dot: options.Dot = None,
    as_json: options.AsJson = False,
) -> None:
    # Here, not above: `--help` must be quick.
    from csp_embed.commands.compiling import chain_job, request
    from csp_embed.commands.compiling.command_job import CommandJob
    from csp_embed.commands.compiling.job import Job
    from csp_embed.commands.compiling.source_job import SourceJob
    from csp_embed.commands.compiling.watch import Watch
    from csp_embed.commands.compiling.written import write_dot
    from csp_embed.compiler.chain import FRONT
    from csp_embed.machine.load import load_isa
    from csp_embed.targets import target_of

    op = request.from_options(
        what, shape or [], step or [],
        {"n": n, "c": c, "d": d, "h": h, "w": w, "k": k, "t": t, "r": r, "s": s, "m": m,
         "batch": batch, "multiplier": multiplier, "groups": groups, "shift": shift,
         "bias_range": bias_range, "clip": clip, "tensor_layout": tensor_layout,
         "bias": bias, "bias_before_shift": bias_before_shift,
         "stride": stride, "pad": pad, "dilation": dilation, "output_pad": output_pad},
    )  # fmt: skip
    mode, pins = request.pins(layout or [], fix or [], forbid or [])
    _refuse_numbers(top, seed, host_weight, within)
    # A program has an embedding already: pins would contradict it.
    if reuse is not None and (layout or pins):
        raise InputError(
            "--reuse takes its layout and pins from the program",
            hint="drop --layout, --fix and --forbid, or --reuse",
        )
    watch = Watch(stop_after, tuple(print_after or ()), check, quiet=as_json)
    # Before the machine is read: options come first.
    _refuse_combinations(context, watch, show, stages)
    # The first stages look at no machine, so theirs is not read either.
    machine = None if stop_after in FRONT else load_isa(isa, vta_config)
    # Each target has its own files, options and report.
    if machine is not None and target_of(machine) == "source":
        refuse_ignored(context, ("bound",), f"--isa {isa}", why="it counts cycles of a stream")
        source = SourceJob(
            op, machine, mode, pins, top, reuse, within, seed or 0, data, output, certificate, dot,
            explain, watch, selftest=selftest, engine=engine, threads=threads,
        )  # fmt: skip
        chain_job.run(context, source, stages, show, as_json)
        return
    if machine is not None and target_of(machine) == "commands":
        fed = CommandJob(
            op, machine, mode, pins, top, reuse, within, seed or 0, data, output, certificate, dot,
            explain, watch,
        )  # fmt: skip
        chain_job.run(context, fed, stages, show, as_json)
        return
    refuse_ignored(
        context, ("selftest", "engine", "threads"), f"--isa {isa}",
        why="its program files hold the expected bytes: csp-embed simulate compares",
    )  # fmt: skip
    check_outputs(
        (output, (".npz",)), (report, (".html", ".htm")), (certificate, (".json",)),
        (dot, (".dot", ".gv")), reads=(reuse, data, vta_config),
    )  # fmt: skip
    # A cache is a folder: a file in its place is refused before the search.
    check_folder(cache)
    made: Any = None
    with progress(quiet=as_json) as tell:
        # Everything inside: compiling and simulating report their progress.
        job = Job(
            op=op, isa=isa, config=vta_config, memory=memory, layout=mode, pins=pins,
            host_weight=host_weight, top=top,
            cache=cache, seed=seed, data=data, verify=verify, tell=tell,
            reuse=reuse, within=within, watch=watch,
        )  # fmt: skip
        # Before the search: the dataflow needs no embedding.
        if dot is not None:
            write_dot(dot, op)
        if stages:
            made = str(job.chain(job.tensors()))
        elif stop_after is not None:
            made = job.stop()
        else:
            made = job.run(output, report, certificate)
    if stages:
        print_json({"stages": made}) if as_json else print(made)
    elif stop_after is not None:
        watch.print_stopped(op.name, made, job.notes, show, as_json)
    elif as_json:
        print_json(made.document(explain, bound) | watch.document())
    else:
        say(made.text(explain, bound))


def _refuse_numbers(top: int, seed: int | None, host_weight: float, within: float) -> None:
    """Raises: InputError for numbers that mean nothing."""
    if top < 0:
        raise InputError(
            f"--top {top} is negative", why="0 leaves the choice to the compiler", hint="--top 0"
        )
    if seed is not None and seed < 0:
        raise InputError(f"a seed is negative: --seed {seed}", hint="--seed 0")
    if not 0 <= host_weight < float("inf"):
        raise InputError(f"--host-weight {host_weight} is no weight", hint="--host-weight 0")
    if not 0 <= within < float("inf"):
        raise InputError(
            f"--within {within} is no share", why="0.02 allows 2 % more", hint="--within 0.02"
        )


# What a stage leaves unread that comes before the machine, the schedules, the values.
# By what a stage looks at, so that a stop before it refuses just these.
_MACHINE = ("isa", "vta_config", "memory", "layout", "fix", "forbid", "top", "reuse", "within")
_SCHEDULE = ("host_weight", "cache", "data")
_VALUES = ("seed", "verify")
_RESULT = ("explain", "bound", "output", "report", "certificate")
# Options without effect at each stop.
_UNREAD = {
    "operator": (*_RESULT, *_VALUES, *_SCHEDULE, *_MACHINE),
    "dataflow": (*_RESULT, *_VALUES, *_SCHEDULE, *_MACHINE),
    "embedding": (*_RESULT, *_VALUES, *_SCHEDULE),
    "schedule": (*_RESULT, *_VALUES),
    "program": (*_RESULT, *_VALUES),
    "values": _RESULT,
}


def _refuse_combinations(context: typer.Context, watch: Watch, show: bool, stages: bool) -> None:
    """Raises: InputError for a stage that does not exist, and for an option that has no effect
    beside another one."""
    from csp_embed.compiler.chain import STAGES

    # Without a stop there is no artefact to show.
    if show and watch.stop_after is None:
        raise InputError("--show needs --stop-after", hint="--stop-after embedding")
    watch.require(STAGES)
    if stages:
        idle = ("stop_after", "print_after", "check", *_UNREAD["program"])
        refuse_ignored(context, idle, "--stages", why="it lists the stages and runs none")
    if watch.stop_after is not None:
        refuse_ignored(
            context,
            _UNREAD[watch.stop_after],
            f"--stop-after {watch.stop_after}",
            why="it stops before that is looked at; --stop-after makes no program",
        )
    # As given, with defaults where nothing was.
    given = context.params
    if given["reuse"] is not None:
        refuse_ignored(
            context, ("top", "host_weight"), "--reuse", why="one embedding is there, nothing ranks"
        )
    else:
        refuse_ignored(
            context, ("within",), "a search", why="--within needs --reuse",
            hint="--reuse PROGRAM.npz",
        )  # fmt: skip
    # One embedding alone is not ranked.
    if given["top"] == 1:
        refuse_ignored(
            context, ("host_weight",), "--top 1",
            why="it ranks the embeddings that are scheduled, and there is one",
        )  # fmt: skip
    # Given operands leave nothing random.
    if given["data"] is not None:
        refuse_ignored(context, ("seed",), "--data", why="there are no random tensors")
