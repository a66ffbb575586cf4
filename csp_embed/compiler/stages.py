"""What a stage is, and a chain of them: run in order, stopped, printed and checked after any.

A stage takes one artefact and leaves the next. It says beforehand why it would not take one, and it
can judge what it left against what it took; it never repairs what an earlier one left. This module
knows no stage by name: `chain.py` lists those of the compiler.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from csp_embed.errors import CheckError, CspEmbedError, InputError

# Verifies after every stage of every chain; the tests set it.
ALWAYS = "CSP_EMBED_CHECK"


class Artefact(Protocol):
    """What a stage leaves: a value that shows itself and says what is wrong with it."""

    def show(self) -> str:
        """For people; what `--print-after` prints."""
        ...

    def verify(self) -> Sequence[object]:
        """Every stated rule that it breaks by itself; empty for a good one."""
        ...


class Stage(Protocol):
    """name: as `--stop-after` knows it. takes: the stage whose artefact it takes ("": what the
    chain is given). leaves, judge: what comes out and what judges it, in words."""

    name: ClassVar[str]
    takes: ClassVar[str]
    leaves: ClassVar[str]
    judge: ClassVar[str]

    def accepts(self, x: Any) -> CspEmbedError | None:
        """None, or why it does not take `x`: an error that a user can read."""
        ...

    def apply(self, x: Any) -> Any:
        """The artefact that follows from `x`."""
        ...

    def verify(self, x: Any, y: Any) -> Sequence[object]:
        """What is wrong with `y` as that which follows from `x`; empty where nothing is."""
        ...


@dataclass
class Made:
    """The artefacts of one run by stage, in order. checked: stages whose artefact was verified."""

    artefacts: dict[str, Any] = field(default_factory=dict[str, Any])
    checked: list[str] = field(default_factory=list[str])

    def __getitem__(self, name: str) -> Any:
        return self.artefacts[name]


@dataclass(frozen=True)
class Chain:
    """Stages in order; `print(chain)` tells what each takes, leaves and is judged by."""

    stages: tuple[Stage, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(s.name for s in self.stages)

    def __str__(self) -> str:
        # The last column is free: it may be long.
        rows = [("stage", "takes", "leaves", "judged by")]
        rows += [(s.name, s.takes or "the request", s.leaves, s.judge) for s in self.stages]
        widths = [max(len(r[c]) for r in rows) for c in range(3)]
        return "\n".join(
            "  ".join([*(r[c].ljust(widths[c]) for c in range(3)), r[3]]).rstrip() for r in rows
        )

    def run(
        self,
        start: Any,
        *,
        stop_after: str | None = None,
        check: bool = False,
        seen: Callable[[str, Any], None] = lambda name, artefact: None,
    ) -> Made:
        """Applies the stages to `start`, up to and with `stop_after`.

        check: verifies after every stage (always where the environment has CSP_EMBED_CHECK=1).
        seen: is told every artefact as it is made.
        Raises: InputError for an unknown stage; what a stage does not accept; CheckError where one
        left an artefact that breaks a rule.
        """
        if stop_after is not None:
            self.require([stop_after])
        check = check or os.environ.get(ALWAYS, "") not in ("", "0")
        made = Made()
        for stage in self.stages:
            # By name, not by place: a stage may take an earlier one's artefact.
            x = made[stage.takes] if stage.takes else start
            reason = stage.accepts(x)
            if reason is not None:
                raise reason
            y = made.artefacts[stage.name] = stage.apply(x)
            # First each artefact by itself, then against what it was made of.
            if check:
                _refuse(stage, [*y.verify(), *stage.verify(x, y)])
                made.checked.append(stage.name)
            # Told after it was checked: nothing wrong is shown as right.
            seen(stage.name, y)
            if stage.name == stop_after:
                break
        return made

    def require(self, names: Iterable[str]) -> None:
        """Raises: InputError for a name that no stage has."""
        for name in names:
            if name not in self.names:
                raise InputError(
                    f"there is no stage {name!r}",
                    why=f"the stages are {', '.join(self.names)}",
                    hint=f"--stop-after {self.names[-1]}",
                )


def _refuse(stage: Stage, breaches: Sequence[object]) -> None:
    if breaches:
        raise CheckError(
            f"the checks refuse what the {stage.name} stage left ({len(breaches)} problems)",
            where=stage.name,
            why="; ".join(str(b) for b in breaches[:3]),
            hint="this is our mistake: please report the command",
        )
