"""Which slot of an on-chip memory holds which box at each step, and when it must be loaded.

Where everything fits, each box keeps its slot. Otherwise the box whose next use is farthest leaves
(Belady's rule), never
the one that the running step reads, so that the next load can overlap with it.
"""

from __future__ import annotations


def allocate(keys: list[int], slots: int) -> list[tuple[int, bool]]:
    """keys: box number per step (-1: none). Returns per step (slot, must be loaded)."""
    distinct = sorted({k for k in keys if k >= 0})
    # Enough slots for all: nobody ever has to leave.
    if len(distinct) <= slots:
        slot_of: dict[int, int] = {}
        out = []
        for k in keys:
            fresh = k >= 0 and k not in slot_of
            if fresh:
                slot_of[k] = len(slot_of)
            out.append((slot_of.get(k, 0), fresh))
        return out
    never = len(keys)
    # Backwards, so that each step sees the next use of its box.
    next_use = [never] * len(keys)
    seen: dict[int, int] = {}
    for i in range(len(keys) - 1, -1, -1):
        next_use[i] = seen.get(keys[i], never)
        seen[keys[i]] = i
    holds = [-1] * slots
    due = [never] * slots
    used_at = [-1] * slots
    where: dict[int, int] = {}
    last = -1
    out = []
    for i, k in enumerate(keys):
        if k < 0:
            out.append((0, False))
            continue
        fresh = k not in where
        if fresh:
            # Never the slot that the running step reads: its load would wait for the step.
            free = [s for s in range(slots) if s != last or slots == 1]
            # Ties go to the slot that has not been read for longest, then to the lowest number: the
            # same schedule every time.
            s = max(free, key=lambda s: (due[s], -used_at[s], -s))
            where.pop(holds[s], None)
            holds[s], where[k] = k, s
        s = where[k]
        due[s], used_at[s], last = next_use[i], i, s
        out.append((s, fresh))
    return out


def has_reuse(keys: list[int]) -> bool:
    """Some box is needed again after another one."""
    seen: set[int] = set()
    before = -1
    for k in keys:
        if k != before and k in seen:
            return True
        seen.add(k)
        before = k
    return False
