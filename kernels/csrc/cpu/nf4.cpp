// NF4: arguments, threads, the tails of partial blocks, and the second quantisation.
#include <math.h>

#include "codebook.h"
#include "convert.h"
#include "fedft_cpu.h"
#include "tiers.h"

namespace {

constexpr int64_t kChunk = kNested * kBlock;        // weights handled at a time by one thread
constexpr int64_t kStreamBytes = int64_t{24} << 20;  // outputs beyond this bypass the caches

int64_t width(int dtype) { return dtype == FEDFT_F32 ? 4 : 2; }

const char* offset_by(const void* p, int64_t elements, int dtype) {
  return static_cast<const char*>(p) + elements * width(dtype);
}

bool known(int dtype) { return dtype >= FEDFT_F32 && dtype <= FEDFT_F16; }

float load(const void* w, int dtype, int64_t i) {
  if (dtype == FEDFT_F32) return static_cast<const float*>(w)[i];
  const uint16_t h = static_cast<const uint16_t*>(w)[i];
  return dtype == FEDFT_BF16 ? from_bf16(h) : from_f16(h);
}

void store(void* out, int dtype, int64_t i, float x) {
  if (dtype == FEDFT_F32)
    static_cast<float*>(out)[i] = x;
  else
    static_cast<uint16_t*>(out)[i] = dtype == FEDFT_BF16 ? to_bf16(x) : to_f16(x);
}

// The number of midpoints below x: the nearest level, the lower one on a tie.
int nearest(float x) {
  int below = 0;
  for (int half = 8; half > 0; half /= 2) below += x > kMid[below + half - 1] ? half : 0;
  return below;
}

// A last, partial block is divided by its absmax (never below kMinScale) instead of multiplied by the
// reciprocal, as bitsandbytes does on the CPU; an odd count is padded with a zero weight.
bool quantize_tail(const void* w, int dtype, int64_t n, uint8_t* q, float* absmax) {
  float scale = kMinScale;
  for (int64_t i = 0; i < n; ++i) {
    const float a = fabsf(load(w, dtype, i));
    if (!(a <= 3.402823466e38f)) return false;
    scale = a > scale ? a : scale;
  }
  for (int64_t i = 0; i < n; i += 2) {
    const int first = nearest(load(w, dtype, i) / scale);
    const int second = i + 1 < n ? nearest(load(w, dtype, i + 1) / scale) : 7;
    q[i / 2] = static_cast<uint8_t>(first << 4 | second);
  }
  *absmax = scale;
  return true;
}

void dequantize_tail(const uint8_t* q, float scale, int64_t n, void* out, int dtype) {
  for (int64_t i = 0; i < n; ++i) {
    const int pair = q[i / 2];
    store(out, dtype, i, kCode[i % 2 == 0 ? pair >> 4 : pair & 15] * scale);
  }
}

// The nearest integer, ties to even, of |x| < 2^51: where doubles are spaced by one, adding rounds.
int64_t whole(double x) { return static_cast<int64_t>((x + 0x1.8p52) - 0x1.8p52); }

// The mean as integers: a sum of integers does not depend on the order, so that every tier, thread
// count and device finds the same offset. Each value keeps at least 62 - log2(count) bits below the
// largest one.
float mean_of(const float* absmax, int64_t count, int threads) {
  float top = 0.0f;
  for (int64_t i = 0; i < count; ++i) top = absmax[i] > top ? absmax[i] : top;
  if (top == 0.0f) return 0.0f;
  int exponent = 0, bits = 62;
  frexp(static_cast<double>(top), &exponent);
  for (int64_t c = count; c > 0; c >>= 1) --bits;
  bits = bits > 40 ? 40 : bits;
  const double unit = ldexp(1.0, bits - exponent);
  int64_t total = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : total) if (threads > 1)
  for (int64_t i = 0; i < count; ++i) total += whole(static_cast<double>(absmax[i]) * unit);
  return static_cast<float>(static_cast<double>(total) / static_cast<double>(count) / unit);
}

void nest_block(const float* absmax, int64_t count, const float* mid, float offset, uint8_t* q8, float* absmax2) {
  float scale = 0.0f;
  for (int64_t i = 0; i < count; ++i) {
    const float a = fabsf(absmax[i] - offset);
    scale = a > scale ? a : scale;
  }
  const float divisor = scale < kMinScale ? kMinScale : scale;
  const float inverse = 1.0f / divisor;
  constexpr int64_t kGroup = 16;  // searches side by side hide each other's latency
  for (int64_t start = 0; start < count; start += kGroup) {
    const int64_t size = count - start < kGroup ? count - start : kGroup;
    float x[kGroup] = {};
    for (int64_t i = 0; i < size; ++i) {
      const float centred = absmax[start + i] - offset;
      x[i] = count == kNested ? centred * inverse : centred / divisor;
    }
    int below[kGroup] = {};
    for (int half = 128; half > 0; half /= 2)
      for (int64_t i = 0; i < kGroup; ++i) below[i] += half & -static_cast<int>(x[i] > mid[below[i] + half - 1]);
    for (int64_t i = 0; i < size; ++i) q8[start + i] = static_cast<uint8_t>(below[i]);
  }
  *absmax2 = count == kNested ? scale : divisor;
}

}  // namespace

int fedft_nf4_quantize(const void* w, int dtype, int64_t n, uint8_t* q, float* absmax, int threads) {
  if (n < 0 || !known(dtype) || (n > 0 && (!w || !q || !absmax))) return FEDFT_BAD_ARGUMENT;
  const Tier& t = tier();
  const int64_t blocks = n / kBlock, chunks = ceil_div(blocks, kNested);
  int finite = 1;
#pragma omp parallel for num_threads(threads) reduction(& : finite) if (threads > 1 && chunks > 1)
  for (int64_t c = 0; c < chunks; ++c) {
    const int64_t first = c * kNested, count = blocks - first < kNested ? blocks - first : kNested;
    finite &= t.quantize(offset_by(w, first * kBlock, dtype), dtype, count, q + first * kBlock / 2, absmax + first);
  }
  if (n % kBlock != 0)
    finite &= quantize_tail(offset_by(w, blocks * kBlock, dtype), dtype, n % kBlock, q + blocks * kBlock / 2,
                            absmax + blocks);
  return finite ? FEDFT_OK : FEDFT_NOT_FINITE;
}

int fedft_nf4_nest(const float* absmax, int64_t count, const float* code, uint8_t* q8, float* absmax2, float* offset,
                   int threads) {
  if (count < 0 || !offset || (count > 0 && (!absmax || !code || !q8 || !absmax2))) return FEDFT_BAD_ARGUMENT;
  for (int64_t i = 0; i < count; ++i)
    if (!(fabsf(absmax[i]) <= 3.402823466e38f)) return FEDFT_NOT_FINITE;
  const float mean = count ? mean_of(absmax, count, threads) : 0.0f;
  float mid[255];
  for (int i = 0; i < 255; ++i) mid[i] = count ? (code[i] + code[i + 1]) / 2.0f : 0.0f;
  const int64_t blocks = ceil_div(count, kNested);
#pragma omp parallel for num_threads(threads) if (threads > 1 && blocks > 1)
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t first = b * kNested, size = count - first < kNested ? count - first : kNested;
    nest_block(absmax + first, size, mid, mean, q8 + first, absmax2 + b);
  }
  *offset = mean;
  return FEDFT_OK;
}

int fedft_nf4_dequantize(const uint8_t* q, const uint8_t* q8, const float* code, const float* absmax, float offset,
                         int64_t n, void* out, int dtype, int threads) {
  if (n < 0 || !known(dtype) || (n > 0 && (!q || !absmax || !out)) || (q8 && !code)) return FEDFT_BAD_ARGUMENT;
  const Tier& t = tier();
  const bool stream = n * width(dtype) >= kStreamBytes && reinterpret_cast<uintptr_t>(out) % 64 == 0;
  const int64_t chunks = ceil_div(n, kChunk);
#pragma omp parallel for num_threads(threads) if (threads > 1 && chunks > 1)
  for (int64_t c = 0; c < chunks; ++c) {
    const int64_t start = c * kChunk, size = n - start < kChunk ? n - start : kChunk;
    const int64_t first = c * kNested, blocks = size / kBlock, tail = size % kBlock;
    float table[256];  // every scale that an 8-bit code of this chunk can mean: one lookup per block
    if (q8)
      for (int i = 0; i < 256; ++i) table[i] = code[i] * absmax[c] + offset;
    const float* scale = q8 ? table : absmax + first;
    const uint8_t* index = q8 ? q8 + first : nullptr;
    char* to = static_cast<char*>(out) + start * width(dtype);
    t.dequantize(q + start / 2, index, scale, blocks, to, dtype, stream);
    if (tail)
      dequantize_tail(q + (start + blocks * kBlock) / 2, scale[index ? index[blocks] : blocks], tail,
                      to + blocks * kBlock * width(dtype), dtype);
  }
  return FEDFT_OK;
}
