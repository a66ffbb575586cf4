"""Platform files: counts, servers, links by group, and their mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from csp_embed.errors import InputError
from csp_embed.network.files.graph import platform_document
from csp_embed.network.files.platform import (
    find_platform,
    platform_from,
    read_platform,
    shipped_platforms,
)


def read(text: str, tmp_path: Path):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    return read_platform(path)


def test_counts_and_links_to_each(tmp_path: Path) -> None:
    platform = read(
        "devices: [{name: cpu0, kind: cpu}, {name: gpu, kind: gpu, count: 3}]\n"
        "links: [{between: [cpu0, gpu], bytes_per_ms: 10, shared: bus},"
        " {between: [gpu, gpu], bytes_per_ms: 20}]\n"
        "buses: [{name: bus, bytes_per_ms: 5}]\n",
        tmp_path,
    )
    assert [d.name for d in platform.devices] == ["cpu0", "gpu0", "gpu1", "gpu2"]
    assert [k.between for k in platform.links] == [
        ("cpu0", "gpu0"),
        ("cpu0", "gpu1"),
        ("cpu0", "gpu2"),
        ("gpu0", "gpu1"),
        ("gpu0", "gpu2"),
        ("gpu1", "gpu2"),
    ]
    assert platform.rate(platform.links[0]) == 5
    assert platform.host.device == "cpu0"


def test_servers_are_expanded(tmp_path: Path) -> None:
    platform = read(
        "servers: [{name: node, count: 2, devices: [{name: cpu, kind: cpu},"
        " {name: gpu, kind: gpu, count: 2}],"
        " links: [{between: [cpu, gpu], bytes_per_ms: 1, shared: pci}], buses: [{name: pci}]}]\n"
        "links: [{between: [node.cpu, node.cpu], bytes_per_ms: 2}]\n",
        tmp_path,
    )
    assert platform.servers == ("node0", "node1")
    names = ["node0.cpu", "node0.gpu0", "node0.gpu1", "node1.cpu", "node1.gpu0", "node1.gpu1"]
    assert [d.name for d in platform.devices] == names
    assert [d.server for d in platform.devices] == ["node0"] * 3 + ["node1"] * 3
    assert {k.shared for k in platform.links} == {"node0.pci", "node1.pci", None}
    assert platform.links[-1].between == ("node0.cpu", "node1.cpu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("devices: []\n", "no device"),
        ("devices: [{name: a}]\n", "'kind' is missing"),
        ("devices: [{name: a, kind: cpu}, {name: a, kind: cpu}]\n", "twice"),
        ("devices: [{name: a, kind: cpu, memory_bytes: -1}]\n", "greater than or equal to 0"),
        ("devices: [{name: a, kind: cpu, cores: 3}]\n", "unknown key 'cores'"),
        ("devices: [{name: a, kind: cpu, count: 0}]\n", "greater than 0"),
        ("devices: [{name: a, kind: cpu}]\nlinks: [{between: [a, b], bytes_per_ms: 1}]\n", "'b'"),
        (
            "devices: [{name: a, kind: cpu}]\nlinks: [{between: [a, a], bytes_per_ms: 1}]\n",
            "itself",
        ),
        (
            "devices: [{name: a, kind: cpu}, {name: b, kind: cpu}]\n"
            "links: [{between: [a, b], bytes_per_ms: 0}]\n",
            "greater than 0",
        ),
        (
            "devices: [{name: a, kind: cpu}, {name: b, kind: cpu}]\n"
            "links: [{between: [a, b], bytes_per_ms: 1, shared: x}]\n",
            "no bus 'x'",
        ),
        ("devices: [{name: a, kind: cpu}]\nhost: {device: z}\n", "'z'"),
    ],
)
def test_mistakes_are_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(text, tmp_path)
    assert message in caught.value.render()
    assert "p.yaml" in caught.value.where


def test_shipped_platforms_read_and_write_back() -> None:
    shipped = shipped_platforms()
    assert {"cpu_2gpu", "cpu_2gpu_affinity", "two_cpu", "two_cpu_vta"} <= set(shipped)
    for name, path in shipped.items():
        platform = read_platform(find_platform(name))
        again = platform_from(platform_document(platform), path)
        assert (again.devices, again.links, again.buses) == (
            platform.devices,
            platform.links,
            platform.buses,
        )
    with pytest.raises(InputError, match="cpu_2gpu"):
        find_platform("nowhere")
