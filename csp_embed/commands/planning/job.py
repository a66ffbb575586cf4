"""One request of `partition` carried out: read, search, write, show; a plan or a front of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from csp_embed.commands.common import print_json, progress, say, stderr
from csp_embed.commands.planning.options import write_json
from csp_embed.commands.planning.shown import Outputs, answer, print_plan, similar
from csp_embed.errors import Infeasible, InputError, TimeLimit
from csp_embed.ir.network import Plan

if TYPE_CHECKING:
    from csp_embed.commands.planning.inputs import Inputs, Request


@dataclass(frozen=True)
class Job:
    """What was asked for.

    options: of `solve` for one plan and for a front; of_one: those for one plan only. begin: when
    the command was started (`time.perf_counter`). start: a plan to improve. lost: devices that are
    gone. table, explain: what to print.
    """

    request: Request
    options: Mapping[str, Any]
    of_one: Mapping[str, Any]
    outputs: Outputs
    begin: float
    as_json: bool
    start: Plan | None = None
    lost: tuple[str, ...] = ()
    lenient: bool = False
    table: bool = False
    explain: str | None = None
    points: int | None = None

    def run(self) -> None:
        """Everything. Raises: CspEmbedError; SystemExit for answers that are no success."""
        from csp_embed.commands.planning.inputs import load_inputs, refuse_shared_host

        # Reading a model may compile kernels: it reports too.
        with progress(quiet=self.as_json) as tell:
            inputs = load_inputs(
                self.request, objective=self.of_one["objective"], lost=self.lost,
                # With a plan to improve, or devices gone, costs may name devices that are not
                # there.
                lenient=self.lenient or self.start is not None or bool(self.lost), progress=tell,
            )  # fmt: skip
            # Before the search: a mistyped layer must not end it after minutes.
            self._refuse_unknown(inputs)
            refuse_shared_host(inputs, self.of_one["replicas"])
            # Early: the graph is of use even if the search is broken off.
            self.outputs.write_graph(inputs)
            options: dict[str, Any] = {
                **self.options,
                "cost_model": inputs.cost_model,
                "progress": tell,
            }
            if options["time_limit"] is not None and options["time_limit"] > 0:
                # What reading and loading libraries took counts too.
                import_module("csp_embed.partition.pareto")
                # The limit is on the whole command.
                spent = time.perf_counter() - self.begin
                # Never 0: that would be no limit.
                options["time_limit"] = max(0.01, options["time_limit"] - spent)
            if self.points is not None:
                return self._front(inputs, self.points, options)
            asked = {**options, **self.of_one}
            plan = self._solve(inputs, {**asked, "start": self.start})
            plan, inputs = self._settle(inputs, plan, asked)
        source, seconds = self.request.source(), time.perf_counter() - self.begin
        self._show(replace(plan, source=source, seconds=seconds), inputs)

    def _refuse_unknown(self, inputs: Inputs) -> None:
        """Raises: InputError for a layer that does not exist."""
        known = inputs.graph.by_id()
        fixed: Mapping[str, str] = self.options["fix"] or {}
        for option, name in [("--explain", self.explain), *(("--fix", task) for task in fixed)]:
            if name is not None and name not in known:
                raise InputError(f"{option}: no layer {name!r}", hint=similar(name, inputs))
        for task, device in fixed.items():
            why = inputs.why_not(task).get(device)
            if why is not None:
                raise Infeasible(
                    f"--fix {task}={device}: that device cannot run it",
                    where=task,
                    why=why,
                    hint=_float_hint(inputs) or f"leave out --fix {task}={device}; its devices are "
                    + ", ".join(
                        d.name for d in inputs.platform.devices
                        if known[task].cost_on(d) is not None
                    ),
                )  # fmt: skip

    def _show(self, plan: Plan, inputs: Inputs) -> None:
        # No plan: ends here, with its own exit code.
        if plan.objective is None:
            _no_plan(plan, self.as_json)
        self.outputs.write(plan, inputs)
        if self.as_json:
            print_json(answer(plan))
        else:
            print_plan(plan, inputs, self.table, self.explain)
            if self.outputs.plan:
                say(f"plan written to {self.outputs.plan}")
        # The plan is written first: it is a plan all the same.
        if "interrupted" in plan.reasons:
            stderr.print("stopped by Ctrl-C or another signal: this is the best plan so far")
            raise SystemExit(130)

    def _solve(self, inputs: Inputs, options: Mapping[str, Any]) -> Plan:
        from csp_embed.partition.solve import solve

        try:
            return solve(inputs.graph, inputs.platform, **options)
        except Infeasible as error:
            # For people the error is enough; scripts get a document beside it.
            if not self.as_json:
                raise
            stderr.print(error.render(), markup=False, highlight=False)
            print_json(
                {
                    "objective": None,
                    "lower_bound": None,
                    "status": "INFEASIBLE",
                    "seconds": time.perf_counter() - self.begin,
                    "what": error.what,
                    "where": error.where,
                    "why": error.why,
                }
            )
            raise SystemExit(error.exit_code) from error

    def _settle(
        self, inputs: Inputs, plan: Plan, options: Mapping[str, Any]
    ) -> tuple[Plan, Inputs]:
        """The plan with its chains built, where a device has programs."""
        from csp_embed.commands.planning.settle import settled

        if "interrupted" in plan.reasons:
            return plan, inputs
        limit = self.options["time_limit"]
        deadline = None if limit is None else self.begin + limit
        return settled(inputs, plan, options, deadline)

    def _front(self, inputs: Inputs, points: int, options: Mapping[str, Any]) -> None:
        """The front of latency and period, as a table and as one file of plans."""
        from csp_embed.network.files.plan import plan_document
        from csp_embed.partition.pareto import pareto

        if points < 2:
            raise InputError("--pareto needs at least 2 points", hint="--pareto 5")
        # Points share the limit.
        plans = pareto(inputs.graph, inputs.platform, points=points, **options)
        if self.outputs.plan:
            document = {"format": "csp-embed-pareto/1", "plans": [plan_document(p) for p in plans]}
            write_json(self.outputs.plan, document)
        rows = [{"latency": p.latency, "period": p.period, "status": p.status} for p in plans]
        if self.as_json:
            print_json({"points": rows, "seconds": time.perf_counter() - self.begin})
        else:
            say("latency ms   period ms   status")
            for row in rows:
                text = f"{row['latency'] or 0:10.6g}  {row['period'] or 0:10.6g}   {row['status']}"
                say(text)
        # After writing: what there is stays.
        if any("interrupted" in p.reasons for p in plans):
            stderr.print("stopped by Ctrl-C or another signal: these are the points so far")
            raise SystemExit(130)
        if not plans:
            raise TimeLimit(
                "the limit ended the search before any plan", hint="give more time (--time-limit)"
            )


def _float_hint(inputs: Inputs) -> str:
    """How a model that is no quantised network becomes one."""
    error = inputs.costs.unread if inputs.costs is not None else None
    return "" if error is None else error.hint


def _no_plan(plan: Plan, as_json: bool) -> None:
    """UNKNOWN: the limit or Ctrl-C came before any plan."""
    # Ctrl-C and the limit have different exit codes.
    code = 130 if "interrupted" in plan.reasons else TimeLimit.exit_code
    if not as_json and code == TimeLimit.exit_code:
        raise TimeLimit(
            "the limit ended the search before any plan",
            why="; ".join(plan.reasons) or f"lower bound so far {plan.lower_bound:.6g} ms",
            hint="give more time, or another --method",
        )
    if as_json:
        print_json(answer(plan))
    raise SystemExit(code)
