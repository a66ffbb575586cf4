"""All exceptions that users see. Each names the place, the reason and one thing to try.

Exit codes of the command line: 1 our bug, 2 input or missing library, 3 infeasible,
4 limit without an answer, 5 refused, unequal or deadlock, 130 Ctrl-C.
"""

from __future__ import annotations


class CspEmbedError(Exception):
    """Parent of every error that a user can cause or mend.

    `what` says what is wrong in one line; `where` is a file:line, an argument or an item;
    `why` is the reason; `hint` is one thing to try.
    """

    kind = "input"
    exit_code = 2

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "") -> None:
        self.what, self.where, self.why, self.hint = what, where, why, hint
        super().__init__(self.render())

    def render(self) -> str:
        """The message as printed: `error[kind]: what`, then where, why and try."""
        lines = [f"error[{self.kind}]: {self.what}"]
        for label, text in (("where", self.where), ("why", self.why), ("try", self.hint)):
            if text:
                lines.append(f"  {label}: {text}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickles across processes with all four parts."""
        return (_rebuild, (type(self), self.what, self.where, self.why, self.hint))


def _rebuild(cls: type[CspEmbedError], what: str, where: str, why: str, hint: str) -> CspEmbedError:
    return cls(what, where=where, why=why, hint=hint)


class SpecError(CspEmbedError):
    """An instruction-set file or a machine configuration is malformed or contradictory."""

    kind = "spec"


class OperatorError(CspEmbedError):
    """A formula, a shape or an operator's argument is wrong."""

    kind = "operator"


class InputError(CspEmbedError):
    """A file, a path or an option is wrong (program, graph, platform, results)."""

    kind = "input"


class MissingLibrary(CspEmbedError):
    """An optional library or program that the request needs is not there."""

    kind = "library"


class Infeasible(CspEmbedError):
    """Proved: no solution under the stated constraints."""

    kind = "infeasible"
    exit_code = 3


class TimeLimit(CspEmbedError):
    """The limit ended the search before any answer."""

    kind = "limit"
    exit_code = 4


class CheckError(CspEmbedError):
    """A checker refused an artefact: it breaks a stated rule."""

    kind = "check"
    exit_code = 5


class EncodeError(CspEmbedError):
    """An instruction cannot be encoded: a value does not fit its field."""

    kind = "encode"
    exit_code = 5


class SimError(CspEmbedError):
    """A program cannot run: deadlock, bad address, unknown instruction, unequal result."""

    kind = "sim"
    exit_code = 5


class WorkerDied(CspEmbedError):
    """A process that worked for us ended before its work did: killed, or out of memory.

    device: whose it was, where it was a device of a plan.
    """

    kind = "worker"
    exit_code = 5
    device = ""

    def of(self, device: str) -> WorkerDied:
        """Itself, with the device that is lost."""
        self.device = device
        return self
