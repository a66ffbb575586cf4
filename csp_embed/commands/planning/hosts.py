"""What run-plan does with workers on other hosts: reaching them, and going on without one."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from csp_embed.commands.common import stderr
from csp_embed.commands.planning.inputs import Inputs, Request, load_inputs
from csp_embed.errors import InputError, WorkerDied
from csp_embed.ir.network import Plan, Platform
from csp_embed.network.files.plan import write_plan
from csp_embed.run.execute import RunReport
from csp_embed.run.runner import Runner

REPLAN_S = 10.0  # seconds for a new plan: a pipeline stands still meanwhile


@contextmanager
def hosts_of(
    addresses: Sequence[str], token: str, dask: str | None, platform: Platform
) -> Generator[dict[str, Runner]]:
    """Runners of the devices that run elsewhere, by name; closed at the end.

    Raises: InputError for a worker that is not there or announces what the platform lacks.
    """
    from csp_embed.run.hosts.client import RemoteRunner, connect

    found: dict[str, Runner] = {}
    where: dict[str, str] = {}
    client = None
    # Whatever fails, what was opened is closed.
    try:
        for device, worker in connect(addresses, token).items():
            found[device], where[device] = RemoteRunner(worker), worker.address
        if dask is not None:
            from csp_embed.run.hosts.on_dask import clients

            # Dask's client is one for all its workers.
            client, runners = clients(dask)
            found |= runners
            where |= dict.fromkeys(runners, dask)
        # Found out here, not when a part is sent.
        strange = [d for d in found if d not in platform.by_name()]
        if strange:
            raise InputError(
                f"the platform has no device {strange[0]!r}, which a worker announces",
                where=where[strange[0]],
                hint="devices are " + ", ".join(platform.by_name()),
            )
        yield found
    finally:
        # Runners first: they still need the client.
        for runner in found.values():
            runner.close()
        if client is not None:
            client.close()


@dataclass
class Replanned:
    """plan, inputs: those that ran in the end. lost: devices that went on the way."""

    plan: Plan
    inputs: Inputs
    report: RunReport
    lost: list[str] = field(default_factory=list)


def run_with_losses(
    run: Callable[[Plan, Inputs], RunReport],
    plan: Plan,
    inputs: Inputs,
    request: Request,
    hosts: dict[str, Runner],
    replan: str | None,
) -> Replanned:
    """Runs; where a worker is lost and `replan` names a file, plans the rest anew, writes that plan
    there and runs it. Raises: WorkerDied without `replan`, or once no device is left."""
    lost: list[str] = []
    # A further worker may be lost in the next run.
    while True:
        try:
            return Replanned(plan, inputs, run(plan, inputs), lost)
        except WorkerDied as error:
            # Without a file for the new plan a loss is an error.
            if replan is None or not error.device:
                raise
            lost.append(error.device)
            # It is gone: nobody closes it again.
            hosts.pop(error.device, None)
            stderr.print(error.render(), markup=False, highlight=False)
            # No device is left to plan for.
            if len(inputs.platform.devices) == 1:
                raise
            inputs, plan = _without(lost, plan, request)
            # Written before it runs: another loss must not lose it too.
            write_plan(plan, replan)
            stderr.print(
                f"note: went on without {', '.join(lost)}: {plan.goal} {plan.objective:.6g} ms, "
                f"plan written to {replan}",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip


def _without(lost: Sequence[str], plan: Plan, request: Request) -> tuple[Inputs, Plan]:
    from dataclasses import replace

    from csp_embed.commands.planning.settle import settled
    from csp_embed.partition.solve import solve

    # Costs of lost devices are still in the graph: that is no error now.
    inputs = load_inputs(request, objective=plan.goal, lost=lost, lenient=True)
    options: dict[str, Any] = {"objective": plan.goal, "cost_model": inputs.cost_model}
    # From the old plan: the search begins with what can stay.
    found = solve(inputs.graph, inputs.platform, start=plan, time_limit=REPLAN_S, **options)
    if found.objective is None:
        raise InputError(
            f"no plan without {', '.join(lost)} within {REPLAN_S:g} s",
            why="; ".join(found.reasons),
            hint="start the worker again and run the plan as it is",
        )
    found, inputs = settled(inputs, found, options, time.perf_counter() + REPLAN_S)
    return inputs, replace(found, source=request.source())
