"""C loops that move whole runs: a tensor's streams into a packed buffer, packed results out of one.

Takes: what streams.py found.  Leaves: lines of C, and the helpers that they call. Helpers use the
vector types that gcc and clang share, so that they are of no machine in particular.
"""

from __future__ import annotations

from collections.abc import Sequence

from csp_embed.targets.source.streams import NONE, Around, Margin, Results, Streams, copy_name
from csp_embed.targets.source.written.text import affine

# Vector extensions, which gcc and clang share: no machine's intrinsics are needed.
_VECTORS = """\
/* Sixteen bytes, loaded and stored at any address. */
typedef uint8_t bytes_16 __attribute__((vector_size(16)));
static inline bytes_16 load_16(const void *from) {
  bytes_16 v;
  memcpy(&v, from, 16);
  return v;
}
static inline void store_16(void *to, bytes_16 v) { memcpy(to, &v, 16); }
/* The lower, or upper, halves of two vectors, byte by byte in turns. */
#define LOW_BYTES(a, b) __builtin_shufflevector(a, b, \\
    0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH_BYTES(a, b) __builtin_shufflevector(a, b, \\
    8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)"""

# Four streams of bytes become words: two rounds of interleaving.
_ZIP = """\
/* Sixteen values of four streams as sixteen words, `step` bytes from one to the next. */
static inline void zip_block(uint8_t *to, ptrdiff_t step, bytes_16 a, bytes_16 b, bytes_16 c,
                             bytes_16 d) {
  const bytes_16 ac = LOW_BYTES(a, c), bd = LOW_BYTES(b, d);
  const bytes_16 ac_high = HIGH_BYTES(a, c), bd_high = HIGH_BYTES(b, d);
  const bytes_16 words[4] = {LOW_BYTES(ac, bd), HIGH_BYTES(ac, bd), LOW_BYTES(ac_high, bd_high),
                             HIGH_BYTES(ac_high, bd_high)};
  if (step == 4) {
    store_16(to, words[0]);
    store_16(to + 16, words[1]);
    store_16(to + 32, words[2]);
    store_16(to + 48, words[3]);
  } else {
    for (int j = 0; j < 16; j++) memcpy(to + step * j, (const uint8_t *)words + 4 * j, 4);
  }
}

/* n values of four streams as n words; `flip` is added to each byte without carry. */
static inline void zip_4(void *to_, ptrdiff_t step, const int8_t *a, const int8_t *b,
                         const int8_t *c, const int8_t *d, ptrdiff_t n, uint8_t flip) {
  uint8_t *to = to_;
  const bytes_16 f = (bytes_16){0} + flip;
  ptrdiff_t j = 0;
  for (; j + 16 <= n; j += 16)
    zip_block(to + step * j, step, load_16(a + j) ^ f, load_16(b + j) ^ f, load_16(c + j) ^ f,
              load_16(d + j) ^ f);
  if (j < n && n >= 16) { /* the last sixteen once more: they overlap */
    j = n - 16;
    zip_block(to + step * j, step, load_16(a + j) ^ f, load_16(b + j) ^ f, load_16(c + j) ^ f,
              load_16(d + j) ^ f);
    j = n;
  }
  for (; j < n; j++) {
    const uint8_t word[4] = {(uint8_t)a[j] ^ flip, (uint8_t)b[j] ^ flip, (uint8_t)c[j] ^ flip,
                             (uint8_t)d[j] ^ flip};
    memcpy(to + step * j, word, 4);
  }
}"""

_STREAM = """\
/* A stream of a fused coordinate: what stands there, or zeros where there is no data. */
static inline const int8_t *stream_at(const int8_t *from, int32_t offset, const int8_t *zeros) {
  return offset == INT32_MIN ? zeros : from + offset;
}"""

_COPY = """\
/* Bytes, `flip` added to each without carry. */
static inline void copy_flipped(void *to_, const int8_t *from, ptrdiff_t n, uint8_t flip) {
  uint8_t *restrict to = to_;
  for (ptrdiff_t j = 0; j < n; j++) to[j] = (uint8_t)from[j] ^ flip;
}"""

# Strides of 2 are the common case (stride-2 convolutions), and worth vectors.
_EVERY = """\
/* n bytes, `apart` from one another, side by side. */
static inline void every_nth(int8_t *to, const int8_t *from, ptrdiff_t apart, ptrdiff_t n) {
  ptrdiff_t j = 0;
  for (; apart == 2 && n >= 16 && j < n; j += 16) {
    j = j + 16 <= n ? j : n - 16; /* the last sixteen overlap with those before */
    /* The second vector begins with the last byte of the first: nothing behind is read. */
    const bytes_16 low = load_16(from + 2 * j), high = load_16(from + 2 * j + 15);
    store_16(to + j, __builtin_shufflevector(low, high, 0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23,
                                             25, 27, 29, 31));
  }
  for (; j < n; j++) to[j] = from[apart * j];
}"""

_WORDS = """\
/* Words of streams side by side: n steps of `width` words, `step` bytes apart. Streams lie `apart`
   bytes apart; those beyond `lanes` are `flip` alone. */
typedef uint32_t words_16 __attribute__((vector_size(64)));
#define LOW_WORDS(a, b) __builtin_shufflevector(a, b, \\
    0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH_WORDS(a, b) __builtin_shufflevector(a, b, \\
    8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
static inline void zip_words(void *to_, ptrdiff_t step, const int8_t *from, ptrdiff_t apart,
                             ptrdiff_t lanes, ptrdiff_t width, ptrdiff_t n, uint8_t flip) {
  uint8_t *to = to_;
  const uint32_t f = flip * 0x01010101u;
  ptrdiff_t k = 0;
  for (; lanes == 16 && width == 16 && k + 16 <= n; k += 16) {
    words_16 a[16], b[16];
    for (int o = 0; o < 16; o++) memcpy(&a[o], from + apart * o + 4 * k, 64);
    for (int turn = 0; turn < 2; turn++) { /* four shuffles of sixteen transpose */
      for (int o = 0; o < 8; o++) {
        b[2 * o] = LOW_WORDS(a[o], a[o + 8]);
        b[2 * o + 1] = HIGH_WORDS(a[o], a[o + 8]);
      }
      for (int o = 0; o < 8; o++) {
        a[2 * o] = LOW_WORDS(b[o], b[o + 8]);
        a[2 * o + 1] = HIGH_WORDS(b[o], b[o + 8]);
      }
    }
    for (int o = 0; o < 16; o++) {
      a[o] ^= f;
      memcpy(to + step * (k + o), &a[o], 64);
    }
  }
  for (; k < n; k++)
    for (ptrdiff_t o = 0; o < width; o++) {
      uint32_t word = 0;
      if (o < lanes) memcpy(&word, from + apart * o + 4 * k, 4);
      word ^= f;
      memcpy(to + step * k + 4 * o, &word, 4);
    }
}"""

_UNZIP = """\
/* Sixteen results of sixteen lanes each, transposed: those of a lane go side by side. */
static inline void unzip_block(int8_t *to, const int32_t *lanes, ptrdiff_t count,
                               const int8_t *from, ptrdiff_t step) {
  bytes_16 a[16], b[16];
  for (int j = 0; j < 16; j++) a[j] = load_16(from + step * j);
  for (int turn = 0; turn < 2; turn++) { /* four shuffles of sixteen transpose */
    for (int j = 0; j < 8; j++) {
      b[2 * j] = LOW_BYTES(a[j], a[j + 8]);
      b[2 * j + 1] = HIGH_BYTES(a[j], a[j + 8]);
    }
    for (int j = 0; j < 8; j++) {
      a[2 * j] = LOW_BYTES(b[j], b[j + 8]);
      a[2 * j + 1] = HIGH_BYTES(b[j], b[j + 8]);
    }
  }
  if (count == 16)
    for (int o = 0; o < 16; o++) store_16(to + lanes[o], a[o]);
  else
    for (ptrdiff_t o = 0; o < count; o++) store_16(to + lanes[o], a[o]);
}

/* n results, `step` bytes apart, of `count` lanes each; lane o of them goes to lanes[o] on. */
static inline void unzip_16(int8_t *to, const int32_t *lanes, ptrdiff_t count, const int8_t *from,
                            ptrdiff_t step, ptrdiff_t n) {
  ptrdiff_t j = 0;
  for (; j + 16 <= n; j += 16) unzip_block(to + j, lanes, count, from + step * j, step);
  if (j < n && n >= 16) /* the last sixteen once more: they overlap */
    unzip_block(to + n - 16, lanes, count, from + step * (n - 16), step);
  else
    for (; j < n; j++)
      for (ptrdiff_t o = 0; o < count; o++) to[lanes[o] + j] = from[step * j + o];
}"""

# With the parenthesis, so that no name is part of another.
HELPERS = {"zip_4(": (_VECTORS, _ZIP), "stream_at(": (_STREAM,),
           "every_nth(": (_VECTORS, _EVERY), "copy_flipped(": (_COPY,),
           "zip_words(": (_WORDS,), "unzip_16(": (_VECTORS, _UNZIP)}  # fmt: skip


def helpers(body: Sequence[str]) -> list[str]:
    """Those that the lines call, each once, in order."""
    called = [texts for name, texts in HELPERS.items() if any(name in line for line in body)]
    # Each once, in a fixed order: helpers may build on the ones before.
    wanted = dict.fromkeys(text for texts in called for text in texts)
    return [line for text in wanted for line in ("", *text.split("\n"))]


def streams_lines(s: Streams, buffer: str, tensor: str, flip: int, indent: str) -> list[str]:
    """From `tensor` into the buffer."""
    lines, source = [], tensor
    # The copy first: streams read from it.
    if s.source.copied:
        source = copy_name(buffer)
        lines += _margin_lines(s, source, tensor, indent)
    # Lanes that nobody writes hold the neutral value, offset included.
    if s.fills:
        lines.append(f"{indent}memset({buffer}, {flip}, sizeof work->{buffer});")
    # A fused coordinate's places are a table: no divisions at run time.
    if s.table:
        values = ", ".join("INT32_MIN" if v == NONE else str(v) for v in s.table)
        lines.append(
            f"{indent}static const int32_t {buffer}offsets[{len(s.table)}] = {{{values}}};"
        )
    loops, indent = _loops(s.around, indent)
    names = [(a, f"a_{n}") for n, a in enumerate(s.around)]
    to = f"{buffer} + {affine(0, [(a.step, v) for a, v in names])}"
    start = f"{source} + {affine(s.at[0], [(a.source, v) for a, v in names])}"
    lines += loops
    length, step = s.run
    if s.kind == "zip":
        # Streams without data read zeros, which stand behind the copy.
        zeros = f"{source} + {s.source.elements - s.source.zeros}"
        at = affine(s.at[1], [(a.fused, v) for a, v in names])
        lines.append(f"{indent}const int8_t *from = {start};")
        given = ", ".join(_stream(s, lane, buffer, at, zeros) for lane in s.lanes)
        lines.append(f"{indent}zip_4({to}, {step}, {given}, {length}, {flip});")
    elif s.kind == "copy":
        lines.append(f"{indent}copy_flipped({to}, {start}, {4 * length}, {flip});")
    else:
        assert s.lanes[0] is not None
        apart, most = s.lanes[0]
        left = _count(s.left, most, names)
        lines.append(
            f"{indent}zip_words({to}, {step}, {start}, {apart}, {left}, {most}, {length}, {flip});"
        )
    return lines + _closed(s.around, indent)


def _stream(s: Streams, lane: tuple[int, int] | None, buffer: str, at: str, zeros: str) -> str:
    # No data in this lane, whatever the place.
    if lane is None:
        return zeros
    offset, moved = lane
    start = f"from + {offset}" if offset else "from"
    if not s.table:
        # Without a fused coordinate each stream is a constant away.
        return start
    entry = f"{buffer}offsets[{at} + {moved}]" if moved else f"{buffer}offsets[{at}]"
    if NONE not in s.table:
        return f"{start} + {entry}"
    return f"stream_at({start}, {entry}, {zeros})"


def results_lines(r: Results, buffer: str, tensor: str, indent: str) -> list[str]:
    """From the buffer into `tensor`."""
    values = ", ".join(map(str, r.lanes))
    lines = [f"{indent}static const int32_t {buffer}lanes[{len(r.lanes)}] = {{{values}}};"]
    loops, indent = _loops(r.around, indent)
    names = [(a, f"a_{n}") for n, a in enumerate(r.around)]
    start = f"{buffer} + {affine(0, [(a.step, v) for a, v in names])}"
    to = f"{tensor} + {affine(r.at, [(a.source, v) for a, v in names])}"
    count = _count(r.left, len(r.lanes), names)
    lines += loops
    lines.append(
        f"{indent}unzip_16({to}, {buffer}lanes, {count}, {start}, {r.run[1]}, {r.run[0]});"
    )
    return lines + _closed(r.around, indent)


def _count(left: int | None, most: int, names: Sequence[tuple[Around, str]]) -> str:
    """How many lanes there are: all, or what a ragged end leaves."""
    # A ragged end leaves fewer lanes, the further along the fewer.
    if left is None:
        return str(most)
    return f"lanes_left({affine(left, [(-a.left, v) for a, v in names])}, {most})"


def _loops(around: Sequence[Around], indent: str) -> tuple[list[str], str]:
    lines = []
    for n, a in enumerate(around):
        head = f"for (ptrdiff_t a_{n} = 0; a_{n} < {a.extent}; a_{n}++) {{"
        lines.append(indent + head)
        indent += "  "
    # A block all the same: the lines declare variables.
    if not around:
        lines.append(f"{indent}{{")
        indent += "  "
    return lines, indent


def _closed(around: Sequence[Around], indent: str) -> list[str]:
    lines = []
    for _ in range(max(1, len(around))):
        indent = indent[2:]
        lines.append(f"{indent}}}")
    return lines


def _margin_lines(s: Streams, name: str, tensor: str, indent: str) -> list[str]:
    """The copy: zeros, then the tensor's rows."""
    m = s.source
    lines = []
    rank, every = len(m.size), m.every or (1,) * len(m.size)
    given = [1] * rank
    # Strides of the tensor as given, row-major.
    for t in reversed(range(rank - 1)):
        given[t] = given[t + 1] * m.size[t + 1]
    whole = [lo == 0 and n == size for lo, n, size in zip(m.low, m.shape, m.size, strict=True)]
    last = rank - 1
    while m.phases == 1 and last > 0 and all(whole[last:]) and every[last - 1] == 1:
        last -= 1  # dimensions that are copied whole are one row
    # Of each dimension the first and the last place in the copy that has data.
    first = [max(0, -(-(0 - lo) // e)) for lo, e in zip(m.low, every, strict=True)]
    end = [min(k, (n - 1 - lo) // e + 1)
           for n, lo, k, e in zip(m.size, m.low, m.shape, every, strict=True)]  # fmt: skip
    # Zeros only where some place stays without data.
    if m.zeros or first != [0] * rank or end != list(m.shape):
        lines.append(f"{indent}memset({name}, 0, {m.elements});")
    to, source, const_from = [], [], 0
    for t in range(last):
        lines.append(f"{indent}for (ptrdiff_t t_{t} = {first[t]}; t_{t} < {end[t]}; t_{t}++) {{")
        indent += "  "
        to.append((m.strides[t], f"t_{t}"))
        source.append((given[t] * every[t], f"t_{t}"))
        const_from += given[t] * m.low[t]
    if m.phases == 1:
        const_to = first[last] * (m.strides[last] if last < rank - 1 else 1)
        const_from += (m.low[last] + first[last]) * given[last]
        lines.append(
            f"{indent}memcpy({name} + {affine(const_to, to)}, {tensor} +"
            f" {affine(const_from, source)}, {(end[last] - first[last]) * given[last]});"
        )
    # Phases that no stream reads are not copied.
    for phase in _phases_read(s) if m.phases > 1 else ():
        begin = m.low[last] + phase
        skipped = max(0, -(begin // m.phases))
        count = -(-(min(m.size[last], m.low[last] + m.shape[last]) - begin) // m.phases) - skipped
        start = affine(const_from + begin + m.phases * skipped, source)
        put = affine(phase * m.width + skipped, to)
        lines.append(f"{indent}every_nth({name} + {put}, {tensor} + {start}, {m.phases}, {count});")
    for _ in range(last):
        indent = indent[2:]
        lines.append(f"{indent}}}")
    return lines


def _phases_read(s: Streams) -> list[int]:
    """Phases of the last dimension that some stream reads."""
    # Places of all streams, by what they leave modulo the stride.
    m: Margin = s.source
    offsets = [v for v in s.table if v != NONE] or [0]
    starts = {s.at[0] + o + lane[0] for lane in s.lanes if lane is not None for o in offsets}
    return sorted({start // m.width % m.phases for start in starts})
