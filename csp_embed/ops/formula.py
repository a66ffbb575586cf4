"""A formula and its shapes become an `Operator`: for users and for the built-in operators.

Roles go by position: the result; the first operand is the activation (x); the second operand and
the tensors of the steps are constants (weights, bias), except that in an elementwise program a
tensor that has all axes of the result is an activation too. `constants=` overrules all of them.

Types: operands of `+=`, `max=` and `min=` are int8, those of `=` and of steps int32, the result is
int8 (the low 8 bits of the int32 accumulator).
"""

from __future__ import annotations

import operator as python_operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from typing import Any, NoReturn

from csp_embed.errors import OperatorError
from csp_embed.ir.affine import Affine
from csp_embed.ir.operator import Access, Operator, Step, Tensor
from csp_embed.nearest import did_you_mean
from csp_embed.ops.checks import (
    BYTES,
    axes_of,
    check_addresses,
    check_axes,
    check_names,
    check_ranks,
    check_reads,
    check_steps,
)
from csp_embed.ops.extents import accesses_of, solve_extents
from csp_embed.ops.syntax import Statement, read_statement
from csp_embed.ops.tokens import fail


def parse_formula(
    text: str,
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    extents: Mapping[str, int] | None = None,
    shift: int = 0,
    bias: bool = False,
    bias_before_shift: bool = False,
    clip: tuple[int | None, int | None] | None = None,
    bias_range: int | None = None,
    channel: int | None = None,
    constants: Iterable[str] | None = None,
    dtypes: Mapping[str, str] | None = None,
    values: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
    name: str = "formula",
    **unknown: Any,
) -> Operator:
    """The operator that a formula states; the notation is in `ops/syntax.py`.

    Shapes: by tensor; those that the others tell may be left out. Without the result's shape its
        axes get the largest extents for which no read is out of range; with negative offsets it is
        required. extents: of axes that no shape tells.
    shift, bias, clip: an epilogue after the formula's own steps, in the order shift, bias, clip; b
        is int32 along dimension `channel` of the result (by default the one whose axes the second
        operand has); bias_before_shift: the other order; bias_range: promise |b| <= bias_range.
    Raises: OperatorError, with a caret under the place in the text.

    >>> op = parse_formula("y[n,m] += x[n,k] * w[m,k]", {"x": (4, 8), "w": (3, 8)}, shift=2)
    >>> print(op.text(), dict(op.axes), op.tensors["y"].shape)
    y[n,m] += x[n,k] * w[m,k]; shr 2 {'n': 4, 'm': 3, 'k': 8} (4, 3)
    """
    # The constructors hand their keywords on, so Python's own message would name this function.
    for word in unknown:
        _refuse_keyword(word, name)
    st = read_statement(text)
    check_names(st)
    sizes = {t: positive_shape(t, s) for t, s in (shapes or {}).items()}
    given = {a: positive(n, f"extent of axis {a}") for a, n in (extents or {}).items()}
    # The options' own steps come behind the solver, whose messages speak of the user's text only.
    own = {bias_name(st)} if bias or bias_before_shift else set[str]()
    # A shape for nothing is a typing error, and more likely than a wish.
    strange = set(sizes) - set(st.places) - own
    if strange:
        raise OperatorError(
            f"a shape is given for {', '.join(sorted(strange))}, which the formula does not name",
            where=st.text,
            hint=f"its tensors are {', '.join([*st.places, *own])}",
        )
    check_ranks(st, sizes)
    check_axes(st)
    check_steps(st)
    axes = solve_extents(st, {t: s for t, s in sizes.items() if t in st.places}, given)
    # Every option that does nothing is refused: it would look as if it had done something.
    if channel is not None and not own:
        raise OperatorError(
            f"channel {channel} has no effect without a bias", why="a bias runs along it",
            hint="leave out channel, or add bias=True",
        )  # fmt: skip
    tail = plain_epilogue(st, shift, bias, bias_before_shift, clip, bias_range, channel)
    # The steps of the options are checked like those that the user wrote.
    st = replace(st, steps=(*st.steps, *tail))
    check_ranks(st, sizes)
    check_steps(st)
    tensors = make_tensors(st, axes, sizes, constants, dtypes or {}, values or {})
    # Known values are tensors of the formula, or they would be dropped without a word.
    lacking = set(values or {}) - set(tensors)
    if lacking:
        raise OperatorError(
            f"values names {', '.join(sorted(lacking))}, which the formula lacks",
            hint=f"its tensors are {', '.join(tensors)}",
        )
    check_reads(st, axes, tensors, {*st.extents, *given})
    check_addresses(st, tensors)
    return Operator(
        name=name,
        kind=st.kind,
        axes=axes,
        out=st.out,
        lhs=st.lhs,
        rhs=st.rhs,
        tensors=tensors,
        epilogue=st.steps,
        values=dict(values or {}),
        notes=dict(notes or {}),
    )


def _refuse_keyword(word: str, name: str) -> NoReturn:
    """name: of the constructor. Raises: OperatorError."""
    from csp_embed import ops  # here: it imports this file

    makers = [f for f in (getattr(ops, name, None), parse_formula) if callable(f)]
    keywords = [
        k for f in makers for k, p in signature(f).parameters.items() if p.kind is p.KEYWORD_ONLY
    ]
    known = [k for k in dict.fromkeys(keywords) if k not in ("name", "notes")]
    raise OperatorError(
        f"{name} has no keyword {word!r}",
        why=f"there are {', '.join(known)}",
        hint=did_you_mean(word, known, f"leave out {word}"),
    )


def positive(value: Any, what: str, least: int = 1) -> int:
    """`value` as an int of at least `least`. Raises: OperatorError for floats, bools and less."""
    number = integer(value, what)
    if number < least:
        need = "positive" if least == 1 else f"at least {least}"
        raise OperatorError(f"{what} is {number}; it must be {need}", hint=f"give {least} or more")
    return number


def integer(value: Any, what: str) -> int:
    """`value` as an int (NumPy integers too). Raises: OperatorError for floats and bools."""
    try:
        # True is an int to Python, and an extent of True a mistake.
        if isinstance(value, bool):
            raise TypeError("a truth value")
        return python_operator.index(value)
    except TypeError as error:
        raise OperatorError(
            f"{what} is {value!r}; it must be an integer",
            hint="give a number without a point, or round it first",
        ) from error


def positive_shape(tensor: str, shape: Sequence[int]) -> tuple[int, ...]:
    """A shape as a tuple of positive ints."""
    # A text is a sequence too, of letters.
    if isinstance(shape, str | bytes) or not hasattr(shape, "__iter__"):
        raise OperatorError(
            f"the shape of {tensor} is {shape!r}; it must be a list of extents",
            hint=f"--shape {tensor}=1,3,100",
        )
    return tuple(positive(n, f"dimension {d} of {tensor}") for d, n in enumerate(shape))


def plain_epilogue(
    st: Statement,
    shift: int,
    bias: bool,
    bias_before_shift: bool,
    clip: tuple[int | None, int | None] | None,
    bias_range: int | None,
    channel: int | None,
) -> list[Step]:
    """The steps of the options: bias before shift, shift, bias, clip."""
    steps: list[Step] = []
    add = []
    # Two biases of one name would be one tensor added twice.
    if bias and bias_before_shift:
        raise OperatorError(
            "a bias is added before or after the shift, not both", hint="leave one of the two out"
        )
    if bias_range is not None:
        bias_range = positive(bias_range, "bias_range", 0)
        if not bias and not bias_before_shift:
            raise OperatorError(
                f"bias_range {bias_range} has no effect without a bias",
                why="it promises how large b is",
                hint="add the bias (bias=True, --bias), or leave out the range",
            )
    if bias or bias_before_shift:
        add = [Step("add", access=Access(bias_name(st), (channel_index(st, channel),)),
                    bias_range=bias_range)]  # fmt: skip
    steps += add if bias_before_shift else []
    # A shift by 0 is left out: one step less for every vector.
    if integer(shift, "shift"):
        steps.append(Step("shr", integer(shift, "shift")))
    steps += add if bias else []
    if clip is not None:
        try:
            lo, hi = clip
        except (TypeError, ValueError) as error:
            raise OperatorError(
                f"clip is {clip!r}; it must be a pair (lo, hi)", hint="clip=(-128, 127)"
            ) from error
        if lo is not None:
            steps.append(Step("max", integer(lo, "the clip's lower end")))
        if hi is not None:
            steps.append(Step("min", integer(hi, "the clip's upper end")))
        # An empty clip would give the lower end or the upper, depending on the order of steps.
        if lo is not None and hi is not None and lo > hi:
            raise OperatorError(f"clip {lo}..{hi} is empty", hint=f"--clip {hi} {lo}")
    return steps


def bias_name(st: Statement) -> str:
    """`b`, or the first of bias, bias1, … if the formula has a b."""
    names = ["b", "bias", *(f"bias{i}" for i in range(1, 9))]
    return next(n for n in names if n not in st.places)


def channel_index(st: Statement, channel: int | None) -> Affine:
    """The output index along which a bias runs."""
    if channel is not None:
        if not -len(st.out.index) <= channel < len(st.out.index):
            raise OperatorError(
                f"channel {channel} is no dimension of {st.out.tensor}",
                why=f"{st.out} has {len(st.out.index)} dimensions",
                hint=f"0 to {len(st.out.index) - 1}",
            )
        return st.out.index[channel]
    found = channel_dimension(st.out, st.lhs, st.rhs)
    if found is not None:
        return st.out.index[found]
    raise OperatorError(
        "it is not clear along which dimension of the result the bias runs",
        where=st.text,
        hint="say so in the formula, e.g. '; add b[k]', or give channel=",
    )


def channel_dimension(out: Access, lhs: Access, rhs: Access | None) -> int | None:
    """The only dimension of the result that the second operand runs over and the first does not;
    else the only one that both run over; else None."""
    if rhs is None:
        # Pools and elementwise programs have no weights that would select channels.
        return None
    left, right = axes_of(lhs), axes_of(rhs)
    axes = [{a for a, _ in ix.terms} for ix in out.index]
    # Channels are what the weights select and the activations do not: that holds for every
    # convolution.
    own = [d for d, s in enumerate(axes) if s & right and not s <= left]
    shared = [d for d, s in enumerate(axes) if s & right]
    return next((found[0] for found in (own, shared) if len(found) == 1), None)


def make_tensors(
    st: Statement,
    axes: Mapping[str, int],
    shapes: Mapping[str, tuple[int, ...]],
    constants: Iterable[str] | None,
    dtypes: Mapping[str, str],
    known: Collection[str],
) -> dict[str, Tensor]:
    """The result and all operands, with shapes that were left out filled in. known: tensors whose
    values the operator states; such a second factor may be wider than int8 (`wide.py`)."""
    # None: by position; an empty list says that nothing is constant.
    fixed = None if constants is None else set(constants)
    for names, what in ((fixed or set(), "constants"), (dtypes, "dtypes")):
        unknown = set(names) - {st.out.tensor, *(a.tensor for a in accesses_of(st))}
        if unknown:
            raise OperatorError(
                f"{what} names {', '.join(sorted(unknown))}, which the formula lacks",
                hint=f"its tensors are {', '.join(st.places)}",
            )
    outs = axes_of(st.out)
    result: dict[str, Tensor] = {}
    for position, access in enumerate((st.out, *accesses_of(st))):
        name = access.tensor
        # The first access decides type and kind; further ones are the same tensor.
        if name in result:
            continue
        if st.kind == "map":
            # In an elementwise program a tensor without some axis of the result is a bias or scale.
            constant = position > 1 and not outs <= axes_of(access)
        else:
            constant = position > 1
        # By place: factors are int8, whatever is added later lies in the accumulators.
        dtype = "int32" if position > (2 if st.kind == "contract" else 1) else "int8"
        # An elementwise program works on accumulators from the start.
        if st.kind == "map" and position == 1:
            dtype = "int32"
        dtype = dtypes.get(name, dtype)
        wide = st.kind == "contract" and position == 2 and name in known
        if dtype not in BYTES or (dtype == "int16" and not wide):
            raise OperatorError(
                f"{name} has type {dtype}",
                why="tensors are int8 or int32",
                where=st.text,
                hint="int8 for operands and results, int32 for sums and biases",
            )
        narrow = position == 0 or (st.kind == "contract" and position in (1, 2) and not wide)
        if narrow and dtype != "int8":
            raise OperatorError(
                f"{name} cannot be {dtype}",
                why="products and results are int8",
                where=st.text,
                hint="declare it int8, or cast the values first",
            )
        # Left out: exactly as much as is read.
        shape = shapes.get(name) or tuple(
            _needed(st, name, d, ix, axes) for d, ix in enumerate(access.index)
        )
        # The result is made, whatever a user calls constant.
        is_constant = (name in fixed if fixed is not None else constant) and position > 0
        result[name] = Tensor(name, shape, dtype, is_constant)
    return result


def _needed(st: Statement, tensor: str, d: int, ix: Affine, axes: Mapping[str, int]) -> int:
    """Extent of a dimension whose shape was not given: as much as is read."""
    # Below 0 there is no shape that fits; the user has to say what padding he means.
    lo, hi = ix.reach(axes)
    if lo < 0:
        fail(
            st.text,
            st.index_places.get((tensor, d)),
            f"{tensor} is read below 0, so its shape must be given",
            hint=f"--shape {tensor}=…",
        )
    return hi + 1
