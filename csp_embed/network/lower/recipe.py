"""One way to requantise sums, and what ways are looked for: see recipes.py."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from csp_embed.network.lower.thresholds import Ints, Rule

Steps = tuple[tuple[str, int], ...]
"""("shr", n); or by channel: ("shr_lanes", 0) by the last shift, ("sign_lanes", 0) from 30 to k,
("max_lanes", 0) and ("min_lanes", 0) with what `Recipe.lanes` and `ceilings` have for the round."""
# Beyond any constant that matters, and its sums stay in int64.
WIDE = np.int64(1) << 56
# After a shift right by 31: minus 2^30 or 0, which the lane's shift brings down to minus 2^k.
LANES: Steps = (("shr", -30), ("sign_lanes", 0))
KEEP, ADD = 3, 2  # cycles: reset and add to the copy; add it back
PLAIN = 4  # cycles of a vector beside its products: reset, bias, shift, clip
COPY = 6  # cycles: reset, add to the copy, add it back, and a constant


@dataclass(frozen=True, eq=False)
class Coarse:
    """A first product, near enough to tell between which two numbers a sum lies: (acc * factor +
    offset) >> amount is one more than the lower, in so many digits."""

    factor: Ints
    offset: Ints
    amount: int
    digits: int

    def value(self, acc: Ints) -> Ints:
        return (acc * self.factor[:, None] + self.offset[:, None]) >> self.amount

    def word(self, acc: Ints, carried: Ints) -> Ints:
        """What the accumulator holds after the last digit, bits behind the number included."""
        shifted = 8 * (self.digits - 1)
        return (acc * self.factor[:, None] + self.offset[:, None] + carried) >> shifted

    def changes(self, low: int, high: int) -> Ints:
        """[channels, n]: sums at which it takes each number of a range."""
        numbers = np.arange(low, high + 1, dtype=np.int64) << self.amount
        numbers = numbers[None, :] - self.offset[:, None]
        return -(-numbers // np.maximum(self.factor, 1)[:, None])


@dataclass(frozen=True, eq=False)
class Recipe:
    """name: see the module's text. factor: m by channel. offsets: what each round adds to its sum,
    by channel (digits, signed, parity: one, added to acc * m, as is the last of points). between:
    steps after each round but the last. amount: the last shift, by channel (digits: the whole s).
    live: channels of several values; constant: the value of the others. bits: k of a sign's step,
    where it differs by channel. coarse: of parity and points, what tells odd from even. hits: of
    points and terms, [n, channels], the sums that take the other constant. lanes: limits of points
    and terms, by round. Of terms: shifts, by round and channel; kept, (round, steps) pairs: sums
    are kept behind so many steps of a round, not counting its offset, and added in place of
    products from the second round on; ends of the first round's sums; ceilings, upper limits by
    round; tells, a (round, steps) behind which the accumulator's last bit tells odd from even."""

    name: str
    factor: Ints
    offsets: tuple[Ints, ...]
    between: tuple[Steps, ...]
    amount: Ints
    live: np.ndarray
    constant: Ints
    bits: Ints | None = None
    coarse: Coarse | None = None
    hits: Ints | None = None
    lanes: tuple[Ints | None, ...] = ()
    ceilings: tuple[Ints | None, ...] = ()
    shifts: tuple[Ints | None, ...] = ()
    kept: tuple[tuple[int, int], ...] = ()
    ends: tuple[Ints, Ints] | None = None
    tells: tuple[int, int] | None = None

    @property
    def rounds(self) -> int:
        return len(self.between) + 1

    @property
    def digits(self) -> int:
        """Rounds whose weights are digits of the weights times the factor; the last ones."""
        # Sums alone come first, then a coarse product's digits.
        before = 0 if self.hits is None else len(self.hits)
        if self.kept:
            return 0
        if self.coarse is not None or self.hits is not None:
            return self.rounds - before - (self.coarse.digits if self.coarse else 0)
        return {"digits": self.rounds, "signed": self.rounds - 1}.get(self.name, 0)

    @property
    def repeats(self) -> bool:
        """Whether every round has the same factors."""
        return bool(self.kept) or (not self.digits and self.name != "largest")

    def value(self, acc: Ints) -> Ints:
        """What the machine has after the last shift, for accumulators [channels, n]."""
        amount = self.amount[:, None]
        if self.kept:
            return self._followed(acc, None) >> amount
        if self.hits is not None:
            carried = self.told(acc)
            return (acc * self.factor[:, None] + self.offsets[-1][:, None] + carried) >> amount
        if self.coarse is not None:
            steps = self.between[self.coarse.digits - 1]
            odd = self.coarse.value(acc) & 1
            carried = -odd << sum(-imm for _, imm in steps[2:])
            # Levels are compared before the clamp: it is the same in rule and machine.
            return (acc * self.factor[:, None] + self.offsets[0][:, None] + carried) >> amount
        if self.digits:
            carried = self._stepped(acc, self.between[0], 0) if self.name == "signed" else 0
            return (acc * self.factor[:, None] + self.offsets[0][:, None] + carried) >> amount
        carried = np.zeros_like(acc)
        for n, (offset, steps) in enumerate(zip(self.offsets[:-1], self.between, strict=True)):
            carried = self._stepped(carried + acc + offset[:, None], steps, n)
        return (carried + acc + self.offsets[-1][:, None]) >> amount

    def number(self, acc: Ints) -> Ints:
        """What is odd or even, of terms; it never falls as the sum grows."""
        return self._followed(acc, self.tells)

    def _followed(self, acc: Ints, end: tuple[int, int] | None) -> Ints:
        """Before the last shift, of rounds that add what was kept; or at a (round, steps)."""
        values, kept = np.zeros_like(acc), acc
        for n, offset in enumerate(self.offsets):
            values = values + kept + offset[:, None]
            if n == len(self.between):
                break
            steps, done = self.between[n], 0
            for until in (until for at, until in self.kept if at == n):
                values = self._stepped(values, steps[done:until], n)
                # In a copy's place: the next round adds it.
                kept, done = values, until
            if end is not None and n == end[0]:
                return self._stepped(values, steps[done : end[1]], n)
            values = self._stepped(values, steps[done:], n)
        return values

    def told(self, acc: Ints) -> Ints:
        """Minus a step where a sum takes the lower constant, else 0."""
        assert self.hits is not None
        carried, moved = np.zeros_like(acc), acc
        count = len(self.hits)
        for n in range(count):
            # What was a hit is moved onto the next one.
            sums = moved + self.offsets[n][:, None]
            carried = self._stepped(sums, self.between[n], n)
            moved = moved + carried
        if self.coarse is not None:
            count += self.coarse.digits
            word = self.coarse.word(acc, carried)
            carried = self._stepped(word, self.between[count - 1], count - 1)
        return carried

    def _stepped(self, values: Ints, steps: Steps, n: int) -> Ints:
        """What steps of round n make of int32 values."""
        lanes, ceilings, shifts = (
            by[n] if by else None for by in (self.lanes, self.ceilings, self.shifts)
        )
        for op, imm in steps:
            if op == "shr":
                values = values << -imm if imm < 0 else values >> imm
            elif op == "shr_lanes":
                values = values >> (self.amount if shifts is None else shifts)[:, None]
            elif op == "sign_lanes":
                assert self.bits is not None
                values = values >> (30 - self.bits[:, None])
            elif op == "max_lanes":
                assert lanes is not None
                values = np.maximum(values, lanes[:, None])
            elif op == "min_lanes":
                assert ceilings is not None
                values = np.minimum(values, ceilings[:, None])
            else:
                values = np.minimum(values, imm) if op == "min" else np.maximum(values, imm)
            # The machine's words have 32 bits; the shift that tells a bit rests on losing the
            # others.
            values = values.astype(np.int32).astype(np.int64)  # it wraps, on purpose
        return values

    def extra(self, products: float) -> float:
        """Cycles a vector beyond one round with its bias. products: steps of one contraction."""
        # A shift by lanes reads a tensor: two cycles instead of one.
        steps = sum(2 if op.endswith("lanes") else 1 for s in self.between for op, _ in s)
        lanes = 1 if np.unique(self.amount).size > 1 else 0
        if self.kept:
            added = sum(bool(offset.any()) for offset in self.offsets[1:])
            # By lanes between the rounds, the last shift is one by lanes, too.
            lanes = max(lanes, int(any(op == "shr_lanes" for s in self.between for op, _ in s)))
            # So does the last clip, where a round has limits of its own.
            lanes += bool(self.lanes) + bool(self.ceilings)
            return KEEP * len(self.kept) + ADD * len(self.between) + added + steps + lanes
        # Either a copy of the sums, or the products again with their bias.
        copies = self.copies(products)
        again = (self.rounds - 1 - copies) * (products + 1) + COPY * copies
        if self.name == "largest":
            again = self.rounds - 1  # each place but one is read twice, and no others
        return again + steps + lanes

    def price(self, products: float, read: float) -> float:
        """Cycles a vector. read: what loading the factors of one round takes of them: a layer of
        few results for each factor waits for digits more than for steps."""
        loaded = read * (1 if self.repeats else self.rounds - self.copies(products))
        # Loads and steps overlap; of equals, the one that loads less.
        return max(products + PLAIN + self.extra(products), loaded) + loaded / 32

    def copies(self, products: float) -> int:
        """Rounds that take a copy of the sums, where that is cheaper than making them again."""
        if self.kept:
            return len(self.between)
        if self.hits is not None:
            # The sums are there, and moved ones are no products.
            return max(0, len(self.hits) - 1)
        return int(self.rounds == 2 and self.repeats and products + 1 > COPY)


@dataclass(frozen=True, eq=False)
class Search:
    """What recipes are looked for. first: the rule's thresholds. weights: [channels, products].
    bias: what is added to the products on the machine, by channel, beside a recipe's offsets.
    steps: of the machine that one vector's products take, about. read: cycles a vector that loading
    the factors of one round takes."""

    rule: Rule
    first: Ints
    weights: Ints
    bias: Ints
    live: np.ndarray
    steps: float
    read: float = 0.0

    def recipe(
        self, name: str, factor: Ints, offsets: tuple[Ints, ...], between: tuple[Steps, ...],
        amount: Ints,
    ) -> Recipe:  # fmt: skip
        constant = self.rule.apply(self.rule.low[:, None])[:, 0]
        constant = np.clip(constant, *self.rule.clamp)
        return Recipe(name, factor, offsets, between, amount, self.live, constant)

    def none(self, name: str, good: np.ndarray) -> str:
        bad = int((self.live & ~good).sum())
        if not bad:
            return f"{name}: every channel has one, but none suits all"
        return f"{name}: {bad} of {self.live.size} channels have none"

    @property
    def near(self) -> Ints:
        """The real multiplier lies at, or a hair beside, 2^-n: n is its logarithm, rounded; the
        commonest one where a channel has one value."""
        # Logarithm, as powers of two are the question; a hair beside is what float32 makes of them.
        slope = np.maximum(self.rule.slope, 2.0**-31)
        near = np.clip(np.rint(-np.log2(slope)), 0, 31).astype(np.int64)
        values, counts = np.unique(near[self.live], return_counts=True)
        return np.where(self.live, near, values[np.argmax(counts)] if values.size else 0)

    def ends(self, amount: Ints, chosen: np.ndarray | bool = True) -> tuple[Ints, Ints]:
        """The interval of constants with which a shift is right at the chosen levels."""
        return self.scaled_ends(np.ones_like(amount), amount, chosen)

    def scaled_ends(
        self,
        factor: Ints,
        amount: Ints,
        chosen: np.ndarray | bool = True,
        reach: Ints | None = None,
        rows: Ints | None = None,
    ) -> tuple[Ints, Ints]:
        """As `ends`, of constants that are added to acc * factor. reach: what the sum has to be for
        each level, where that is not the level itself. rows: some channels alone; `factor` and what
        is returned are those of these channels, the others of all."""
        wide, first, low, high = WIDE, self.first, self.rule.low, self.rule.high
        chosen = np.broadcast_to(chosen, first.shape)
        if rows is not None:
            first, low, high, chosen = first[rows], low[rows], high[rows], chosen[rows]
            amount, reach = amount[rows], None if reach is None else reach[rows]
        if reach is None:
            # Levels in the units of the shifted sum.
            reach = self.rule.levels[None, :] << amount[:, None]
        # A level that every accumulator reaches, or none, bounds the constant from one side only.
        below, above = first <= low[:, None], first > high[:, None]
        at = np.where(below, low[:, None], first) * factor[:, None]
        before = np.where(above, high[:, None], first - 1) * factor[:, None]
        least = np.where(above | ~chosen, -wide, reach - at).max(axis=1, initial=-wide)
        most = np.where(below | ~chosen, wide, reach - 1 - before).min(axis=1, initial=wide)
        return least, most
