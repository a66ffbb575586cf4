"""Random variations of the shipped machines: fuzz_specs.py --seeds A:B

Each is checked as `csp-embed isa check` does; what is accepted is compiled, simulated and compared
with NumPy. Faults (a wrong program, a refusal without file:line, a traceback) are printed in full
with their seed, and make the exit code 1.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "property"))

import random_specs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0:300", help="A:B, the first and the one past the last")
    parser.add_argument("--verbose", action="store_true", help="a line for every specification")
    args = parser.parse_args()
    first, last = map(int, args.seeds.split(":"))
    tally: collections.Counter[str] = collections.Counter()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        for seed in range(first, last):
            text, spec = random_specs.mutant(seed)
            path = Path(name) / f"mutant_{seed}.yaml"
            random_specs.write(spec, path)
            start = time.perf_counter()
            try:
                found = random_specs.verdict(path)
            except Exception:  # noqa: BLE001 - whatever it is, it is what we look for
                found = random_specs.Verdict("fault", traceback.format_exc(limit=-5))
            seconds = time.perf_counter() - start
            tally[found.kind] += 1
            if found.kind == "fault" or args.verbose or seconds > 60:
                print(f"{seed} {found.kind} {seconds:.1f} s {text}: {found.text}", flush=True)
    seconds = time.perf_counter() - begin
    print(f"{sum(tally.values())} specs in {seconds:.0f} s: {dict(sorted(tally.items()))}")
    return int(tally["fault"] > 0)


if __name__ == "__main__":
    sys.exit(main())
