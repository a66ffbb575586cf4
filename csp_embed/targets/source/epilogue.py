"""The steps behind the sums, on the registers that hold them."""

from __future__ import annotations

from collections.abc import Mapping

from csp_embed.ir.operator import Operator, Step
from csp_embed.machine.templates.spec import SourceMachine
from csp_embed.targets.source.nest import Address, Call, Node, Sum


class Epilogue:
    """begin: what fills registers with constants, once for a tile. registers: those it needs."""

    def __init__(self, program: SourceMachine, memory: str, op: Operator) -> None:
        self.program, self.memory, self.op = program, memory, op
        self.begin: list[Node] = []
        self.registers: list[tuple[str, str]] = []
        self._filled: dict[int, str] = {}

    def steps(self, register: str, adds: Mapping[str, Sum]) -> list[Node]:
        """All steps on one register of sums. adds: "add0", … -> where its element lies."""
        out: list[Node] = []
        number = 0
        for step in self.op.epilogue:
            function, amount = _function(step)
            template = self.program.find(
                "map", dst=self.memory, other=self.memory, function=function
            )
            assert template is not None, f"the search asks for {function}"
            if step.access is None:
                # Immediates come from registers, as templates have no immediate forms.
                other = self._constant(amount)
            else:
                # Loaded anew for each register of sums: its lanes differ.
                other = self._loaded(out, Address(f"add{number}_", adds[f"add{number}"]))
                number += 1
            roles = template.roles
            out.append(Call(template.name, {roles["dst"]: register, roles["other"]: other}))
        return out

    def added(self, register: str, at: Address) -> list[Node]:
        """What adds values of memory to a register."""
        out: list[Node] = []
        add = self.program.find("map", dst=self.memory, other=self.memory, function="add")
        assert add is not None, "machine/templates/rules.py asks for it"
        other = self._loaded(out, at)
        out.append(Call(add.name, {add.roles["dst"]: register, add.roles["other"]: other}))
        return out

    def _constant(self, value: int) -> str:
        # Equal constants share a register.
        if value not in self._filled:
            name = f"imm_{len(self._filled)}"
            self._filled[value] = name
            fill = self.program.find("fill", dst=self.memory)
            assert fill is not None
            self.registers.append((self.memory, name))
            self.begin.append(Call(fill.name, {fill.roles["dst"]: name,
                                               fill.roles["value"]: value}))  # fmt: skip
        return self._filled[value]

    def _loaded(self, out: list[Node], at: Address) -> str:
        # One register for all loads: each is used at once.
        if (self.memory, "add_0") not in self.registers:
            self.registers.append((self.memory, "add_0"))
        get = self.program.find("copy_in", dst=self.memory, address="int32")
        assert get is not None
        out.append(Call(get.name, {get.roles["dst"]: "add_0", get.roles["address"]: at}))
        return "add_0"


def _function(step: Step) -> tuple[str, int]:
    """(function, immediate): a negative shift to the right is one to the left."""
    if step.op == "shr" and step.imm is not None and step.imm < 0:
        return "shl", -step.imm
    return step.op, 0 if step.imm is None else step.imm
