"""What differs between two plans for one graph."""

from __future__ import annotations

from typing import Any

from csp_embed.errors import InputError
from csp_embed.ir.network import Plan


def plan_diff(a: Plan, b: Plan) -> dict[str, Any]:
    """{goal, objective, lower_bound, status, moved, loads, transfers, bytes, only_in}: pairs are
    (in a, in b); moved lists (task, device in a, device in b).

    Raises: InputError where the plans pursue different goals.
    """
    # A latency and a period are not the same quantity.
    if a.goal != b.goal:
        raise InputError(
            f"the plans have different goals: {a.goal} and {b.goal}",
            hint="compare two latency plans or two throughput plans",
        )
    left, right = a.device_of(), b.device_of()
    # Loads of either plan: one may use a link that the other does not.
    names = sorted({*a.loads, *b.loads})
    return {
        "goal": a.goal,
        "objective": (a.objective, b.objective),
        "lower_bound": (a.lower_bound, b.lower_bound),
        "status": (a.status, b.status),
        "method": (a.method, b.method),
        # Only layers of both plans can have moved.
        "moved": [(t, left[t], right[t]) for t in left if t in right and left[t] != right[t]],
        "tasks": (len(left), len(right)),
        "only_in": ([t for t in left if t not in right], [t for t in right if t not in left]),
        "loads": {n: (a.loads.get(n, 0.0), b.loads.get(n, 0.0)) for n in names},
        "transfers": (len(a.transfers), len(b.transfers)),
        "bytes": (sum(t.bytes for t in a.transfers), sum(t.bytes for t in b.transfers)),
        # Plans without a digest are given the benefit of the doubt.
        "same_graph": not (a.graph_sha256 and b.graph_sha256) or a.graph_sha256 == b.graph_sha256,
    }


def plan_diff_text(diff: dict[str, Any], limit: int = 40) -> str:
    """The same for people."""
    before, after = diff["objective"]
    lines = [f"{diff['goal']}: {_ms(before)} -> {_ms(after)}{_change(before, after)}"]
    lines.append(f"lower bound: {_ms(diff['lower_bound'][0])} -> {_ms(diff['lower_bound'][1])}")
    lines.append(f"status: {diff['status'][0]} -> {diff['status'][1]}; "
                 f"method: {diff['method'][0]} -> {diff['method'][1]}")  # fmt: skip
    lines.append(
        f"transfers: {diff['transfers'][0]} -> {diff['transfers'][1]}, "
        f"bytes: {diff['bytes'][0]:.0f} -> {diff['bytes'][1]:.0f}"
    )
    if not diff["same_graph"]:
        lines.append("the plans say that they were made for different graphs")
    for name, (x, y) in diff["loads"].items():
        lines.append(f"load of {name}: {_ms(x)} -> {_ms(y)}{_change(x, y)}")
    lines.append(f"{len(diff['moved'])} of {diff['tasks'][0]} layers moved")
    # Large plans move thousands of layers; --json has them all.
    lines += [f"  {task}: {x} -> {y}" for task, x, y in diff["moved"][:limit]]
    if len(diff["moved"]) > limit:
        lines.append(f"  … {len(diff['moved']) - limit} more (--json lists all)")
    for side, names in zip(("first", "second"), diff["only_in"], strict=True):
        if names:
            lines.append(f"only in the {side} plan: {', '.join(names[:8])}")
    return "\n".join(lines)


def _ms(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g} ms"


def _change(before: float | None, after: float | None) -> str:
    # No relative change from nothing.
    if not before or after is None:
        return ""
    return f" ({100 * (after / before - 1):+.2f} %)"
