"""Generated networks: acyclic, of the asked size and ratio, the same for the same seed."""

from __future__ import annotations

import pytest

from csp_embed.errors import InputError
from csp_embed.network.files.graph import graph_document
from csp_embed.network.files.platform import find_platform, read_platform
from csp_embed.network.made.generate import RATE_BYTES_PER_MS, layered, with_costs
from csp_embed.network.made.transformer import transformer
from csp_embed.network.made.wired import FAMILIES, wired


@pytest.mark.parametrize("related", [False, True])
@pytest.mark.parametrize("ccr", [0.1, 1.0, 5.0])
def test_layered(ccr: float, related: bool) -> None:
    graph, platform = layered(400, ccr, 3, related=related)
    assert len(graph.tasks) == 400
    assert len(platform.devices) == 3
    graph.verify()
    costs = [c for t in graph.tasks for c in t.cost.values()]
    transfers = [e.bytes / RATE_BYTES_PER_MS for e in graph.edges]
    ratio = (sum(transfers) / len(transfers)) / (sum(costs) / len(costs))
    assert ratio == pytest.approx(ccr, rel=0.1)
    first = [t.cost["p0"] / t.cost["p1"] for t in graph.tasks]
    assert (max(first) / min(first) < 1.001) == related
    reached = {e.dst for e in graph.edges}
    assert len(reached) > 0.8 * len(graph.tasks)
    assert graph == layered(400, ccr, 3, related=related)[0]
    assert graph != layered(400, ccr, 4, related=related)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_wired(family: str) -> None:
    sketch = wired(family, 32, 1, p=0.3)
    assert sum(".n" in w.layer for w in sketch.works) == 32
    graph = with_costs(sketch, read_platform(find_platform("cpu_2gpu")))
    read = {e.dst for e in graph.edges}
    used = {e.src for e in graph.edges}
    assert {t.id for t in graph.tasks} - read == {"stem"}
    assert {t.id for t in graph.tasks} - used == {"head"}
    again = with_costs(wired(family, 32, 1, p=0.3), read_platform(find_platform("cpu_2gpu")))
    assert graph_document(again) == graph_document(graph)
    assert graph != with_costs(
        wired(family, 32, 2, p=0.3), read_platform(find_platform("cpu_2gpu"))
    )


def test_transformer() -> None:
    sketch = transformer(12, hidden=768, sequence=128, vocabulary=30000)
    assert len(sketch.works) == 2 + 12 * 6
    layer = sum(w.macs for w in sketch.works if w.layer.startswith("l0."))
    assert layer == 128 * 12 * 768 * 768 + 2 * 128 * 128 * 768
    blocks = transformer(12, hidden=768, sequence=128, vocabulary=30000, blocks=True)
    assert len(blocks.works) == 14
    for field in ("macs", "weight_bytes"):
        assert sum(getattr(w, field) for w in blocks.works) == sum(
            getattr(w, field) for w in sketch.works
        )


def test_numbers_out_of_range() -> None:
    for call in (
        lambda: layered(0, 1, 0),
        lambda: layered(5, -1, 0),
        lambda: wired("cubic", 9, 0),
        lambda: wired("watts-strogatz", 3, 0),
        lambda: transformer(0),
        lambda: with_costs(transformer(1), read_platform(find_platform("two_cpu"))),
    ):
        with pytest.raises(InputError):
            call()
