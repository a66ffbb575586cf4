"""What to compile, from words on the command line to an Operator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from csp_embed.errors import InputError, OperatorError
from csp_embed.ir.operator import Operator
from csp_embed.nearest import nearest

# Names of functions of `ops`.
OPERATORS = (
    "conv1d", "conv2d", "conv3d", "conv_transpose2d", "depthwise_conv2d", "matmul", "batch_matmul",
    "dense", "max_pool2d", "avg_pool2d",
)  # fmt: skip
SAME = "same"
# Options that every operator takes in its epilogue.
EPILOGUE = ("shift", "bias", "bias_before_shift", "clip", "bias_range")


_PADDING = {"same_upper": SAME, "valid": 0, "none": 0}


def numbers(text: str, option: str) -> Any:
    """`3` -> 3, `2,1` -> (2, 1), `1,2,3,4` -> (1, 2, 3, 4); `same` stays."""
    # Only padding has a word.
    if option == "pad" and text.strip().lower() == SAME:
        return SAME
    try:
        values = [int(v) for v in text.split(",")]
    except ValueError as error:
        name = option.replace("_", "-")
        raise OperatorError(
            f"--{name} {text} is no integer or list of integers",
            why="same is the only word" if option == "pad" else "",
            # ONNX's SAME_UPPER is what `same` does; VALID is no padding.
            hint=f"--{name} {_PADDING.get(text.strip().lower(), 1) if option == 'pad' else 1}",
        ) from error
    # One number stands for all dimensions.
    return values[0] if len(values) == 1 else tuple(values)


def pins(layout: list[str], fix: list[str], forbid: list[str]) -> tuple[str, tuple[str, ...]]:
    """Layout mode and pins of --layout, --fix and --forbid. Raises: InputError."""
    modes: list[str] = []
    out = [f"fix {t}" for t in fix] + [f"forbid {t}" for t in forbid]
    for text in layout:
        if "=" in text:
            out.append(f"layout {text}")
        elif text in ("relaxed", "strict"):
            # The same mode twice is harmless.
            if modes and modes[-1] != text:
                raise InputError(
                    f"--layout {modes[-1]} and --layout {text} contradict each other",
                    hint="give one of them",
                )
            modes.append(text)
        else:
            raise InputError(
                f"--layout {text} is unknown",
                why="it is relaxed, strict, or a tensor's, e.g. x=NHWC",
                hint="--layout relaxed",
            )
    return modes[-1] if modes else "relaxed", tuple(out)


def shapes(texts: list[str]) -> dict[str, tuple[int, ...]]:
    """`x=1,3,100` -> {"x": (1, 3, 100)}."""
    out: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, sizes = text.partition("=")
        # Twice would be an oversight; the last one winning would hide it.
        if name.strip() in out:
            raise OperatorError(f"--shape {name.strip()}=… is given twice", hint="give it once")
        try:
            out[name.strip()] = tuple(int(v) for v in sizes.split(","))
        except ValueError as error:
            raise OperatorError(
                f"--shape {text} cannot be read",
                why="it is a tensor's name and its extents, e.g. --shape x=1,3,100",
                hint="--shape x=1,3,100",
            ) from error
    return out


PLAIN = ("n", "c", "d", "h", "w", "k", "t", "r", "s", "m", "batch", "multiplier", "groups",
         "shift", "bias_range", "clip")  # fmt: skip
LISTED = ("stride", "pad", "dilation", "output_pad")
FLAGS = ("bias", "bias_before_shift")


def from_options(
    what: str, shape: list[str], step: list[str], given: Mapping[str, Any]
) -> Operator:
    """The operator of a command's arguments as typer hands them over. Raises: OperatorError."""
    raw: dict[str, Any] = {name: given.get(name) for name in PLAIN}
    raw["layout"] = given.get("tensor_layout")
    # False is "not given" for flags.
    raw |= {name: given.get(name) or None for name in FLAGS}
    for name in LISTED:
        text = given.get(name)
        raw[name] = None if text is None else numbers(text, name)
    return operator(what, {a: v for a, v in raw.items() if v is not None}, shape, step)


def operator(what: str, given: Mapping[str, Any], shape: list[str], steps: list[str]) -> Operator:
    """The operator named `what`: deepbench:ID, a formula, `elementwise`, or a built-in.

    given: options that were set, by name. Raises: OperatorError.
    """
    from csp_embed import ops
    from csp_embed.ops import deepbench

    epilogue = {k: v for k, v in given.items() if k in EPILOGUE}
    extents = {k: v for k, v in given.items() if k not in EPILOGUE}
    # Steps belong to the element-wise program alone.
    if steps and what.replace("-", "_") != "elementwise":
        raise OperatorError(
            f"{what} takes no --step",
            why="steps make an elementwise program",
            hint="a formula names its own steps: 'y[n,m] += x[n,k] * w[m,k]; shr 3'",
        )
    if what.startswith("deepbench:"):
        _none_left(what, {**extents, **epilogue}, shape)
        return deepbench.layer(what.removeprefix("deepbench:"))
    # A formula has an equals sign, a name has none.
    if "=" in what:
        _none_left("a formula", extents, [], "its extents come from --shape")
        return ops.parse_formula(what, shapes(shape), **epilogue)
    name = what.replace("-", "_")
    if name == "elementwise":
        pad = extents.pop("pad", 0)
        # Padding is the only extent of an element-wise program.
        _none_left(name, {**extents, **epilogue}, [], "its steps come from --step")
        sizes = shapes(shape)
        if set(sizes) != {"x"}:
            raise OperatorError("elementwise needs the shape of x", hint="--shape x=64,16")
        return ops.elementwise(sizes["x"], [_step(s) for s in steps], pad=pad)
    if name not in OPERATORS:
        # Names differ between tools by a prefix or an underscore: maxpool2d, depthwise, conv_2d.
        near = nearest(name, [*OPERATORS, "elementwise"])
        near += [n for n in OPERATORS if n.startswith(name)]
        raise OperatorError(
            f"unknown operator {what!r}",
            why=f"known: {', '.join(OPERATORS)}, elementwise, deepbench:ID, or a formula",
            hint=f"csp-embed compile {near[0]} --help"
            if near
            else "csp-embed compile 'y[n,m] += x[n,k] * w[m,k]' --shape x=4,8 --shape w=3,8",
        )
    # Built-in operators make their shapes from extents.
    if shape:
        raise OperatorError(
            f"{name} takes extents, not --shape", hint=f"csp-embed compile {name} --help"
        )
    maker: Callable[..., Operator] = getattr(ops, name)
    # What an operator takes is what its function takes: no second list to keep.
    parameters = inspect.signature(maker).parameters
    unknown = [k for k in extents if k not in parameters]
    if unknown:
        takes = ", ".join(_spelled(p) for p in parameters if p != "epilogue")
        raise OperatorError(
            f"{name} has no {_spelled(unknown[0])}",
            why=f"it takes {takes}",
            hint=f"csp-embed compile {name} --help",
        )
    missing = [
        p.name
        for p in parameters.values()
        # Only keyword parameters without a default must be given.
        if p.default is p.empty and p.kind is p.KEYWORD_ONLY and p.name not in given
    ]
    if missing:
        raise OperatorError(
            f"{name} needs " + ", ".join("--" + m.replace("_", "-") for m in missing),
            hint=f"csp-embed compile {name} " + " ".join(_example(parameters, given)),
        )
    return maker(**given)


def _example(parameters: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """All required options, with the values that were given."""
    needed = [p.name for p in parameters.values() if p.default is p.empty]
    # 8 is as good as any: the hint must be a whole command.
    return [f"--{p} {given.get(p, 8)}" for p in needed if p != "epilogue"]


def _none_left(what: str, given: Mapping[str, Any], shape: list[str], why: str = "") -> None:
    if given or shape:
        option = next(iter(given), "shape")
        raise OperatorError(
            f"{what} takes no {_spelled(option)}",
            why=why,
            hint=f"leave it out; csp-embed compile --help lists what {what} takes",
        )


def _spelled(parameter: str) -> str:
    """An operator's parameter as the option that sets it: --layout is the search's."""
    return "--tensor-layout" if parameter == "layout" else "--" + parameter.replace("_", "-")


def _step(text: str) -> tuple[Any, ...]:
    """`add 17` -> ("add", 17); `add z` -> ("add", "z"); `relu` -> ("relu",)."""
    name, *args = text.replace(",", " ").split() or [""]
    # Numbers where they are numbers, names else.
    return (name, *(int(a) if a.lstrip("-").isdigit() else a for a in args))
