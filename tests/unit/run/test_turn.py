"""What a device is told of a part's tensors, by hand."""

from __future__ import annotations

from csp_embed.run.device_parts import Part
from csp_embed.run.turn import Turn, needs_of


def part(index: int, device: str, reads: str, makes: str, replica: int = 0) -> Part:
    names = tuple(reads.split()), tuple(makes.split())
    return Part(index, device, (f"t{index}",), (), *names, 0.0, replica)


def test_only_what_somebody_else_reads_comes_back() -> None:
    """a: x -> u k s; b: u -> v; a: v k -> y z; the user gets y and s. k stays on a,
    z is for nobody. Another replica on b alone shares nothing with it."""
    parts = [
        part(0, "a", "x", "u k s"),
        part(1, "b", "u", "v"),
        part(2, "a", "v k", "y z"),
        part(3, "b", "x", "k", 1),
        part(4, "b", "k", "y s", 1),
    ]
    needs = needs_of(parts, {"y", "s"})
    assert [sorted(needs[i].back) for i in range(5)] == [["s", "u"], ["v"], ["y"], [], ["s", "y"]]
    assert [needs[i].of for i in range(5)] == [2, 1, 2, 2, 2]
    assert Turn(7, 1.5, needs[0]).sample == 7
