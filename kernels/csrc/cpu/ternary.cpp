// Ternary bit planes: arguments, tiles, and the last partial byte.
#include "fedft_cpu.h"
#include "tiers.h"

namespace {

// The bits of a plane's last byte that belong to a vector of n.
uint8_t keep(int64_t n) { return static_cast<uint8_t>(n % 8 == 0 ? 0xff : (1 << (n % 8)) - 1); }

}  // namespace

int fedft_ternary_pack(const void* x, int is_float, int64_t n, uint8_t* pos, uint8_t* neg) {
  if (n < 0 || (n > 0 && (!x || !pos || !neg))) return FEDFT_BAD_ARGUMENT;
  const int64_t bytes = n / 8, rest = n % 8;
  if (is_float)
    tier().pack_f32(static_cast<const float*>(x), bytes, pos, neg);
  else
    tier().pack_i8(static_cast<const int8_t*>(x), bytes, pos, neg);
  if (rest == 0) return FEDFT_OK;
  float last[8] = {};
  for (int64_t i = 0; i < rest; ++i)
    last[i] = is_float ? static_cast<const float*>(x)[bytes * 8 + i] : static_cast<const int8_t*>(x)[bytes * 8 + i];
  kScalarTier.pack_f32(last, 1, pos + bytes, neg + bytes);
  return FEDFT_OK;
}

int fedft_ternary_unpack_i8(const uint8_t* pos, const uint8_t* neg, int64_t n, int8_t* out) {
  if (n < 0 || (n > 0 && (!pos || !neg || !out))) return FEDFT_BAD_ARGUMENT;
  const int64_t bytes = n / 8;
  tier().unpack_i8(pos, neg, bytes, out);
  int8_t last[8];
  if (n % 8) kScalarTier.unpack_i8(pos + bytes, neg + bytes, 1, last);
  for (int64_t i = 0; i < n % 8; ++i) out[bytes * 8 + i] = last[i];
  return FEDFT_OK;
}

int fedft_ternary_unpack_f32(const uint8_t* pos, const uint8_t* neg, int64_t n, float scale, float* out) {
  if (n < 0 || (n > 0 && (!pos || !neg || !out))) return FEDFT_BAD_ARGUMENT;
  const int64_t bytes = n / 8;
  tier().unpack_f32(pos, neg, bytes, scale, out);
  float last[8];
  if (n % 8) kScalarTier.unpack_f32(pos + bytes, neg + bytes, 1, scale, last);
  for (int64_t i = 0; i < n % 8; ++i) out[bytes * 8 + i] = last[i];
  return FEDFT_OK;
}

int fedft_ternary_add_f32(const uint8_t* pos, const uint8_t* neg, int64_t n, float scale, float* sum) {
  if (n < 0 || (n > 0 && (!pos || !neg || !sum))) return FEDFT_BAD_ARGUMENT;
  const int64_t bytes = n / 8;
  tier().add_f32(pos, neg, bytes, scale, sum);
  float last[8] = {};
  for (int64_t i = 0; i < n % 8; ++i) last[i] = sum[bytes * 8 + i];
  if (n % 8) kScalarTier.add_f32(pos + bytes, neg + bytes, 1, scale, last);
  for (int64_t i = 0; i < n % 8; ++i) sum[bytes * 8 + i] = last[i];
  return FEDFT_OK;
}

int fedft_ternary_accumulate(const uint8_t* pos, const uint8_t* neg, int64_t clients, int64_t n,
                             const int64_t* weights, int64_t* sum) {
  if (n < 0 || clients < 0 || (n > 0 && clients > 0 && (!pos || !neg || !weights || !sum))) return FEDFT_BAD_ARGUMENT;
  constexpr int64_t kTile = 512;  // plane bytes: 4096 sums of 8 bytes stay in the first-level cache
  const int64_t stride = ceil_div(n, 8), bytes = n / 8;
  for (int64_t start = 0; start < bytes; start += kTile) {
    const int64_t size = bytes - start < kTile ? bytes - start : kTile;
    for (int64_t c = 0; c < clients; ++c)
      tier().add_i64(pos + c * stride + start, neg + c * stride + start, size, weights[c], sum + start * 8);
  }
  if (n % 8 == 0) return FEDFT_OK;
  int64_t last[8] = {};
  for (int64_t i = 0; i < n % 8; ++i) last[i] = sum[bytes * 8 + i];
  for (int64_t c = 0; c < clients; ++c) {
    const uint8_t p = pos[c * stride + bytes] & keep(n), m = neg[c * stride + bytes] & keep(n);
    kScalarTier.add_i64(&p, &m, 1, weights[c], last);
  }
  for (int64_t i = 0; i < n % 8; ++i) sum[bytes * 8 + i] = last[i];
  return FEDFT_OK;
}
