"""Variables of the lifted model: one Boolean per option, and whether the factors are commuted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from csp_embed.embed.problem import Option


@dataclass
class Vars:
    """pairs: (Boolean, option). gates: family -> assumption literal, filled as families are posted
    where `explain` is set; otherwise constraints hold outright."""

    pairs: list[tuple[Any, Option]]
    commuted: Any
    explain: bool = False
    gates: dict[str, Any] = field(default_factory=dict[str, Any])

    def gated(self, model: Any, family: str, constraint: Any) -> None:
        """Makes a constraint hold only under its family's literal, where explanations are asked."""
        if self.explain:
            if family not in self.gates:
                self.gates[family] = model.new_bool_var(family)
            constraint.only_enforce_if(self.gates[family])
