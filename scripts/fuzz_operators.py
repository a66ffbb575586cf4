"""Odd operators (tests/property/odd_operators.py) through the whole chain. Run by
scripts/fuzz_operators.

Each is compiled for a machine and a layout drawn with it, judged, simulated against NumPy and
certified for all inputs; no program may be below the proved bound. Beside that --tiles schedules of
whole, halved and ragged tiles are built for the first four embeddings, whatever a search would
think of them. A refusal is one of ours, with a reason; anything else is a fault: exit code 5.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import traceback
from dataclasses import replace

import csp_embed as ce
from csp_embed.compiler.chain import chain
from csp_embed.compiler.driver import Options
from csp_embed.compiler.program.verify import judge
from csp_embed.compiler.request.setting import setting_of
from csp_embed.errors import CspEmbedError
from csp_embed.ir.operator import Operator
from csp_embed.judge.embedding.lower_bound import lower_bound
from csp_embed.machine.costs import costs_of
from csp_embed.machine.spec import Isa
from csp_embed.ops.data import random_tensors
from csp_embed.schedule import bias_by_contract
from csp_embed.schedule.attempts import Attempts
from csp_embed.schedule.bias_in_lanes import spared
from csp_embed.schedule.config import Config
from csp_embed.schedule.inputs import build as build_problem
from tests.cases import MACHINES
from tests.property.odd_operators import odd_operator

EMBEDDINGS = 4
# What a mistake of ours raises; anything else ends the run.
_FAULTS = (AssertionError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz_operators", description=__doc__)
    parser.add_argument("--seeds", default="0:300", help="first:last+1 (default 0:300)")
    parser.add_argument("--tiles", type=int, default=8, help="schedules an embedding (default 8)")
    options = parser.parse_args()
    first, last = (int(part) for part in options.seeds.split(":"))
    count = {"compiled": 0, "refused": 0, "schedules": 0, "that fit": 0, "faults": 0}
    for seed in range(first, last):
        rng = random.Random(seed)
        op = odd_operator(rng)
        machine = rng.choice(("vta", "vta", "vta small", "vta batch"))
        layout = rng.choice(("relaxed", "relaxed", "strict"))
        isa = MACHINES[machine]()
        try:
            for wrong in _whole(op, isa, layout, seed):
                raise AssertionError(wrong)
            count["compiled"] += 1
            built, fit = _tiles(op, isa, rng, options.tiles)
            count["schedules"] += built
            count["that fit"] += fit
        except CspEmbedError as error:
            count["refused"] += 1
            print(f"seed {seed}: {op.text()} on {machine}, {layout}: {error.what}", flush=True)
        except _FAULTS:
            count["faults"] += 1
            print(f"seed {seed}: {op.text()} {dict(op.axes)} on {machine}, {layout}", flush=True)
            traceback.print_exc()
    print(", ".join(f"{n:,} {what}" for what, n in count.items()))
    return 5 if count["faults"] else 0


def _whole(op: Operator, isa: Isa, layout: str, seed: int) -> list[str]:
    """What is wrong with the compiled program."""
    kernel = ce.compile(op, isa=isa, options=Options(layout=layout))
    assert isinstance(kernel, ce.Kernel)
    verdict = judge(kernel, random_tensors(op, seed), simulate=True)
    wrong = [str(p) for p in verdict.problems]
    if verdict.verified != "simulated":
        wrong.append(f"values: {verdict.difference}")
    certificate = kernel.certify()
    wrong += [] if certificate.ok else [f"not certified: {certificate.problems[:2]}"]
    bound = lower_bound(op, isa, costs_of(isa))
    if kernel.cycles is not None and bound.cycles > kernel.cycles:
        wrong.append(f"{kernel.cycles} cycles, and {bound.show()}")
    return wrong


def _tiles(op: Operator, isa: Isa, rng: random.Random, count: int) -> tuple[int, int]:
    """Schedules built, and those that fit."""
    setting = setting_of(op, isa, Options())
    made = chain(setting).run(op, stop_after="embedding", check=False)
    built = fit = 0
    for embedding in made["embedding"].embeddings[:EMBEDDINGS]:
        problem = spared(build_problem(embedding, isa), setting.ranges)
        bias = bias_by_contract.find(problem, dict(setting.ranges))
        attempts = Attempts(0, problem, bias, setting.meter, setting.costs)
        near = next((c for _, c in attempts.propose(1)), None)
        if not isinstance(near, Config):
            continue  # pools and elementwise programs decide otherwise
        whole = problem.extents
        ragged = [
            tuple(rng.choice((1, n, max(1, n - 1), rng.randint(1, n))) for n in whole)
            for _ in range(count - 2)
        ]
        for tile in (whole, tuple(max(1, n // 2) for n in whole), *ragged):
            config = replace(
                near, tile=tile, uops=rng.choice((512, 64, 8, 1)), slots=rng.choice((1, 2, 16)),
                snake=rng.random() < 0.7, up=rng.choice((0, 0, 2)), down=rng.choice((0, 0, 3)),
                tail=rng.choice((64, 1, 7)),
            )  # fmt: skip
            cycles, _ = attempts.measure(config)
            # The estimate of any tile is a number, too.
            assert not math.isnan(attempts.outline(config))
            built, fit = built + 1, fit + (cycles < math.inf)
    return built, fit


if __name__ == "__main__":
    sys.exit(main())
