"""Opens If nodes whose condition is a known constant: the branch that is taken, in their place."""

from __future__ import annotations

from typing import Any

from csp_embed.network.onnx.net import copied, import_onnx, subgraphs


def open_branches(model: Any) -> bool:
    """Replaces each If of `model` whose condition is an initializer; True where it found any.

    The branch's own tensors and nodes get the If's name as a prefix: both branches, and other
    nodes, may use the same names.
    """
    onnx = import_onnx()
    graph = model.graph
    values = {
        t.name: onnx.numpy_helper.to_array(t)
        for t in graph.initializer
        # Conditions are scalars or single elements; large tensors need not be decoded.
        if not t.dims or list(t.dims) == [1]
    }
    # All names in use, also those of other branches already opened.
    taken = {o for n in graph.node for o in n.output} | {i.name for i in graph.input}
    taken |= {t.name for t in graph.initializer}
    nodes: list[Any] = []
    changed = False
    for node in graph.node:
        # An If of another domain is another operator.
        if node.op_type != "If" or node.domain or node.input[0] not in values:
            nodes.append(node)
            continue
        chosen = "then_branch" if bool(values[node.input[0]].reshape(-1)[0]) else "else_branch"
        branch = next(a.g for a in node.attribute if a.name == chosen)
        nodes += _opened(onnx, graph, node, branch, taken)
        changed = True
    if changed:
        # Copied: protobuf's elements die with the list that owns them.
        kept = [copied(n) for n in nodes]
        del graph.node[:]
        graph.node.extend(kept)
        # Shapes were inferred for the If's outputs; they are found anew.
        del graph.value_info[:]
    return changed


def _opened(onnx: Any, graph: Any, node: Any, branch: Any, taken: set[str]) -> list[Any]:
    own = [t.name for t in branch.initializer]
    own += [o for inner in branch.node for o in inner.output if o]
    names: dict[str, str] = {}
    for name in own:
        new = f"{node.name}/{name}"
        while new in taken:
            new += "_"
        taken.add(new)
        names[name] = new
    for tensor in branch.initializer:
        copy = graph.initializer.add()
        copy.CopyFrom(tensor)
        copy.name = names[tensor.name]
    made: list[Any] = []
    for inner in branch.node:
        copy = type(inner)()
        copy.CopyFrom(inner)
        copy.name = f"{node.name}/{inner.name or inner.op_type}"
        _rename(copy, names)
        made.append(copy)
    # A branch may hand out a tensor of the outer graph, or one tensor twice.
    for mine, theirs in zip(node.output, branch.output, strict=False):
        if mine:
            source = names.get(theirs.name, theirs.name)
            made.append(onnx.helper.make_node("Identity", [source], [mine], f"{node.name}/{mine}"))
    return made


def _rename(node: Any, names: dict[str, str]) -> None:
    """Tensors that a node reads and makes, in its own branches and bodies too."""
    for side in (node.input, node.output):
        for at, name in enumerate(side):
            side[at] = names.get(name, name)
    for graph in subgraphs(node):
        inside = {i.name for i in graph.input} | {t.name for t in graph.initializer}
        inside |= {o for inner in graph.node for o in inner.output}
        outer = {old: new for old, new in names.items() if old not in inside}
        for inner in graph.node:
            _rename(inner, outer)
        for value in graph.output:
            value.name = outer.get(value.name, value.name)
