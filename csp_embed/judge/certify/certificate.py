"""The certificate: what was proved of which file, how, with which probability, on what ground."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

FORMAT = "csp-embed-certificate/1"
ASSUMED = (
    "instructions mean what the machine's spec says (isa_specs), and the hardware conforms to it",
    "the host packs operands as the claims say and leaves all other bytes as the file has them",
    "tensors keep to their types and to what the formula promises (`within`)",
    "the pseudo-random numbers are as good as random ones",
)


@dataclass(frozen=True)
class Part:
    """One part of the proof. problems: why it does not hold; said: what was shown, and how.
    log2_error: of the probability that a wrong program passes this part; 0 where it is certain."""

    name: str
    problems: tuple[str, ...]
    said: str
    log2_error: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class LayerVerdict:
    """One layer of a network. ok: certified; said: how, or why it is not."""

    name: str
    ok: bool
    said: str


@dataclass(frozen=True)
class Certificate:
    """digest: SHA-256 of the judged program. seconds: wall clock, the only part of it that is not
    a function of the program, seed and rounds. verdict: what was proved where all parts hold.
    layers: of a network, those of the machine; all have to be certified."""

    digest: str
    machine: str
    formula: str
    parts: tuple[Part, ...]
    log2_error: float
    seed: int
    rounds: int
    assumed: tuple[str, ...]
    seconds: float
    verdict: str = "certified for all inputs"
    layers: tuple[LayerVerdict, ...] = ()

    def __repr__(self) -> str:
        verdict = self.verdict if self.ok else "not certified"
        return f"<Certificate of {self.formula} on {self.machine}: {verdict}>"

    @property
    def ok(self) -> bool:
        return all(x.ok for x in (*self.parts, *self.layers))

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything that does not hold, by part."""
        return tuple(f"{p.name}: {text}" for p in self.parts for text in p.problems)

    def document(self) -> dict[str, Any]:
        """It as JSON values."""
        parts = [asdict(p) | {"ok": p.ok} for p in self.parts]
        return {"format": FORMAT, "ok": self.ok} | asdict(self) | {"parts": parts}

    def show(self) -> str:
        """A line for each part, then the verdict."""
        lines: list[str] = []
        for p in self.parts:
            lines += [f"{p.name}: {text}" for text in p.problems] or [f"{p.name}: {p.said}"]
        for layer in self.layers:
            word = "certified" if layer.ok else "not certified"
            lines.append(f"layer {layer.name}: {word}: {layer.said}")
        if self.ok:
            lines.append(
                f"{self.verdict}; a wrong program would pass with probability 2^"
                f"{self.log2_error:.0f} at most ({self.rounds} rounds, seed {self.seed})"
            )
        elif all(p.ok for p in self.parts):
            good = sum(layer.ok for layer in self.layers)
            lines.append(f"NOT certified as a whole: {good} of {len(self.layers)} layers are")
        else:
            lines.append("NOT certified")
        return "\n".join(lines)
