"""Work on processes: results, dead workers, limits, interrupts."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import spread_calls

from csp_embed.errors import InputError, TimeLimit
from csp_embed.spread import Lost, spread


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
    return [int(n) for n in found]


def running(pid: int) -> bool:
    """Neither gone nor a zombie that init has yet to collect."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_every_item_once() -> None:
    assert sorted(spread(spread_calls.double, range(9), 3)) == list(range(0, 18, 2))
    assert list(spread(spread_calls.double, [], 2)) == []


def test_a_dead_worker_is_named_and_its_item_begun_again(tmp_path: Path) -> None:
    items = [(how, str(tmp_path / how)) for how in ("a", "once", "b", "always", "c")]
    told: list[tuple[str, bool]] = []

    def death(item: tuple[str, str], why: str, again: bool) -> None:
        assert "died by signal 9" in why
        told.append((item[0], again))

    results = list(spread(spread_calls.deadly, items, 2, tell_death=death))
    (lost,) = [r for r in results if isinstance(r, Lost)]
    assert lost.item[0] == "always"
    assert sorted(r for r in results if isinstance(r, str)) == ["a", "b", "c", "once"]
    assert sorted(told) == [("always", False), ("always", True), ("once", True)]


def test_an_error_of_the_call_arrives_whole() -> None:
    with pytest.raises(InputError, match="this item is wrong") as caught:
        list(spread(spread_calls.wrong, [7], 2))
    assert caught.value.where == "7"


def test_a_limit_keeps_what_is_done() -> None:
    results = spread(spread_calls.slow, [600.0, 0.0], 2, time_limit=20)
    assert next(results) == 0.0
    with pytest.raises(TimeLimit, match="with 1 left"):
        list(results)
    with pytest.raises(InputError, match="leaves no time"):
        list(spread(spread_calls.slow, [1.0], time_limit=0))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_to_the_parent_end_the_workers(number: int) -> None:
    """Items of ten minutes are running; whatever the signal, nothing is left behind."""
    child = subprocess.Popen(
        [sys.executable, spread_calls.__file__, "600", "0", "600"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "0.0\n"
    workers = children(child.pid)
    assert len(workers) >= 2
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert err == ""
    if number == signal.SIGKILL:
        assert child.returncode == -9
        for _ in range(600):  # They notice by themselves.
            if not any(map(running, workers)):
                break
            signal.sigtimedwait([], 0.1)
    else:
        assert (child.returncode, out) == (128 + number, "stopped\n")
    # The resource tracker of multiprocessing ends when the pipe to it closes.
    for _ in range(600):
        if not any(map(running, workers)):
            break
        signal.sigtimedwait([], 0.1)
    assert not any(map(running, workers))
