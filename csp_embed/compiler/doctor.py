"""What can run here: engines by machine, and what is missing for more."""

from __future__ import annotations

from typing import Any

from csp_embed.compiler.source.suite import contraction_fault
from csp_embed.errors import MissingLibrary
from csp_embed.machine.load import builtin_names, load_isa
from csp_embed.targets import target_of
from csp_embed.targets.source.toolchain import emulate
from csp_embed.targets.source.toolchain.build import c_compiler, require_native

_NEWER = "scripts/emulators gets newer emulators; --engine interpreted runs the spec's meanings"


def machines() -> dict[str, dict[str, Any]]:
    """Machine -> {"engines": names as `--engine` and reports have them, "missing": [{what, try}]}.

    Only what a machine that ships needs is looked for. Where a compiler and an emulator are there,
    a machine's contraction is run by them: old ones know instructions that they compute wrongly.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in builtin_names():
        isa = load_isa(name)
        # Everything that a stream needs is in this package.
        if target_of(isa) == "stream":
            found[name] = {"engines": ["functional", "cycles"], "missing": []}
            continue
        if target_of(isa) == "commands":
            found[name] = {"engines": ["interpreted"], "missing": []}
            continue
        lacks: list[dict[str, str]] = []
        # Lambdas: each asks for one thing, and the next is asked whatever the answer.
        for needed in (lambda: c_compiler(), lambda isa=isa: require_native(isa)):
            try:
                needed()
            except MissingLibrary as error:
                lacks.append({"what": f"{error.what}: {error.why}", "try": error.hint})
        engines = ["interpreted"] if lacks else ["native", "interpreted"]
        if isa.program is not None and isa.program.runner.emulator:
            try:
                emulate.commands(isa)
            except MissingLibrary as error:
                lacks.append({"what": f"{error.what}: {error.why}", "try": error.hint})
            else:
                # Of a machine that runs natively nobody waits for its emulator.
                fault = contraction_fault(isa) if "native" not in engines else ""
                if fault:
                    lacks = [{"what": f"{isa.program.runner.emulator[0]} does not compute"
                              f" {name}: {fault}", "try": _NEWER}]  # fmt: skip
                else:
                    engines.insert(len(engines) - 1, "emulated")
                    # An emulator comes with its compiler: nothing else is missing then.
                    lacks = []
        found[name] = {"engines": engines, "missing": lacks}
    return found
