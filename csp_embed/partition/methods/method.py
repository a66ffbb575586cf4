"""What a method is: a value with a name, when it applies, and what it does.

Takes: a Search.  Leaves: its incumbent and its proof improved.

Candidates go to the incumbent as soon as they are known rather than back to the caller, so that a
limit or Ctrl-C loses none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from csp_embed.partition.arrays.view import Problem
from csp_embed.partition.methods.list_scheduling import Placement
from csp_embed.partition.portfolio import Step
from csp_embed.partition.proof import Proof
from csp_embed.partition.request import Clock, Incumbent, Request


@dataclass
class Search:
    """One search: the view of the problem, what was asked for, and what is known so far.

    starts: list schedules, best first. rounds: of exact search, so far."""

    p: Problem
    inc: Incumbent
    proof: Proof
    clock: Clock
    starts: list[Placement] = field(default_factory=list)
    rounds: int = 0

    @property
    def request(self) -> Request:
        """With limits in the times of the problem."""
        return self.clock.request


@dataclass(frozen=True)
class Method:
    """One way to improve the incumbent.

    applies: None, or the reason why not. run: one step of a portfolio; its numbers are the
    step's."""

    name: str
    applies: Callable[[Search, Step], str | None]
    run: Callable[[Search, Step], None]


def always(search: Search, step: Step) -> str | None:
    """For methods that apply to every problem."""
    return None
