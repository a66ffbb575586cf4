"""Invented machines that are fed commands: fuzz_commands --seeds 0:200

Each (tests/property/random_commands.py) is read as `isa check` does. What is accepted has to
compile small operators right, point by point and all points at once, and what is right has to be
certified. Faults are printed and make the exit code 1; refusals are counted by reason, for people
to judge.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "property"))

from random_commands import machine, trial


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0:100", help="first:end")
    parser.add_argument("--show", type=int, help="print the machine of this seed and end")
    options = parser.parse_args()
    if options.show is not None:
        print(machine(options.show))
        return 0
    first, end = map(int, options.seeds.split(":"))
    begun, said, faults = time.process_time(), Counter[str](), 0
    for seed in range(first, end):
        for text in trial(seed, said):
            faults += 1
            print(f"seed {seed}: {text}", flush=True)
    for text, count in said.most_common():
        print(f"{count:5d}  {text}")
    print(f"{end - first} machines, {faults} faults, {time.process_time() - begun:.0f} s of CPU")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
