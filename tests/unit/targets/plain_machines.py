"""Invented machines whose templates are plain C, so that every computer runs them natively.

A step makes b x o x i products; sums lie in a register of b x o int32.
"""

from __future__ import annotations

import re
from pathlib import Path

from csp_embed.machine.load import load_text
from csp_embed.machine.spec import Isa

# `<name>` is replaced; braces are those of the spec.
_FORM = """\
format: csp-embed-isa/2
name: <name>
control: source
order: program
dims: {b: <b>, o: <o>, i: <i>}
registers:
  left: {count: 8, type: left_t, allocated_by: compiler}
  right: {count: 6, type: right_t, allocated_by: compiler}
  sums: {count: 8, type: sums_t, allocated_by: compiler}
memories:
  HOST: {kind: host, align: 64, caches: [{bytes: 32768, line: 64, bytes_per_cycle: 16}]}
  X: {kind: registers, file: left, lanes: [b, i], type: <x>}
  W: {kind: registers, file: right, lanes: [o, i], type: <w>}
  ACC: {kind: registers, file: sums, lanes: [b, o], type: int32}
code:
  headers: []
  flags: []
  cpu_features: []
  declarations: |
    typedef struct { <x>_t v[<b>][<i>]; } left_t;
    typedef struct { <w>_t v[<o>][<i>]; } right_t;
    typedef struct { int32_t v[<b>][<o>]; } sums_t;
    #define EACH for (int b = 0; b < <b>; b++) for (int o = 0; o < <o>; o++)
instructions:
  STEP:
    operands: {d: ACC, x: X, w: W}
    meaning: ACC[d][b, o] += X[x][b, i] * W[w][o, i]
    template: |
      EACH for (int i = 0; i < <i>; i++)
        {d}.v[b][o] = (int32_t)((uint32_t){d}.v[b][o]
                                + (uint32_t)({x}.v[b][i] * {w}.v[o][i]));
    cost: {per_cycle: 1, latency: 4}
  CLEAR:
    operands: {d: ACC}
    meaning: ACC[d][b, o] = 0
    template: "EACH {d}.v[b][o] = 0;"
    cost: {per_cycle: 4, latency: 1}
  FILL:
    operands: {d: ACC, v: number}
    meaning: ACC[d][b, o] = v
    template: "EACH {d}.v[b][o] = {v};"
    cost: {per_cycle: 1, latency: 1}
  GET_X:
    operands: {x: X, a: HOST <x>}
    meaning: X[x][b, i] = HOST[a + <i> * b + i]
    template: "memcpy(&{x}, {a}, sizeof {x});"
    cost: {per_cycle: 1, latency: 4}
  GET_W:
    operands: {w: W, a: HOST <w>}
    meaning: W[w][o, i] = HOST[a + <i> * o + i]
    template: "memcpy(&{w}, {a}, sizeof {w});"
    cost: {per_cycle: 1, latency: 4}
  GET_ACC:
    operands: {d: ACC, a: HOST int32}
    meaning: ACC[d][b, o] = HOST[a + <o> * b + o]
    template: "memcpy(&{d}, {a}, sizeof {d});"
    cost: {per_cycle: 1, latency: 4}
<puts><maps>"""
_PUT = """\
  PUT_<type>:
    operands: {d: ACC, a: HOST <type>, n: number}
    meaning: |
      if <o> * b + o < n:
        HOST[a + <o> * b + o] = ACC[d][b, o]
    template: "EACH if (<o> * b + o < {n}) ({a})[<o> * b + o] = (<type>_t){d}.v[b][o];"
    cost: {per_cycle: 0.25, latency: 4}
"""
_MAP = """\
  MAP_<function>:
    operands: {d: ACC, s: ACC}
    meaning: ACC[d][b, o] = <function>(ACC[d][b, o], ACC[s][b, o])
    template: |
      EACH {{
        const int32_t l = {d}.v[b][o], r = {s}.v[b][o];
        {d}.v[b][o] = <value>;
      }}
    cost: {per_cycle: 2, latency: 1}
"""
_MAPS = {
    "add": "(int32_t)((uint32_t)l + (uint32_t)r)",
    "mul": "(int32_t)((uint32_t)l * (uint32_t)r)",
    "min": "l < r ? l : r",
    "max": "l > r ? l : r",
    "shr": "l >> (r & 31)",
    "shl": "(int32_t)((uint32_t)l << (r & 31))",
}

# name -> lanes b, o, i, and the types of the factors
SHAPES = {
    "narrow": (1, 8, 4, "uint8", "int8"),
    "outer": (4, 8, 4, "int8", "int8"),
    "scalar": (1, 1, 1, "int8", "int8"),
    "twelve": (1, 12, 1, "int8", "int8"),
    "square": (2, 2, 8, "int8", "uint8"),
    "long": (1, 32, 4, "uint8", "int8"),
}


def filled(text: str, **values: object) -> str:
    """The text with every `<name>` replaced whose value is given."""
    return re.sub(r"<(\w+)>", lambda m: str(values.get(m[1], m[0])), text)


def text(name: str, b: int, o: int, i: int, x: str = "int8", w: str = "int8") -> str:
    """The YAML. b, o, i: lanes; x, w: types of the factors."""
    maps = "".join(filled(_MAP, function=f, value=t) for f, t in _MAPS.items())
    puts = "".join(filled(_PUT, type=t) for t in ("int8", "int32"))
    whole = filled(_FORM, puts=puts, maps=maps)
    return filled(whole, name=name, b=b, o=o, i=i, x=x, w=w)


def machine(name: str) -> Isa:
    """The machine of that shape."""
    return load_text(text(name, *SHAPES[name]), f"{name}.yaml", None)


def converted() -> str:
    """Sums lie in a bank that templates name by number; a conversion brings them to variables."""
    whole = text("converted", 2, 4, 4, "int8", "uint8")
    changes = (
        ("  sums: {count: 8, type: sums_t, allocated_by: compiler}\n",
         "  bank: {count: 12, allocated_by: number}\n"
         "  sums: {count: 8, type: sums_t, allocated_by: compiler}\n"),
        ("  ACC: {kind: registers, file: sums, lanes: [b, o], type: int32}\n",
         "  BANK: {kind: registers, file: bank, lanes: [b, o], type: int32, takes: 2}\n"
         "  ACC: {kind: registers, file: sums, lanes: [b, o], type: int32}\n"),
        ("    typedef struct { int32_t v[2][4]; } sums_t;\n",
         "    typedef struct { int32_t v[2][4]; } sums_t;\n"
         "    static int32_t bank[12][4]; /* a value is two rows of it */\n"),
        ("    operands: {d: ACC, x: X, w: W}\n    meaning: ACC[d]",
         "    operands: {d: BANK, x: X, w: W}\n    meaning: BANK[d]"),
        ("{d}.v[b][o] = (int32_t)((uint32_t){d}.v[b][o]\n",
         "bank[{d} + b][o] = (int32_t)((uint32_t)bank[{d} + b][o]\n"),
        ("    operands: {d: ACC}\n    meaning: ACC[d][b, o] = 0\n"
         '    template: "EACH {d}.v[b][o] = 0;"\n',
         "    operands: {t: BANK}\n    meaning: BANK[t][b, o] = 0\n"
         '    template: "EACH bank[{t} + b][o] = 0;"\n'),
        ("  FILL:\n",
         "  READ:\n    operands: {d: ACC, t: BANK}\n    meaning: ACC[d][b, o] = BANK[t][b, o]\n"
         '    template: "EACH {d}.v[b][o] = bank[{t} + b][o];"\n'
         "    cost: {per_cycle: 1, latency: 2}\n  FILL:\n"),
    )  # fmt: skip
    for old, new in changes:
        assert old in whole, old
        whole = whole.replace(old, new)
    return whole


def competing() -> str:
    """Two contractions: one of 8 columns, and one of two rows by two columns by 8."""
    whole = text("competing", 1, 8, 4)
    other = text("other", 2, 2, 8)
    for old, new in (("b", "p"), ("o", "q"), ("i", "j"), ("X", "X2"), ("W", "W2"), ("ACC", "ACC2"),
                     ("left", "left2"), ("right", "right2"), ("sums", "sums2"), ("EACH", "EACH2"),
                     ("left_t", "left2_t"), ("right_t", "right2_t"),
                     ("sums_t", "sums2_t")):  # fmt: skip
        other = re.sub(rf"\b{old}\b", new, other)

    def part(of: str, first: str, last: str) -> str:
        return of[of.index(first) + len(first) : of.index(last)]

    steps = other[other.index("instructions:\n") + len("instructions:\n") :]
    steps = re.sub(r"^  (\w+):$", r"  \g<1>_2:", steps, flags=re.MULTILINE)
    memories = "\n".join(line for line in other.splitlines()
                         if line.startswith(("  X2:", "  W2:", "  ACC2:")))  # fmt: skip
    files = part(other, "registers:\n", "memories:")
    declared = part(other, "declarations: |\n", "instructions:")
    return (
        whole.replace("dims: {b: 1, o: 8, i: 4}", "dims: {b: 1, o: 8, i: 4, p: 2, q: 2, j: 8}")
        .replace("memories:\n", files + "memories:\n")
        .replace("code:\n", memories + "\ncode:\n")
        .replace("instructions:\n", declared + "instructions:\n")
        + steps
    )


def sized(config: dict[str, int] | None = None) -> Isa:
    """A machine whose columns are a key of the configuration."""
    whole = text("sized", 1, 8, 2).replace("o: 8,", "o: N // 4,")
    whole = whole.replace("8 * b + o", "N // 4 * b + o").replace("o < 8;", "o < {N} / 4;")
    whole = whole.replace("right_t;", "right_t;").replace("int8_t v[8][2]", "int8_t v[{N} / 4][2]")
    whole = whole.replace("int32_t v[1][8]", "int32_t v[1][{N} / 4]")
    whole = whole.replace("if (N // 4 * b + o", "if ({N} / 4 * b + o")
    whole = whole.replace("[N // 4 * b + o] = (", "[{N} / 4 * b + o] = (")
    head = (
        "configuration: {default: small, named: {small: {N: 20}, large: {N: 64}},"
        " keys: {N: {min: 4, max: 256}}}\n"
    )
    whole = whole.replace("dims:", head + "dims:")
    return load_text(whole, "sized.yaml", Path(), config)
