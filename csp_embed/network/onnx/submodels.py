"""Plain models without constant nodes, and pieces cut out of them.

Takes: a Net and values for its constants.  Leaves: models whose only constants are initializers and
whose inputs are required; every piece is checked: its nodes, its inputs and outputs, its shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from csp_embed.errors import CheckError
from csp_embed.network.onnx.net import Net, import_onnx

# Protobuf holds 2 GiB at most, and copies are made for checking.
_LARGE_BYTES = 1 << 20


def cut(
    net: Net,
    constants: Mapping[str, Any],
    nodes: Sequence[int],
    name: str,
    extra_outputs: Iterable[str] = (),
    convex: bool = True,
) -> Any:
    """A ModelProto of some working nodes of `net` (indices into net.nodes, any order).

    Inputs are the tensors that come from outside, outputs those that others or the graph's output
    read (plus `extra_outputs`). convex: refuse nodes that cannot run as one piece; without it the
    model may need its own outputs as inputs. Raises: CheckError where the nodes are not convex, or
    where the result is not what was asked for.
    """
    onnx = import_onnx()
    # Indices are in topological order, so sorting keeps one.
    order = sorted(nodes)
    if convex:
        _check_convex(net, order, name)
    reads, makes = borders(net, order)
    makes = list(dict.fromkeys([*makes, *extra_outputs]))
    used = dict.fromkeys(c for i in order for c in net.constant_reads(net.nodes[i]))
    large = [c for c in used if constants[c].nbytes > _LARGE_BYTES]
    graph = onnx.helper.make_graph(
        [net.nodes[i] for i in order],
        # Values need declared types at the border, not inside.
        name,
        [_value(net, n) for n in reads],
        [_value(net, n) for n in makes],
        [onnx.numpy_helper.from_array(constants[c], c) for c in used if c not in large],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=net.model.opset_import, producer_name="csp-embed"
    )
    model.ir_version = net.model.ir_version
    model.functions.extend(net.model.functions)  # those that could not be inlined
    # The checks copy the model several times: large weights stand in as inputs meanwhile.
    model.graph.input.extend(_value(net, c) for c in large)
    _check(model, order, [*reads, *large], makes, name)
    # The stand-ins were appended last.
    del model.graph.input[len(reads) :]
    model.graph.initializer.extend(onnx.numpy_helper.from_array(constants[c], c) for c in large)
    return model


def whole(net: Net, constants: Mapping[str, Any], extra_outputs: Iterable[str] = ()) -> Any:
    """The model without its constant nodes; `extra_outputs` show inner tensors."""
    return cut(net, constants, range(len(net.nodes)), "whole", extra_outputs)


def borders(net: Net, nodes: Iterable[int]) -> tuple[list[str], list[str]]:
    """(tensors that a set of nodes reads from outside, tensors that it makes for others)."""
    inside = set(nodes)
    made = [o for i in sorted(inside) for o in net.nodes[i].output if o]
    own = set(made)
    reads = dict.fromkeys(
        n for i in sorted(inside) for n in net.reads(net.nodes[i]) if n not in own
    )
    # Outputs of the model and whatever a node outside reads.
    wanted = set(net.outputs)
    for index, node in enumerate(net.nodes):
        if index not in inside:
            wanted.update(net.reads(node))
    return list(reads), [name for name in made if name in wanted]


def _value(net: Net, name: str) -> Any:
    onnx = import_onnx()
    info = net.tensors[name]
    kind = onnx.TensorProto.DataType.Value(info.dtype)
    return onnx.helper.make_tensor_value_info(name, kind, list(info.shape))


def _check_convex(net: Net, order: Sequence[int], name: str) -> None:
    """No tensor that leaves the piece may come back into it."""
    inside = set(order)
    # In topological order one pass suffices: what depends on the piece from outside is tainted.
    tainted: set[str] = set()
    for index, node in enumerate(net.nodes):
        reads = net.reads(node)
        if index in inside:
            back = [n for n in reads if n in tainted]
            if back:
                raise CheckError(
                    f"{name} cannot run as one piece",
                    where=f"node {node.name}",
                    why=f"tensor {back[0]!r} comes back from outside",
                    hint="cut it before that node",
                )
        else:
            left = any(_made_inside(net, inside, n) for n in reads)
            if left or any(n in tainted for n in reads):
                tainted.update(o for o in node.output if o)


def _made_inside(net: Net, inside: set[int], name: str) -> bool:
    return any(name in net.nodes[i].output for i in inside)


def _check(
    model: Any, order: Sequence[int], reads: Sequence[str], makes: Sequence[str], name: str
) -> None:
    onnx = import_onnx()
    graph = model.graph
    try:
        # Not onnx's strict inference: it refuses models that onnxruntime runs.
        onnx.checker.check_model(model, full_check=False)
    except onnx.checker.ValidationError as error:
        reason = (str(error).strip().splitlines() or ["?"])[0]
        raise CheckError(
            f"the cut {name} is not a valid model",
            why=reason,
            hint="--granularity block cuts at fewer places",
        ) from error
    found = (
        [i.name for i in graph.input],
        [o.name for o in graph.output],
        len(graph.node),
    )
    # A cut is checked for what was asked: names in order, nodes in number.
    if found != (list(reads), list(makes), len(order)):
        raise CheckError(
            f"the cut {name} is not what was asked for",
            why=str(found)[:200],
            hint="--granularity block cuts at fewer places",
        )
    if not makes:
        raise CheckError(
            f"the cut {name} has no output that anybody reads",
            hint="--granularity block cuts at fewer places",
        )
