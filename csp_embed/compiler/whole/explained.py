"""One layer of a network: why it runs where it does, what was tried at which price, what would move
it.

Takes: a graph and a layer's name.  Leaves: a text. The network is built, since the layers around it
decide with it; it is not run.
"""

from __future__ import annotations

from collections.abc import Sequence

from csp_embed.compiler.request.options import Options
from csp_embed.compiler.whole.joins import with_copies
from csp_embed.compiler.whole.partition import Tell, plan_of
from csp_embed.compiler.whole.report import ends_of
from csp_embed.compiler.whole.segment import Segment
from csp_embed.compiler.whole.sites import Choice
from csp_embed.errors import InputError
from csp_embed.machine.costs import costs_of
from csp_embed.machine.spec import Isa
from csp_embed.nearest import nearest
from csp_embed.network.lower.layer import lower
from csp_embed.network.lower.lowered import Lowered
from csp_embed.network.lower.recipes import KINDS
from csp_embed.network.lower.signed import signed
from csp_embed.network.quantised import graph as g
from csp_embed.ops.bound import bound_cycles

SHOWN = 8  # embeddings


def explained(graph: g.Graph, name: str, isa: Isa, options: Options, tell: Tell) -> str:
    """Raises: InputError where no layer has that name, as `build` otherwise."""
    op = _named(graph, name)
    whole = with_copies(graph)
    plan = plan_of(signed(whole), isa, options, tell)
    made = lower(signed(whole), op)
    for number, segment in enumerate(plan.segments):
        for at, layer in enumerate(segment.layers):
            if layer.site.op.name == op.name:
                # As built: groups may have been joined, other steps taken.
                return "\n".join(
                    [
                        *_place(segment, number, at, len(plan.segments), isa, options),
                        *_sequences(layer.site.made),
                        *_embeddings(segment.offers[at], layer.choice, segment),
                        *_movers(graph, op, layer.site.made),
                    ]
                )
    if op.name in plan.views:
        return (
            f"{op.name} ({op.kind}) moves nothing: layers read the elements where they lie\n"
            "  what would move it: nothing, it takes no cycles"
        )
    why = plan.host.get(op.name, "it is computed by no program")
    lines = [f"{op.name} ({op.kind}): the host, because: {why}"]
    if not isinstance(made, str):
        # It has steps; what failed is where its tensors lie, or its schedule.
        lines += _sequences(made)
    return "\n".join([*lines, f"  what would move it: {_remedy(graph, op, made)}"])


def _named(graph: g.Graph, name: str) -> g.Operator:
    """By the layer's name or by that of what it makes: tools show either."""
    found = [op for op in graph.operators if name in (op.name, op.output)]
    if found:
        return found[0]
    every = list(dict.fromkeys(n for op in graph.operators for n in (op.name, op.output)))
    near = nearest(name, every, 5, cutoff=0.4)
    # Parts of names too: exporters put long paths before what people remember.
    near += [n for n in every if name.lower() in n.lower() and n not in near][:5]
    near = near or [op.name for op in graph.operators[:12]]
    raise InputError(
        f"no layer is called {name!r}",
        where=graph.source or graph.name,
        why=f"there are {', '.join(near)}, … ({len(graph.operators)} in all)",
        hint=f"--explain {near[0]!r}; --show prints all",
    )


def _place(
    segment: Segment, number: int, at: int, programs: int, isa: Isa, options: Options
) -> list[str]:
    layer = segment.layers[at]
    ends = [0, *ends_of(segment, options)]
    begin, end = ends[at], ends[at + 1]
    which = "the program" if programs == 1 else f"program {number + 1} of {programs}"
    text = f"{layer.site.op.name} ({layer.site.op.kind}): the machine, layer {at + 1} of {which}"
    if begin is None or end is None:
        return [text]
    bound = int(bound_cycles(layer.site.made.op, isa, costs_of(isa, options.memory or "")))
    text += f", cycles {begin:,} to {end:,}: {end - begin:,}; bound of its plain form {bound:,}"
    return [text]


def _sequences(made: Lowered) -> list[str]:
    """How its sums are requantised, and which ways are not exact."""
    steps = _steps(made)
    lines = [
        f"  sequence: {made.proof}",
        f"    about {made.recipe.extra(steps):.0f} cycles a vector beyond one round",
        f"    {made.op.text()}",
    ]
    for n, between in enumerate(made.rounds):
        lines.append(f"    after round {n + 1}: {'; '.join(map(str, between)) or 'nothing'}")
    lines += [f"    not taken: {text}" for text in made.refused]
    told = {made.recipe.name, *(text.partition(":")[0] for text in made.refused)}
    rest = [kind for kind in KINDS if kind not in told]
    # Other operators than sums with one rule have sequences of their own.
    if made.recipe.name in KINDS and rest:
        lines.append(f"    not taken either, they cost no less: {', '.join(rest)}")
    return lines


def _steps(made: Lowered) -> float:
    """Products of one output, by lanes of 16: what prices of sequences count in."""
    w = made.weights[0] if made.weights else None
    return 1.0 if w is None else max(1.0, w.shape[-1] / 16)


def _embeddings(ways: Sequence[Choice], chosen: Choice, segment: Segment) -> list[str]:
    """Each embedding at the least price of its ways to lie in homes; the chosen one is marked."""
    least: dict[str, Choice] = {}
    for way in ways:
        least.setdefault(_formula(way), way)
    mine = _formula(chosen)
    lines = [
        f"  layouts: {len(ways)} ways in {len(least)} embeddings were weighed with those of all"
        f" {len(segment.layers)} layers: {segment.chosen.status} at"
        f" {segment.chosen.objective:,} estimated cycles (bound {segment.chosen.bound:,})"
    ]
    ranked = sorted(least.items(), key=lambda item: item[1].price)
    for formula, way in ranked[:SHOWN]:
        mark = "*" if formula == mine else " "
        price = chosen.price if formula == mine else way.price
        lines.append(f"   {mark}{price:>9,} cycles  {formula}")
    if mine not in dict(ranked[:SHOWN]):
        lines.append(f"   *{chosen.price:>9,} cycles  {mine}")
    if len(ranked) > SHOWN:
        lines.append(f"    … {len(ranked) - SHOWN} dearer ones")
    if ways and chosen.price > ranked[0][1].price:
        lines.append(
            f"    the cheapest alone, at {ranked[0][1].price:,}, costs more elsewhere: its tensors"
            " would lie otherwise than the layers beside it read and write them"
        )
    return lines


def _formula(way: Choice) -> str:
    where = "reads its input where it lies" if way.fits else "the host packs its input"
    return f"{way.embedding.formula()} ({where})"


def _movers(graph: g.Graph, op: g.Operator, made: Lowered) -> list[str]:
    """What would make it cheaper, and how it comes off the machine."""
    lines: list[str] = []
    if made.recipe.name not in ("shift", "largest"):
        saved = made.recipe.extra(_steps(made))
        how = (
            "--rounding shift --requantised FILE.onnx changes the weights so"
            if graph.profile == "onnxruntime"
            else "quantise it with such scales"
        )
        lines.append(
            "  what would make it cheaper: scales whose ratio is a power of two (a shift),"
            f" about {saved:.0f} cycles a vector less; {how}"
        )
    lines.append(
        "  what would move it: nothing here, it is exact; a plan may give it to a CPU"
        f" (csp-embed partition MODEL --platform FILE --fix {op.name!r}=DEVICE)"
    )
    return lines


def _remedy(graph: g.Graph, op: g.Operator, made: Lowered | str) -> str:
    """One thing to try for a layer of the host."""
    shifts = "--rounding shift --requantised FILE.onnx" if graph.profile == "onnxruntime" else (
        "scales that are powers of two")  # fmt: skip
    if not isinstance(made, str):
        return (
            "its arithmetic is exact on the machine, its tensors have no common layout: channels"
            " in multiples of the lanes, or no view (Reshape, Slice) before it"
        )
    if made.startswith("no exact sequence"):
        return f"{shifts}, with which a sequence of shifts is exact"
    if isinstance(op, g.Outside):
        return "a quantised form of it (quantize_static with its type in op_types_to_quantize)"
    if "wrap" in made:
        return "smaller weights or fewer channels summed: sums have to fit 32 bits"
    if "int8" in made:
        return "int8 or uint8 activations"
    return "another operator with the same meaning that has an exact form (docs/networks.md)"
