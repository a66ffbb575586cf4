"""What a user may ask of a compilation, beside operator and machine.

Leaves: `Options`, whose values mean something and none of which is without effect.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

from csp_embed.errors import InputError
from csp_embed.ir.embedding import Embedding

MOST = 1e9  # of a weight: beyond it, sums of cycles lose their last digits


@dataclass(frozen=True)
class Options:
    """layout: "relaxed" or "strict". memory: the interface whose cycles are minimised (None: the
    first that the spec names). top: embeddings whose schedules are improved; 0: those whose first
    schedules come close to the best. schedules: proposed tiles of such an embedding that are built
    whatever their outline says; refine: changed schedules of the leader that are measured at most
    (the others get a quarter). More of each does not give more cycles. host_weight: cycles that a
    byte of host packing counts as. cache:
    folder that keeps finished
    searches by content, or None. pins: decisions that the user makes, as text
    (embed/pins/text.py). reuse: an embedding of the same operator in another shape: it is applied
    instead of searching, where it is proved to cost at most `within` (a share) over the least.
    threads: that a call of a CPU's kernel uses.
    """

    layout: str = "relaxed"
    memory: str | None = None
    top: int = 0
    schedules: int = 2
    refine: int = 160
    host_weight: float = 0.0
    cache: Path | None = None
    pins: tuple[str, ...] = ()
    reuse: Embedding | None = None
    within: float = 0.0
    threads: int = 1

    def __post_init__(self) -> None:
        """Raises: InputError for values that mean nothing and for those that have no effect."""
        _check(self)
        if self.cache is not None:
            # Through object: a frozen dataclass has no other way in its own __post_init__.
            object.__setattr__(self, "cache", Path(self.cache))  # A text will do.


def _check(options: Options) -> None:
    """Raises: InputError for values that mean nothing and for those that have no effect."""
    if options.layout not in ("relaxed", "strict"):
        raise InputError(
            f"layout {options.layout!r} is unknown",
            where="Options.layout",
            hint="relaxed or strict; how a tensor lies is a pin: pins=('layout x=NHWC',)",
        )
    for name, least in (("top", 0), ("schedules", 1), ("refine", 0), ("threads", 1)):
        value = getattr(options, name)
        # bool is an int: top=True would be 1.
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(
                f"{name} is {value!r}", where=f"Options.{name}", hint=f"{name}={least} or more"
            )
    for name in ("host_weight", "within"):
        value = getattr(options, name)
        if not isinstance(value, int | float) or not 0 <= value <= MOST:
            raise InputError(
                f"{name} is {value!r}",
                where=f"Options.{name}",
                why=f"it lies from 0 to {MOST:g}",
                hint=f"{name}=0.02",
            )
    # A text is a sequence of letters, each of which would be a pin.
    if isinstance(options.pins, str):
        raise InputError(
            f"pins is one text, {options.pins!r}",
            where="Options.pins",
            hint=f"pins=({options.pins!r},)",
        )
    # Types of users' Python: annotations do not bind them.
    if options.cache is not None and not isinstance(options.cache, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance] (users' Python)
        raise InputError(
            f"cache is {options.cache!r}", where="Options.cache", hint="cache=Path('searches')"
        )
    if options.memory is not None and not isinstance(options.memory, str):  # pyright: ignore[reportUnnecessaryIsInstance] (users' Python)
        raise InputError(
            f"memory is {options.memory!r}", where="Options.memory", hint="memory='de10'"
        )
    if options.reuse is not None and not isinstance(options.reuse, Embedding):  # pyright: ignore[reportUnnecessaryIsInstance] (users' Python)
        raise InputError(
            f"reuse is a {type(options.reuse).__name__}",
            where="Options.reuse",
            why="an embedding is applied again",
            hint="reuse=kernel.embedding",
        )
    _effective(options)


def _effective(options: Options) -> None:
    """Raises: InputError where one field makes another one idle."""
    # Compared with the defaults: what was said again is no contradiction.
    plain = {f.name: f.default for f in fields(options)}
    changed = [n for n, default in plain.items() if getattr(options, n) != default]
    idle: list[str] = []
    # A reused embedding brings its decisions along.
    if options.reuse is not None:
        idle = [n for n in ("layout", "top", "host_weight", "pins") if n in changed]
    elif options.within:
        idle = ["within"]
    if idle:
        with_ = "without reuse" if options.reuse is None else "beside reuse"
        raise InputError(
            f"{idle[0]}={getattr(options, idle[0])!r} has no effect {with_}",
            where=f"Options.{idle[0]}",
            why="a reused embedding brings its layout and is the only one",
            hint=f"leave out {idle[0]}, or "
            + ("reuse" if options.reuse is not None else "give reuse="),
        )
    # The weight only ranks candidates against each other.
    if options.host_weight and options.top == 1:
        raise InputError(
            f"host_weight={options.host_weight} has no effect with top=1",
            where="Options.host_weight",
            why="it ranks the embeddings that are scheduled, and there is one",
            hint="top=4",
        )


def with_short(options: Options, **short: str | None) -> Options:
    """Options with the keywords of `compile` that stand for a field. Raises: InputError where the
    two say different things."""
    for name, value in short.items():
        if value is None:
            continue
        there, default = getattr(options, name), getattr(type(options), name)
        # The short form may repeat what the options say.
        if there not in (default, value):
            raise InputError(
                f"{name}={value!r} contradicts Options({name}={there!r})",
                where=name,
                hint=f"say {name} once",
            )
        options = replace(options, **{name: value})
    return options
