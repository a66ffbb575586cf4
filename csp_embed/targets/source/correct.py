"""What an unsigned factor adds to a sum, taken away again.

A machine multiplies unsigned by signed lanes; an operator's operands are both signed. The compiler
sees it in the types and packs l + 128; each sum then holds 128 * (sum of the other factor) too
much. That is what the machine's own contraction gives against a constant element: its negative is
where sums begin. Lanes without data hold 128 as well, and are corrected with the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from csp_embed.ir.embedding import Embedding
from csp_embed.machine.spec import Isa
from csp_embed.targets.source import tiles
from csp_embed.targets.source.live import Live
from csp_embed.targets.source.nest import Address, Block, Call, Loop, Node, Sum
from csp_embed.targets.source.places import Place

BUFFER, UNIT = "corr_", "unit_"
SUMS = 4  # at once; three registers more must be left


@dataclass(frozen=True)
class Correction:
    """signed: the factor whose sums count. at: where the first value of a sum lies, by counters,
    in the corrections of the first window of taps; size: values of each window; elements: of all.
    nest: what computes them."""

    signed: str
    at: Sum
    size: int
    elements: int
    nest: tuple[Node, ...]


@dataclass(frozen=True)
class _Window:
    """Where the corrections of a window of taps go; how many taps, and what the loop over them
    binds their counter to (nothing: all of them)."""

    into: Sum
    taps: int
    bound: Mapping[str, Sum]


def correction(
    embedding: Embedding,
    isa: Isa,
    places: Mapping[str, Place],
    unsigned: str,
    names: Mapping[str, str],
    cut: Live | None = None,
) -> Correction:
    """names: counter -> loop variable. cut: steps that are left out, and so not corrected."""
    program = isa.program
    assert program is not None
    signed = "rhs" if unsigned == "lhs" else "lhs"
    contract, get_lhs, get_rhs = tiles.templates(isa)
    gets = {"lhs": get_lhs, "rhs": get_rhs}
    dst = isa.memory(contract.slot("dst").memory)
    results = isa.memory(tiles.results_memory(isa))
    lanes = 1
    for d in dst.lanes:
        lanes *= isa.dims[d]
    moves = embedding.layouts[signed].step
    # Only counters that move the signed factor: the correction differs by these.
    free = [c for c in embedding.counters if not c.reduced and any(moves.get(c.name, ()))]
    terms, size = {}, lanes
    # Innermost last, as the buffer is read.
    for c in reversed(free):
        terms[c.name] = size
        size *= c.extent
    at = Sum.of(0, terms)

    def named(where: Sum, bound: Mapping[str, Sum]) -> Sum:
        for counter, value in bound.items():
            where = where.bind(counter, value)
        return Sum(where.const, tuple((names.get(v, v), c) for v, c in where.terms))

    def call(kind: str, operands: dict[str, object], **wanted: str) -> Call:
        t = program.find(kind, **wanted)
        assert t is not None, f"machine/templates/rules.py asks for {kind} {wanted}"
        return Call(t.name, {t.roles[r]: v for r, v in operands.items()})  # type: ignore[misc]

    get, get_unit = gets[signed], gets[unsigned]

    shortened = None if cut is None else cut.reduced

    def block(window: _Window, given: list[Mapping[str, Sum]]) -> Node:
        """Several sums at once: each waits for its last step."""
        bound = [{**window.bound, **b} for b in given]
        sums = [f"acc_{n}" for n in range(len(bound))]
        # Counters that do not move the signed factor count its element again in all their values.
        inner: tuple[Node, ...] = tuple(
            step
            for acc, b in zip(sums, bound, strict=True)
            for step in (
                Call(get.name, {get.roles["dst"]: "signed_0",
                                get.roles["address"]: Address(places[signed].buffer,
                                                              named(places[signed].at(), b))}),
                Call(contract.name, {contract.roles["dst"]: acc,
                                     contract.roles[signed]: "signed_0",
                                     # Against a constant element, so that the machine's own
                                     # contraction sums.
                                     contract.roles[unsigned]: "unit_0"}),
            )
        )  # fmt: skip
        # The same reduced loops as the kernel's: what is summed there is summed here.
        for c in reversed([c for c in embedding.counters if c.reduced]):
            count = window.taps if c.name == shortened else c.extent
            inner = (Loop(names[c.name], count, inner, rolled=True),)
        apart = results.name != dst.name
        end: list[Node] = []
        for acc, b in zip(sums, bound, strict=True):
            # Sums that cannot be stored are converted first.
            made = "result_0" if apart else acc
            if apart:
                end.append(call("convert", {"dst": made, "source": acc}, dst=results.name,
                                source=dst.name))  # fmt: skip
            into = named(at.plus(window.into), b)
            end += [
                # Times -1: it is taken off where sums begin.
                call("map", {"dst": made, "other": "minus_0"}, dst=results.name,
                     other=results.name, function="mul"),
                call("copy_out", {"dst": made, "address": Address(BUFFER, into),
                                  "count": lanes}, dst=results.name, address="int32"),
            ]  # fmt: skip
        extra = [(results.name, "result_0")] if apart else []
        return Block(
            (*((dst.name, acc) for acc in sums), (results.name, "minus_0"), *extra,
             (contract.slot(signed).memory, "signed_0"),
             (contract.slot(unsigned).memory, "unit_0")),
            (
                *(call("reset", {"dst": acc}, dst=dst.name) for acc in sums),
                Call(get_unit.name, {get_unit.roles["dst"]: "unit_0",
                                     get_unit.roles["address"]: Address(UNIT, Sum())}),
                *inner,
                call("fill", {"dst": "minus_0", "value": -1}, dst=results.name),
                *end,
            ),
        )  # fmt: skip

    def nest(window: _Window) -> tuple[Node, ...]:
        around = list(free)
        body: tuple[Node, ...] = (block(window, [{}]),)
        if around:
            last = around.pop()
            # Registers of all roles may be of one file: three others, and two for the C compiler.
            at_once = max(1, min(SUMS, *(
                (program.file(s.memory).count - 5) // program.takes.get(s.memory, 1)
                for s in contract.slots
            )))  # fmt: skip
            whole, rest = divmod(last.extent, at_once)
            var = names[last.name]
            body = ()
            if whole:
                together: list[Mapping[str, Sum]] = [
                    {last.name: Sum(j, ((var, at_once),))} for j in range(at_once)
                ]
                # Whole groups in a loop, the ragged rest behind it.
                body += (Loop(var, whole, (block(window, together),)),)
            if rest:
                left = [{last.name: Sum(whole * at_once + j)} for j in range(rest)]
                body += (block(window, [*left]),)
        for c in reversed(around):
            body = (Loop(names[c.name], c.extent, body),)
        return body

    # One set of corrections for each window of taps, one behind the other.
    windows = [_Window(Sum(), 0, {})]
    if cut is not None:
        windows = [
            _Window(
                Sum(number * size), taps,
                {} if shortened is None else {shortened: Sum(begin, ((names[shortened], 1),))},
            )
            for number, (begin, taps) in enumerate(cut.windows)
        ]  # fmt: skip
    nodes = tuple(node for window in windows for node in nest(window))
    return Correction(signed, at, size, size * len(windows), nodes)
