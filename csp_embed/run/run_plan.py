"""`csp-embed run-plan`: from a model and a plan to a RunReport."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csp_embed.errors import CheckError, InputError
from csp_embed.files import scratch_folder
from csp_embed.ir.network import Plan, Platform
from csp_embed.network.onnx.graph import Imported
from csp_embed.network.onnx.runtime import (
    INTEGERS,
    PLAIN,
    known_provider,
    open_session,
    run_call,
    run_session,
)
from csp_embed.network.onnx.submodels import whole
from csp_embed.network.onnx.weights import real_constants
from csp_embed.network.profiles.measure import CLOCKS, check_inputs, measure, random_inputs
from csp_embed.run.cpu_process import CpuProcess
from csp_embed.run.device_parts import Part, parts_of
from csp_embed.run.devices import ByCost, Compile, KernelSimulator, cores
from csp_embed.run.execute import (
    PartResult,
    RunReport,
    TensorResult,
    compare,
    run_parts,
)
from csp_embed.run.in_flight import Rate, measure_rate
from csp_embed.run.manifest import export, exported_files, write_parts
from csp_embed.run.pace import pace_of, run_alone
from csp_embed.run.programs import BuildPart, ProgramSimulator
from csp_embed.run.runner import Array, Runner, Timing
from csp_embed.run.swap import swapped

Progress = Callable[[str, int, int], None]


def run_plan(
    model: Imported,
    plan: Plan,
    platform: Platform,
    *,
    compile_layer: Compile | None = None,
    build_part: BuildPart | None = None,
    weights: str = "auto",
    seed: int = 0,
    runs: int = 10,
    warm_ups: int = 3,
    inputs: Mapping[str, Array] | None = None,
    export_to: str | Path | None = None,
    run_from: str | Path | None = None,
    swap: tuple[int, int] | None = None,
    assume_int8: bool = False,
    clock: str = "wall",
    hosts: Mapping[str, Runner] | None = None,
    in_flight: int | None = 0,
    samples: int = 40,
    progress: Progress | None = None,
) -> RunReport:
    """Cuts the model at the plan's borders, runs every part on its device, compares and measures.

    compile_layer: what makes kernels for devices that name an `isa`; build_part: what makes one
    program of a whole part there, and then everything is compared by integer kernels. run_from: run
    the files of an earlier export. swap: exchange two parts, to see that the comparison notices.
    clock: of part times, "wall" or "cpu" (see `profile_model`). hosts: devices that run elsewhere,
    by name; they stay open. in_flight: so many inputs at once over `samples` samples give the
    report's `rate`; 0: none; None: as many as keep the devices busy.
    Raises: InputError, CheckError (a cut is wrong, or swapped parts cannot be exchanged).
    """
    if runs < 1 or warm_ups < 0 or clock not in CLOCKS:
        raise InputError(
            "runs must be at least 1, warm-ups at least 0, clock wall or cpu",
            hint="runs=10, warm_ups=2, clock='wall'",
        )
    parts = parts_of(plan, model, platform)
    # Weights may be left out of a model: shapes are enough for times.
    constants = real_constants(model.net, weights, seed)
    feeds = dict(inputs) if inputs is not None else random_inputs(model.net, seed)
    # Before anything is cut: inputs of the wrong shape would fail in the middle.
    check_inputs(model.net, feeds)
    if export_to is not None:
        export(export_to, plan, platform, model, constants, parts)
    # Integers throughout where a part is a program: its reference is onnxruntime's integer kernels.
    form = PLAIN if build_part is None else INTEGERS
    local: dict[str, Runner] = {}
    # Parts are written to a folder even where nothing is exported: workers read files.
    with scratch_folder("csp-embed-run-") as folder, closing_all(local):
        if run_from is not None:
            files = exported_files(run_from, parts)
        else:
            files = write_parts(folder, model, constants, parts)
        if swap is not None:
            # Only to see that the comparison notices it.
            files = swapped(files, parts, swap, folder)
        # Before the devices start: one core, nothing else running.
        whole_ms = _whole_ms(model, constants, feeds, runs, warm_ups, clock)
        notes = _start(
            local,
            platform,
            parts,
            model,
            compile_layer,
            build_part,
            assume_int8,
            hosts or {},
        )
        # Hosts run parts too, but they are not ours to close.
        runners = {**local, **(hosts or {})}
        copies = [
            _run_copy(
                [p for p in parts if p.replica == replica], runners, files, model, constants,
                _inputs_of(model, inputs, seed, replica), Timing(runs, warm_ups, clock), progress,
                form,
            )
            for replica in range(parts[-1].replica + 1)
        ]  # fmt: skip
        rate = None
        if in_flight != 0:
            # Two inputs by turns: samples that got mixed up must differ.
            both = _inputs_of(model, inputs, seed, 0)
            shares = [r.share for r in plan.replicas]
            rate = _rate(parts, runners, both, model, in_flight, samples, shares)
        for runner in local.values():
            # Only now: a program file holds the inputs that it was run on.
            if export_to is not None and isinstance(runner, ProgramSimulator):
                runner.write(Path(export_to) / "parts")
    notes += [note for copy in copies for note in copy.notes]
    if len(copies) > 1:
        notes.append(
            f"{len(copies)} replicas ran one after the other, each one sample of its own: "
            "times are those of a sample"
        )
    drift = _drift(model, whole_ms, clock)
    # A tenth is more than a quiet machine varies by.
    if abs(drift) > 0.1:
        notes.append(
            f"the whole model takes {100 * drift:+.0f} % against its profile: another "
            "machine, or a busy one; times of parts are off by as much"
        )
    matter = all(copy.matter for copy in copies)
    if not matter:
        notes.append("another input gives the same outputs: the comparison proves little")
    return RunReport(
        parts=tuple(r for copy in copies for r in copy.parts),
        tensors=tuple(t for copy in copies for t in copy.tensors),
        # The slowest replica decides when all are through.
        wall_ms=max(copy.wall_ms for copy in copies),
        whole_ms=whole_ms,
        runs=runs,
        inputs_matter=matter,
        notes=tuple(notes),
        rate=rate,
        form=form,
    )


def _rate(
    parts: Sequence[Part], runners: Mapping[str, Runner],
    inputs: tuple[Mapping[str, Array], Mapping[str, Array]], model: Imported, in_flight: int | None,
    samples: int, shares: Sequence[float],
) -> Rate:  # fmt: skip
    """With the models that `run_parts` loaded last, the optimised ones."""
    expected, alone = [], []
    for replica in range(parts[-1].replica + 1):
        own = [p for p in parts if p.replica == replica]
        # Alone, one after the other: what each sample must give.
        found = [
            run_alone(own, runners, feeds, model.net.outputs, -1 - at)
            for at, feeds in enumerate(inputs)
        ]
        rows = [one.values for one in found]
        expected.append([{n: row[n] for n in model.net.outputs if n in row} for row in rows])
        # The last one: the first input pays for what is made once.
        alone.append(found[-1])
    count = pace_of(parts, alone, shares).fills if in_flight is None else in_flight
    pace = pace_of(parts, alone, shares, count)
    return measure_rate(parts, runners, inputs, expected, count, samples, shares, pace)


@contextmanager
def closing_all(runners: Mapping[str, Runner]) -> Iterator[None]:
    """Closes, at the end, whatever is in `runners` by then."""
    try:
        yield
    finally:
        for runner in runners.values():
            runner.close()


@dataclass(frozen=True)
class _Copy:
    """What one replica (or the plan without replicas) gave."""

    parts: list[PartResult]
    tensors: list[TensorResult]
    wall_ms: float
    matter: bool
    notes: list[str]


def _inputs_of(
    model: Imported, given: Mapping[str, Array] | None, seed: int, replica: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """(inputs of a replica, others that must change its outputs). Given inputs are turned: indices
    among them stay in range."""
    if given is None:
        return random_inputs(model.net, seed + replica), random_inputs(
            model.net, seed + 1 + replica
        )
    # Rolled values keep what an index means: its range.
    turned = [{n: np.roll(v, replica + i) for n, v in given.items()} for i in (0, 1)]
    return turned[0], turned[1]


def _run_copy(
    parts: Sequence[Part],
    runners: Mapping[str, Runner],
    files: Mapping[int, Path],
    model: Imported,
    constants: Mapping[str, Any],
    inputs: tuple[Mapping[str, Array], Mapping[str, Array]],
    timing: Timing,
    progress: Progress | None,
    form: str,
) -> _Copy:
    feeds, other = inputs
    expected, matter = _expected(model, constants, feeds, parts, other, form)
    values, medians, wall = run_parts(parts, runners, files, feeds, timing, progress, form)
    notes: list[str] = []
    ties: dict[int, dict[str, int]] = {}
    own = {p.device for p in parts}
    for device, runner in runners.items():
        # Parts of another replica have no ties here.
        if device in own and isinstance(runner, KernelSimulator):
            ties |= runner.ties
    if any(count for part in ties.values() for count in part.values()):
        # Rounding differs between kernel and ONNX: parts are then compared on what they received.
        expected = _local(parts, files, values, ties)
        notes.append(_tie_note(model, ties))
    results = [PartResult(part, ms, how) for part, (ms, how) in zip(parts, medians, strict=True)]
    return _Copy(results, compare(values, expected, parts), wall, matter, notes)


def refuse_unequal(report: RunReport) -> None:
    """Raises: CheckError naming the first tensors that differ from the whole model."""
    wrong = [t for t in report.tensors if not t.equal]
    if report.rate is not None and report.rate.wrong:
        raise CheckError(
            f"{report.rate.wrong} of {report.rate.samples + report.rate.in_flight} samples in "
            "flight have outputs that are not their own",
            hint="run again without --in-flight; a device that gives other values each time is "
            "outside the tolerance",
        )
    if wrong:
        first = wrong[0]
        part = report.parts[first.maker].part
        raise CheckError(
            f"{len(wrong)} of {len(report.tensors)} boundary tensors differ from the whole model",
            where=f"{first.name}, made by {part.name}",
            why=f"largest difference {first.worst:.3g} of its scale, allowed {first.allowed:.3g}"
            if first.worst != float("inf")
            else "values, shape or type differ",
            hint="the parts or their order are not the plan's",
        )


def _start(
    runners: dict[str, Runner],
    platform: Platform,
    parts: Sequence[Part],
    model: Imported,
    compile_layer: Compile | None,
    build_part: BuildPart | None,
    assume_int8: bool,
    hosts: Mapping[str, Runner],
) -> list[str]:
    """Fills `runners`: those that did start are closed where one does not. Returns notes."""
    used = dict.fromkeys(p.device for p in parts)
    # A core for each CPU device, in turn: two processes on one core would be slower.
    free = cores()
    notes: list[str] = []
    cpus = 0
    crew: list[CpuProcess] = []
    for device in platform.devices:
        if device.name not in used or device.name in hosts:
            continue
        if device.kind == "cpu" or device.provider is not None:
            known_provider(device.provider, f"device {device.name}")
            runners[device.name] = CpuProcess(
                device.name, free[cpus % len(free)], crew, provider=device.provider
            )
            cpus += 1
        elif device.isa is not None and build_part is not None:
            runners[device.name] = ProgramSimulator(device, build_part)
        elif device.isa is not None and compile_layer is not None and not assume_int8:
            runners[device.name] = KernelSimulator(device, model, compile_layer)
        else:
            # Some devices are only there by name: their values are made, their time is predicted.
            runners[device.name] = ByCost()
            notes.append(f"{device.name} is simulated by its cost")
    if cpus > len(free):
        notes.append(f"{cpus} CPU devices share {len(free)} cores: their times are too long")
    return notes


def _local(
    parts: Sequence[Part],
    files: Mapping[int, Path],
    values: Mapping[str, Array],
    ties: Mapping[int, Mapping[str, int]],
) -> dict[str, Array]:
    """Every part's outputs on the inputs that it received, by onnxruntime; parts with ties were
    compared with the NumPy reference layer by layer, so their own values stand."""
    expected: dict[str, Array] = {}
    for part in parts:
        if part.index in ties:
            expected |= {n: values[n] for n in part.makes}
            continue
        session = open_session(files[part.index], part.name, form=PLAIN)
        given = {n: values[n] for n in part.reads}
        results = run_session(session, list(part.makes), given, part.name)
        expected |= dict(zip(part.makes, results, strict=True))
    return expected


def _tie_note(model: Imported, ties: Mapping[int, Mapping[str, int]]) -> str:
    counts = {n: count for part in ties.values() for n, count in part.items()}
    every = sum(model.net.tensors[n].elements for n in counts)
    return (
        f"ties: {sum(counts.values())} of {every} elements of parts with QLinearConv round half up "
        "on the machine and half to even in ONNX; every part was compared on what it received"
    )


def _whole_ms(
    model: Imported,
    constants: Mapping[str, Any],
    feeds: Mapping[str, Array],
    runs: int,
    warm_ups: int,
    clock: str,
) -> float:
    """Median ms of the model in one piece on one core."""
    session = open_session(whole(model.net, constants), model.net.path)
    return measure(run_call(session, feeds), runs, warm_ups, clock)[0]


def _drift(model: Imported, whole_ms: float, clock: str) -> float:
    """whole_ms over that of a profile taken in the same way, less 1; 0 without such a profile."""
    for profile in model.profiles.values():
        # Only a profile of the CPU with one thread says what this machine should do.
        same = profile.device.kind == "cpu" and (profile.threads, profile.clock) == (1, clock)
        if same and profile.whole_ms:
            return whole_ms / profile.whole_ms - 1.0
    return 0.0


def _expected(
    model: Imported,
    constants: Mapping[str, Any],
    feeds: Mapping[str, Array],
    parts: Sequence[Part],
    other: Mapping[str, Array],
    form: str,
) -> tuple[dict[str, Array], bool]:
    """(boundary tensors of the whole model, whether other inputs change every one)."""
    net = model.net
    # Tensors between parts are made outputs, so that they can be compared.
    inner = [n for p in parts for n in p.makes if n not in net.outputs]
    session = open_session(whole(net, constants, inner), net.path, form=form)
    names = [o.name for o in session.get_outputs()]
    values = run_session(session, names, dict(feeds), net.path)
    expected = dict(zip(names, values, strict=True))
    # Other inputs: outputs that stay the same prove nothing.
    values = run_session(session, names, dict(other), net.path)
    changed = dict(zip(names, values, strict=True))
    live = [n for n in names if n not in net.constants]
    return expected, all(not np.array_equal(expected[n], changed[n]) for n in live)
