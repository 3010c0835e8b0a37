// The portable tier, and the definition of what the others must give.
#include "codebook.h"
#include "convert.h"
#include "fedft_cpu.h"
#include "tiers.h"

namespace {

float load(const void* w, int dtype, int64_t i) {
  switch (dtype) {
    case FEDFT_F32: return static_cast<const float*>(w)[i];
    case FEDFT_BF16: return from_bf16(static_cast<const uint16_t*>(w)[i]);
    default: return from_f16(static_cast<const uint16_t*>(w)[i]);
  }
}

// The number of midpoints below x: the nearest level, the lower one on a tie.
uint8_t nearest(float x) {
  int c = x > kMid[7] ? 8 : 0;
  c += x > kMid[c + 3] ? 4 : 0;
  c += x > kMid[c + 1] ? 2 : 0;
  c += x > kMid[c] ? 1 : 0;
  return static_cast<uint8_t>(c);
}

bool quantize(const void* w, int dtype, int64_t blocks, uint8_t* q, float* absmax) {
  for (int64_t b = 0; b < blocks; ++b) {
    float x[kBlock];
    uint32_t largest = 0;  // the bits of non-negative floats are ordered like the floats
    for (int64_t i = 0; i < kBlock; ++i) {
      x[i] = load(w, dtype, b * kBlock + i);
      const uint32_t a = bits_of(x[i]) & 0x7fffffffu;
      largest = a > largest ? a : largest;
    }
    if (largest >= 0x7f800000u) return false;
    const float scale = float_of(largest);
    const float inverse = 1.0f / (scale < kMinScale ? kMinScale : scale);
    for (int64_t i = 0; i < kBlock; i += 2)
      q[(b * kBlock + i) / 2] =
          static_cast<uint8_t>(nearest(x[i] * inverse) << 4 | nearest(x[i + 1] * inverse));
    absmax[b] = scale;
  }
  return true;
}

template <typename T, typename Convert>
void expand(const uint8_t* q, const uint8_t* q8, const float* scale, int64_t blocks, T* out, Convert convert) {
  for (int64_t b = 0; b < blocks; ++b) {
    const float s = q8 ? scale[q8[b]] : scale[b];
    T table[16];
    for (int c = 0; c < 16; ++c) table[c] = convert(kCode[c] * s);
    for (int64_t i = 0; i < kBlock / 2; ++i) {
      const uint8_t pair = q[b * (kBlock / 2) + i];
      out[b * kBlock + 2 * i] = table[pair >> 4];
      out[b * kBlock + 2 * i + 1] = table[pair & 15];
    }
  }
}

void dequantize(const uint8_t* q, const uint8_t* q8, const float* scale, int64_t blocks, void* out, int dtype, bool) {
  switch (dtype) {
    case FEDFT_F32:
      return expand(q, q8, scale, blocks, static_cast<float*>(out), [](float x) { return x; });
    case FEDFT_BF16: return expand(q, q8, scale, blocks, static_cast<uint16_t*>(out), to_bf16);
    default: return expand(q, q8, scale, blocks, static_cast<uint16_t*>(out), to_f16);
  }
}

template <typename T>
void pack(const T* x, int64_t bytes, uint8_t* pos, uint8_t* neg) {
  for (int64_t b = 0; b < bytes; ++b) {
    unsigned p = 0, m = 0;
    for (int j = 0; j < 8; ++j) {
      p |= static_cast<unsigned>(x[b * 8 + j] > 0) << j;
      m |= static_cast<unsigned>(x[b * 8 + j] < 0) << j;
    }
    pos[b] = static_cast<uint8_t>(p);
    neg[b] = static_cast<uint8_t>(m);
  }
}

void pack_i8(const int8_t* x, int64_t bytes, uint8_t* pos, uint8_t* neg) { pack(x, bytes, pos, neg); }
void pack_f32(const float* x, int64_t bytes, uint8_t* pos, uint8_t* neg) { pack(x, bytes, pos, neg); }

// Calls visit(i, t) with t = +1, 0 or -1 for every element.
template <typename Visit>
void each(const uint8_t* pos, const uint8_t* neg, int64_t bytes, Visit visit) {
  for (int64_t b = 0; b < bytes; ++b)
    for (int j = 0; j < 8; ++j) visit(b * 8 + j, (pos[b] >> j & 1) - (neg[b] >> j & 1));
}

void unpack_i8(const uint8_t* pos, const uint8_t* neg, int64_t bytes, int8_t* out) {
  each(pos, neg, bytes, [=](int64_t i, int t) { out[i] = static_cast<int8_t>(t); });
}

void unpack_f32(const uint8_t* pos, const uint8_t* neg, int64_t bytes, float scale, float* out) {
  const float value[3] = {-scale, 0.0f, scale};
  each(pos, neg, bytes, [=](int64_t i, int t) { out[i] = value[t + 1]; });
}

void add_f32(const uint8_t* pos, const uint8_t* neg, int64_t bytes, float scale, float* sum) {
  each(pos, neg, bytes, [=](int64_t i, int t) {
    if (t != 0) sum[i] += t > 0 ? scale : -scale;  // adding 0 would turn -0 into +0
  });
}

// Unsigned, so that a sum that leaves 64 bits wraps as the vector instructions do.
void add_i64(const uint8_t* pos, const uint8_t* neg, int64_t bytes, int64_t weight, int64_t* sum) {
  const uint64_t w = static_cast<uint64_t>(weight);
  const uint64_t value[3] = {0 - w, 0, w};
  each(pos, neg, bytes, [=](int64_t i, int t) {
    sum[i] = static_cast<int64_t>(static_cast<uint64_t>(sum[i]) + value[t + 1]);
  });
}

}  // namespace

const Tier kScalarTier = {quantize,  dequantize, pack_i8, pack_f32,
                          unpack_i8, unpack_f32, add_f32, add_i64};
