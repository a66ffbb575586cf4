"""Partitioning methods against brute force on odd tiny instances: fuzz_partition.py --seeds A:B

Statuses, bounds and objectives are compared in exact rationals (tests/property/partition_brute.py).
Each fault is printed with its seed; any makes the exit code 1.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "property"))

from partition_faults import faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0:500", help="A:B, the first and the one past the last")
    first, last = map(int, parser.parse_args().seeds.split(":"))
    begin, count = time.perf_counter(), 0
    for seed in range(first, last):
        try:
            found = list(faults(seed))
        except Exception:  # noqa: BLE001 - whatever it is, it is what we look for
            found = [f"seed {seed}: {traceback.format_exc(limit=-5)}"]
        for text in found:
            print(text, flush=True)
        count += len(found)
    print(f"{last - first} instances in {time.perf_counter() - begin:.0f} s: {count} faults")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
