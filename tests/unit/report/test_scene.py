"""What pictures are made of: ink that can be read, labels that fit, one picture for all formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from svg_look import Look, contrast, read

from csp_embed.embed.explain.pareto import CRITERIA, Front, Member
from csp_embed.ir.network import Device, Platform
from csp_embed.report import pareto_picture
from csp_embed.report.pareto import fastest
from csp_embed.report.plans.gantt import device_colours, ticks
from csp_embed.report.scene import (
    Box,
    Dot,
    Line,
    Scene,
    Words,
    fitting,
    ink_on,
    save,
    text_width,
    to_svg,
)


@given(st.integers(0, 0xFFFFFF))
def test_ink_is_readable_on_every_fill(colour: int) -> None:
    fill = f"#{colour:06x}"
    assert contrast(ink_on(fill), fill) >= 4.5


def test_forty_devices_have_colours_of_their_own() -> None:
    platform = Platform(tuple(Device(f"d{n}", "k") for n in range(40)))
    colours = device_colours(platform)
    assert len(set(colours.values())) == 40


@given(st.text(max_size=80), st.floats(0, 300))
def test_what_fits_is_no_wider(text: str, room: float) -> None:
    found = fitting(text, 10, room)
    assert found == "" or text_width(found, 10) <= room
    if text_width(text, 10) <= room:
        assert found == text
    elif found:
        assert found[: found.index("…")] == text[: found.index("…")]


@given(st.floats(1e-12, 1e12), st.integers(5, 40))
def test_ticks_are_round_and_few(end: float, most: int) -> None:
    found = ticks(end, most)
    assert found[0] == 0
    assert 2 <= len(found) <= most + 1
    assert found[-1] <= end * (1 + 1e-6)


def test_every_item_is_in_every_format(tmp_path: Path) -> None:
    items = (
        Box(10, 10, 40, 20, "#0072B2", "a box", "k", "#000000"),
        Words(30, 20, "$x_1$", 9, "middle"), Words(70, 60, "up", turned=True),
        Dot(80, 30, 6, "#FFFFFF"),
        Line((10, 50), (90, 70), curved=True, head=True, dash="2 2", faint=True),
    )  # fmt: skip
    scene = Scene(100, 80, items, "<all>")
    for ending in ("svg", "png", "pdf"):
        save(scene, tmp_path / f"a.{ending}")
        assert (tmp_path / f"a.{ending}").stat().st_size > 500
    text = to_svg(scene)
    for part in ("<rect", "<text", "<circle", "<path", "<polygon", "$x_1$", "&lt;all&gt;"):
        assert part in text


def member(n: int, values: tuple[float, ...], scheduled: float | None, commuted: bool) -> Member:
    kinds = ("aligned", "im2col", "toeplitz", "diagonal", "mixed", "unheard of")
    embedding: Any = SimpleNamespace(kind=kinds[n % 6], commuted=commuted)
    return Member(embedding, dict(zip(CRITERIA, values, strict=True)), scheduled)


MEMBERS: dict[str, Callable[[], list[Member]]] = {
    "one": lambda: [member(0, (10, 20, 30, 40, 50), 12, False)],
    "zeros": lambda: [member(n, (n + 1, 0, 0, 0, 0), None, False) for n in range(3)],
    "all alike": lambda: [member(n, (10, 20, 30, 40, 50), 10, n % 2 > 0) for n in range(9)],
    "crowded": lambda: [
        member(n, (1000 + n % 7, 500 + n % 5, 300 + n, 90 + n % 3, n % 11), None, n % 3 > 0)
        for n in range(40)
    ],
    "far apart": lambda: [
        member(n, (10.0**n, 10.0 ** (12 - n), 1, 10.0**n, 0), 10.0**n, False) for n in range(12)
    ],
    "many": lambda: [
        member(n, (1e3 * 1.01**n, 9e5 / 1.03**n, 7e4 + n, 1 + n * n, n), None, False)
        for n in range(120)
    ],
}


def labels_of(seen: Look) -> list[str]:
    return [w for w in seen.words if w.replace(",", "").isdecimal() or "–" in w]


@pytest.mark.parametrize("name", MEMBERS)
def test_numbers_of_a_front_do_not_overlap(name: str) -> None:
    members = MEMBERS[name]()
    scene = pareto_picture.scene(Front(tuple(members), True, 1), "a title")
    assert to_svg(scene) == to_svg(scene)
    seen = read(to_svg(scene))
    seen.judge()
    rings = [i for i in scene.items if isinstance(i, Dot) and i.radius > 6]
    assert len(rings) == 5  # one in each chart and one in the legend
    dots = [i for i in scene.items if isinstance(i, Dot | Box) and i.title]
    assert len(dots) == 4 * len(members)
    chosen = f"{fastest(members)}: "
    for ring in rings[:4]:
        near = [d for d in dots if d.title.startswith(chosen)]
        assert any(
            abs(_middle(d)[0] - ring.x) < 0.01 and abs(_middle(d)[1] - ring.y) < 0.01 for d in near
        )


def _middle(item: Dot | Box) -> tuple[float, float]:
    if isinstance(item, Dot):
        return item.x, item.y
    return item.x + item.width / 2, item.y + item.height / 2


def test_the_fastest_member_is_one_that_was_scheduled() -> None:
    members = [
        member(0, (5, 1, 1, 1, 1), None, False), member(1, (9, 1, 1, 1, 1), 30, False),
        member(2, (8, 1, 1, 1, 1), 20, False),
    ]  # fmt: skip
    assert fastest(members) == 2
    assert fastest(members[:1]) == 0
