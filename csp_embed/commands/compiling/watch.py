"""`--stop-after`, `--print-after` and `--check`: looking into the chain of stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from csp_embed.commands.common import print_json, say
from csp_embed.errors import InputError


@dataclass
class Watch:
    """What a user wants to see of the stages. quiet: artefacts are kept for the JSON document
    instead of being printed as they are made."""

    stop_after: str | None = None
    print_after: tuple[str, ...] = ()
    check: bool = False
    quiet: bool = False
    # Kept for one document at the end.
    printed: list[dict[str, str]] = field(default_factory=list)

    def require(self, stages: tuple[str, ...]) -> None:
        """Raises: InputError for a name that no stage has, and for one beyond the stop."""
        # Both options name stages; either may be mistyped.
        asked = [("--print-after", name) for name in self.print_after]
        asked += [("--stop-after", self.stop_after)] if self.stop_after is not None else []
        for option, name in asked:
            if name not in stages:
                raise InputError(
                    f"{option} {name} is unknown",
                    why=f"the stages are {', '.join(stages)}",
                    hint=f"{option} embedding",
                )
        if self.stop_after is None:
            return
        for name in self.print_after:
            # What comes after the stop is never made.
            if stages.index(name) > stages.index(self.stop_after):
                raise InputError(
                    f"--print-after {name} has no effect with --stop-after {self.stop_after}",
                    why=f"{name} comes later: {', '.join(stages)}",
                    hint=f"--stop-after {name}",
                )

    def seen(self, name: str, artefact: Any) -> None:
        """Prints an artefact that was asked for, at once: a later stage may still refuse."""
        if name not in self.print_after:
            return
        text = artefact.show()
        # In JSON mode nothing else may be printed.
        if self.quiet:
            self.printed.append({"artefact": name, "text": text})
        else:
            print(f"--- after {name}\n{text}")

    def print_stopped(
        self, name: str, text: str, notes: Sequence[str], show: bool, as_json: bool
    ) -> None:
        """What `--stop-after` stopped at: whole with --show, else how long it is."""
        if as_json:
            print_json({"artefact": self.stop_after, "text": text} | self.document())
            return
        # The artefact may have thousands of lines.
        short = f"{name}: {self.stop_after} made, {len(text.splitlines())} lines (--show)"
        print(text if show else short)
        for note in notes:
            say(f"note: {note}")

    def document(self) -> dict[str, Any]:
        """What `--json` adds, where artefacts were asked for."""
        return {"printed": self.printed} if self.print_after else {}
