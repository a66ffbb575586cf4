"""Tokens/s by layers held, from sizes alone: a roofline with caches and tensor parallelism.

A machine with k of L layers keeps k layers of weights; what is left of its memory holds caches of
N = (memory - k W) / (k kv (p + o)) requests of p prompt and o output tokens. A token must come
round all L / k stages before its request's next one, so a step works on b = N k / L of them.
Per layer,

    prompt token:   2 P / flops                                  (compute)
    step of b:      max((W + b kv (p + o)) / bandwidth, 2 P b / flops)
    P(k) = 1 / (k prompt_token),   D(k) = b / (k step),   T(k) = (p + o) / (p / P(k) + o / D(k)),

with P parameters, W bytes of weights, kv bytes of cache per token, all per layer. Tensor
parallelism of degree d multiplies memory, flops and bandwidth by d, and adds two all-reduces of the
activations per layer, each moving 2 (d - 1) / d of them over the links of the group (ring).

Source: Williams et al., "Roofline", CACM 2009; parameter counts of the Llama architecture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt

from csp_embed.network.files.schema import Strict
from csp_embed.serving.files.gpus import Gpu


class Model(Strict):
    """A decoder of equal layers. intermediate: width of the gated feed-forward part; kv_heads fewer
    than heads for grouped queries; bytes of a weight and of a cached number."""

    name: str = ""
    layers: PositiveInt
    hidden: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt | None = None
    intermediate: PositiveInt
    weight_bytes: PositiveFloat = 2.0
    kv_bytes: PositiveFloat = 2.0

    @property
    def parameters(self) -> float:
        """Of one layer: queries and output, keys and values, three feed-forward matrices."""
        # Width of a head: keys and values shrink with kv_heads, queries do not.
        head = self.hidden / self.heads
        kv = 2 * self.hidden * head * (self.kv_heads or self.heads)
        return 2 * self.hidden**2 + kv + 3 * self.hidden * self.intermediate

    @property
    def cache_bytes(self) -> float:
        """Keys and values of one token in one layer."""
        # Two: a key and a value.
        return 2 * self.hidden / self.heads * (self.kv_heads or self.heads) * self.kv_bytes

    @property
    def activation_bytes(self) -> float:
        """Of one token between two layers."""
        # 16-bit numbers, whatever the weights are kept in.
        return 2.0 * self.hidden


# One number is a list of one choice.
Batches = Annotated[list[PositiveInt], BeforeValidator(lambda v: v if isinstance(v, list) else [v])]


class Workload(Strict):
    """Mean tokens of a request; batch: requests at a time at most (default: as memory allows), or a
    list of which the best is chosen. split_phases: prefill and decode may use different machines.
    efficiency: share of the peak flops, and of the bandwidth, that layers reach; reserve: share of
    memory for everything else."""

    prompt_tokens: PositiveFloat = 750
    output_tokens: PositiveFloat = 240
    batch: Batches | None = None
    split_phases: bool = False
    flops_efficiency: float = Field(default=0.5, gt=0, le=1)
    bandwidth_efficiency: float = Field(default=0.8, gt=0, le=1)
    reserve: float = Field(default=0.1, ge=0, lt=1)

    @property
    def batches(self) -> list[int | None]:
        """Those to choose from; None = as memory allows."""
        # A batch named twice is one choice.
        return [None] if self.batch is None else list(dict.fromkeys(self.batch))


@dataclass(frozen=True)
class Rates:
    """By layers held: tokens/s of prefill and of decode, each alone; seconds of a decode step."""

    prefill: list[float]
    decode: list[float]
    step: list[float]


def roofline(
    model: Model,
    workload: Workload,
    gpu: Gpu,
    degree: int,
    links_bytes_per_s: float,
    batch: int | None = None,
) -> Rates:
    """Rates for k = 1, 2, … layers as long as the weights and the cache of one request fit.

    batch: requests at a time at most; None = as memory allows."""
    p, o = workload.prompt_tokens, workload.output_tokens
    # Everything but weights and caches takes its share first.
    memory = gpu.memory_bytes * degree * (1 - workload.reserve)
    flops = gpu.flops * degree * workload.flops_efficiency
    bandwidth = gpu.bytes_per_s * degree * workload.bandwidth_efficiency
    weights = model.parameters * model.weight_bytes
    per_request = model.cache_bytes * (p + o)
    # Two all-reduces per layer; seconds for one token's activations.
    reduce = 4 * (degree - 1) / degree * model.activation_bytes / links_bytes_per_s
    prompt = 2 * model.parameters / flops + reduce
    rates = Rates([], [], [])
    for k in range(1, model.layers + 1):
        # Requests whose caches fit beside the weights of k layers.
        held = (memory - k * weights) / (k * per_request)
        if batch is not None:
            held = min(held, batch)
        # Longer intervals hold even fewer: the table ends here.
        if held < 1:
            break
        # At any moment a request is in one of the L / k stages.
        b = max(1.0, held * k / model.layers)
        # Weights are read once a step, caches of each request: whichever takes longer.
        step = max((weights + b * per_request) / bandwidth, 2 * model.parameters * b / flops)
        rates.prefill.append(1 / (k * prompt))
        rates.decode.append(b / (k * (step + b * reduce)))
        rates.step.append(k * (step + b * reduce))
    return rates
