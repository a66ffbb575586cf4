"""Mends the form of a model, not its meaning.

Takes: a valid ModelProto.  Leaves: local functions inlined, initializers that are neither inputs
nor sparse, unique node names, nodes in topological order, none whose results nobody reads.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np

from csp_embed.errors import InputError
from csp_embed.network.onnx.net import import_onnx, node_reads, subgraphs


def tidy(model: Any, path: str) -> Any:
    """The model in plain form; see above, but for dead nodes: `drop_dead` says what it left out.

    Raises: InputError for a cycle, a tensor that two nodes make or that nobody makes.
    """
    onnx = import_onnx()
    if model.functions:
        # A function's operators have costs; a call of it has none.
        model = _inlined(onnx, model)
    graph = model.graph
    _densify(onnx, graph)
    # Since IR 4 an initializer that is also an input is only a default; here it is a constant.
    weights = {t.name for t in graph.initializer}
    kept = [i for i in graph.input if i.name not in weights]
    del graph.input[:]
    graph.input.extend(kept)
    model.ir_version = max(model.ir_version, 8)  # from 4 on initializers need not be inputs
    name_nodes(graph)
    order = _topological(graph, path)
    del graph.node[:]
    graph.node.extend(order)
    return model


def drop_dead(graph: Any) -> list[str]:
    """Removes nodes on whom no output of the graph depends; their names, in order.

    onnxruntime leaves them out, too: they cost nothing.
    """
    wanted = {o.name for o in graph.output}
    kept: list[Any] = []
    # From the back: a node is wanted if something behind it reads it.
    dead: list[str] = []
    for node in reversed(graph.node):
        if wanted.isdisjoint(o for o in node.output if o):
            dead.append(node.name)
        else:
            kept.append(node)
            wanted.update(node_reads(node))
    if dead:
        kept.reverse()
        del graph.node[:]
        graph.node.extend(kept)
    return dead[::-1]


def read_names(graph: Any) -> set[str]:
    """Tensors that some node reads or that are the graph's outputs."""
    return {n for node in graph.node for n in node_reads(node)} | {o.name for o in graph.output}


def fresh(name: str, taken: set[str]) -> str:
    """A name that is not taken, and now is."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _inlined(onnx: Any, model: Any) -> Any:
    """Without local functions where onnx can. Those that it cannot inline stay functions, whose
    shapes onnxruntime says."""
    versions = {o.domain: o.version for o in model.opset_import}
    for function in model.functions:
        for entry in function.opset_import:
            # A version that changes none of the operators in use is only a number.
            wanted = versions.get(entry.domain, entry.version)
            if entry.version != wanted and _same_operators(onnx, function, entry, wanted):
                entry.version = wanted
    found = onnx.inliner.inline_local_functions(model)
    if found.functions:
        try:
            # With the operators of the functions converted to the model's opset, for which the
            # converter wants to know types.
            typed = onnx.shape_inference.infer_shapes(found)
            found = onnx.inliner.inline_local_functions(typed, convert_version=True)
        except (RuntimeError, onnx.shape_inference.InferenceError):
            return found
    return found


def _same_operators(onnx: Any, function: Any, entry: Any, version: int) -> bool:
    """Whether a function's operators mean the same at another version of their domain."""
    nodes = list(function.node)
    while nodes:
        node = nodes.pop()
        nodes += [inner for graph in subgraphs(node) for inner in graph.node]
        if node.domain != entry.domain:
            # Foreign domains have no schemas to compare.
            continue
        try:
            before, after = (
                onnx.defs.get_schema(node.op_type, v, node.domain).since_version
                for v in (entry.version, version)
            )
        except onnx.defs.SchemaError:
            return False
        if before != after:
            return False
    return True


def _densify(onnx: Any, graph: Any) -> None:
    """Sparse initializers and constants as plain ones: cuts and costs know one kind."""
    found = [(sparse.values.name, sparse) for sparse in graph.sparse_initializer]
    for node in list(graph.node):
        if node.op_type == "Constant" and not node.domain:
            sparse = [a.sparse_tensor for a in node.attribute if a.name == "sparse_value"]
            if sparse:
                found.append((node.output[0], sparse[0]))
                graph.node.remove(node)
    for name, sparse in found:
        values = onnx.numpy_helper.to_array(sparse.values)
        indices = onnx.numpy_helper.to_array(sparse.indices)
        # Explicit zeros: constants are counted in dense bytes, as a runtime holds them.
        dense = np.zeros(tuple(sparse.dims), values.dtype)
        # Indices are coordinates [n, rank] or places in the flat tensor.
        if indices.ndim == 2:
            dense[tuple(indices.T)] = values
        else:
            dense.reshape(-1)[indices] = values
        graph.initializer.append(onnx.numpy_helper.from_array(dense, name))
    del graph.sparse_initializer[:]


def name_nodes(graph: Any) -> None:
    """Unique node names: its own, else op_type_index."""
    seen: set[str] = set()
    for index, node in enumerate(graph.node):
        node.name = fresh(node.name or f"{node.op_type}_{index}", seen)


def _topological(graph: Any, path: str) -> list[Any]:
    """Nodes in dependency order, the file's order kept where it is one."""
    # Names are the edges: two makers of one would make the graph ambiguous.
    made_by: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in node.output:
            if name and name in made_by:
                raise InputError(
                    f"tensor {name!r} is made by two nodes",
                    where=path,
                    hint="export the model again: names must be unique",
                )
            if name:
                made_by[name] = index
    known = {t.name for t in graph.initializer} | {i.name for i in graph.input}
    needs: list[set[int]] = []
    for node in graph.node:
        need: set[int] = set()
        for name in node_reads(node):
            if name in made_by:
                need.add(made_by[name])
            elif name not in known:
                raise InputError(
                    f"node {node.name!r} reads {name!r}, which nothing makes",
                    where=path,
                    hint="make it an input, or export the model again",
                )
        needs.append(need)
    order = stable_topological(needs)
    # Nodes of cycles are never ready.
    if len(order) < len(needs):
        rest = [graph.node[i].name for i in range(len(needs)) if i not in set(order)]
        raise InputError(
            "the model's graph has a cycle",
            where=path,
            why="among " + ", ".join(rest[:6]),
            hint="export the model again; loops are written as Loop or Scan",
        )
    return [graph.node[i] for i in order]


def stable_topological(needs: list[set[int]]) -> list[int]:
    """Indices in dependency order, smallest ready index first; members of cycles are left out."""
    # A heap by index: equal files give equal orders, near to the file's own.
    users: list[list[int]] = [[] for _ in needs]
    missing = [len(need) for need in needs]
    for index, need in enumerate(needs):
        for other in need:
            users[other].append(index)
    ready = [i for i, n in enumerate(missing) if n == 0]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users[index]:
            missing[user] -= 1
            if missing[user] == 0:
                heapq.heappush(ready, user)
    return order
