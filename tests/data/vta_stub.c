/* A stand-in for TVM's libvta_fsim / libvta_tsim, for tests only (tests/unit/sim/test_tvm_native.py).
 *
 * It has the same C symbols and a small interpreter of its own for the default machine (1x16x16), so
 * that the tests run real programs without TVM. It runs instructions one after the other and knows
 * nothing of tokens or time. Physical memory is one arena that begins at an address of its own and
 * hands out blocks that do not start a page, so that a caller who does not move addresses is found out.
 *
 * Compile-time switches make the faults that a foreign library may have:
 *   STUB_ABORT  aborts in VTADeviceRun       STUB_HANG   never returns from it
 *   STUB_STATUS it returns 1                 STUB_WRONG  the first byte of each stored row is off by one
 *   STUB_NO_RUN has no VTADeviceRun          STUB_ALLOC  VTAMemAlloc gives NULL
 *   STUB_TSIM   refuses to run before stub_started is set (by the runtime's vta.tsim.init)
 *   STUB_RUNTIME builds the stand-in for libtvm_runtime instead
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef STUB_RUNTIME

int stub_started = 0;
static int init_function, status_function, module;
static const char *status_text = "{\n \"cycle_count\":4711\n}\n";

const char *TVMGetLastError(void) { return "stand-in: no such thing"; }

int TVMModLoadFromFile(const char *file, const char *format, void **out) {
  *out = &module;
  return access(file, R_OK) != 0 || strcmp(format, "vta-tsim") != 0;
}

int TVMFuncGetGlobal(const char *name, void **out) {
  if (!strcmp(name, "vta.tsim.init")) *out = &init_function;
  else if (!strcmp(name, "vta.tsim.profiler_status")) *out = &status_function;
  else *out = NULL;
  return 0;
}

int TVMFuncCall(void *function, void **values, int *codes, int count, void **result, int *code) {
  if (function == &init_function) {
    if (count != 1 || codes[0] != 9 || values[0] != &module) return 1;
    stub_started = 1;
    *code = 4;
    return 0;
  }
  *result = (void *)status_text;
  *code = 11;
  return 0;
}

#else

enum { ARENA = 1 << 27, BASE = 0x73040, LANES = 16 };
static _Alignas(4096) uint8_t arena[ARENA];
static size_t used;
static uint32_t uops[8192];
static int8_t inp[2048][LANES], wgt[1024][LANES][LANES];
static int32_t acc[2048][LANES];

void *VTAMemAlloc(size_t size, int cached) {
  (void)cached;
#ifdef STUB_ALLOC
  return NULL;
#endif
  if (used + size > ARENA) return NULL;
  void *found = arena + used;
  used += (size + 63) & ~(size_t)63;
  memset(found, 0xA5, size);
  return found;
}

void VTAMemFree(void *buffer) {
  if ((uint8_t *)buffer < arena || (uint8_t *)buffer >= arena + used) abort();
}

uint32_t VTAMemGetPhyAddr(void *buffer) { return BASE + (uint32_t)((uint8_t *)buffer - arena); }
void VTAMemCopyFromHost(void *to, const void *from, size_t size) { memcpy(to, from, size); }
void VTAMemCopyToHost(void *to, const void *from, size_t size) { memcpy(to, from, size); }
void *VTADeviceAlloc(void) { return arena; }
void VTADeviceFree(void *device) { (void)device; }

static uint8_t *at(uint64_t physical, uint64_t size) {
  if (physical < BASE || physical + size > BASE + used) {
    fprintf(stderr, "Check failed: physical address %llu is not allocated\n",
            (unsigned long long)physical);
    abort();
  }
  return arena + (physical - BASE);
}

/* Bits lo .. lo+width-1 of a 128-bit instruction. */
static uint32_t bits(const uint64_t *word, int lo, int width) {
  uint64_t value = word[lo / 64] >> (lo % 64);
  if (lo % 64 + width > 64) value |= word[lo / 64 + 1] << (64 - lo % 64);
  return (uint32_t)(value & ((1ull << width) - 1));
}

static void move(const uint64_t *word, int load) {
  static const uint32_t bytes[] = {4, 256, 16, 64, 16};
  uint32_t memory = bits(word, 7, 3), sram = bits(word, 10, 16), dram = bits(word, 26, 32);
  uint32_t height = bits(word, 64, 16), width = bits(word, 80, 16), stride = bits(word, 96, 16);
  uint32_t top = 0, bottom = 0, left = 0, right = 0;
  if (width == 0) return;
  if (load) {
    top = bits(word, 112, 4), bottom = bits(word, 116, 4);
    left = bits(word, 120, 4), right = bits(word, 124, 4);
  }
  uint8_t *memories[] = {(uint8_t *)uops, (uint8_t *)wgt, (uint8_t *)inp, (uint8_t *)acc};
  for (uint32_t y = 0; y < top + height + bottom; y++)
    for (uint32_t x = 0; x < left + width + right; x++, sram++) {
      int inside = y >= top && y < top + height && x >= left && x < left + width;
      uint64_t element = dram + (uint64_t)(y - top) * stride + (x - left);
      uint8_t *outer = inside ? at(element * bytes[memory], bytes[memory]) : NULL;
      if (!load) {
        for (int n = 0; n < LANES; n++) outer[n] = (uint8_t)acc[sram][n];
#ifdef STUB_WRONG
        if (x == 0) outer[0]++;
#endif
      } else if (inside) memcpy(memories[memory] + (size_t)sram * bytes[memory], outer, bytes[memory]);
      else memset(memories[memory] + (size_t)sram * bytes[memory], 0, bytes[memory]);
    }
}

static int32_t map(uint32_t operation, int32_t a, int32_t b) {
  switch (operation) {
    case 0: return a < b ? a : b;
    case 1: return a > b ? a : b;
    case 2: return (int32_t)((uint32_t)a + (uint32_t)b);
    default: return b >= 0 ? a >> b : (int32_t)((uint32_t)a << -b);
  }
}

static void compute(const uint64_t *word, int contract) {
  uint32_t reset = bits(word, 7, 1), begin = bits(word, 8, 13), end = bits(word, 21, 14);
  uint32_t outer = bits(word, 35, 14), inner = bits(word, 49, 14);
  uint32_t f[6] = {0};
  for (int n = 0; n < 4; n++) f[n] = bits(word, 64 + 11 * n, 11);
  if (contract) f[4] = bits(word, 108, 10), f[5] = bits(word, 118, 10);
  uint32_t operation = bits(word, 108, 3), immediate = bits(word, 111, 1);
  int32_t value = (int16_t)bits(word, 112, 16);
  for (uint32_t i = 0; i < outer; i++)
    for (uint32_t j = 0; j < inner; j++)
      for (uint32_t u = begin; u < end; u++) {
        uint32_t d = (uops[u] & 2047) + i * f[0] + j * f[1];
        uint32_t s = (uops[u] >> 11 & 2047) + i * f[2] + j * f[3];
        uint32_t w = (uops[u] >> 22) + i * f[4] + j * f[5];
        for (int o = 0; o < LANES; o++) {
          if (!contract) acc[d][o] = map(operation, acc[d][o], immediate ? value : acc[s][o]);
          else if (reset) acc[d][o] = 0;
          else
            for (int k = 0; k < LANES; k++) acc[d][o] += inp[s][k] * wgt[w][o][k];
        }
      }
}

#ifdef STUB_TSIM
extern int stub_started; /* of the stand-in runtime, which must have been loaded before */
#endif

#ifndef STUB_NO_RUN
int VTADeviceRun(void *device, uint32_t code, uint32_t count, uint32_t wait) {
  (void)device, (void)wait;
#ifdef STUB_TSIM
  if (!stub_started) abort();
#endif
#ifdef STUB_ABORT
  fprintf(stderr, "frame 0: somewhere\nCheck failed: the stand-in was told to abort\nframe 1\n");
  abort();
#endif
#ifdef STUB_HANG
  for (;;) sleep(1);
#endif
#ifdef STUB_STATUS
  return 1;
#endif
  const uint64_t *words = (const uint64_t *)at(code, 16ull * count);
  for (uint32_t n = 0; n < count; n++) {
    const uint64_t *word = words + 2 * n;
    switch (bits(word, 0, 3)) {
      case 0: move(word, 1); break;
      case 1: move(word, 0); break;
      case 2: compute(word, 1); break;
      case 3: return 0;
      case 4: compute(word, 0); break;
      default: abort();
    }
  }
  return 2;
}
#endif

#endif
