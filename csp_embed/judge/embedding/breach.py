"""A broken rule of the embedding problem, as the judges of embeddings and of coverings name it."""

from __future__ import annotations

from dataclasses import dataclass

# docs/embedding-rules.md states them. Coverings are not regular by nature (8), embeddings leave the
# transfers of a tile to the schedule (10).
RULES = {
    1: "same kind",
    2: "operands agree",
    3: "injective",
    4: "pad is harmless",
    5: "exact cover",
    6: "one home per output",
    7: "single-valued content",
    8: "regular",
    9: "layout",
    10: "memory interface",
}


@dataclass(frozen=True)
class Breach:
    """A broken rule: its number (see RULES; 9 stands for the layout's own promises) and where."""

    rule: int
    text: str

    def __str__(self) -> str:
        return f"rule {self.rule} ({RULES[self.rule]}): {self.text}"
