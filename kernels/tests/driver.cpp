// Calls every function of the CPU library on buffers of exactly the promised sizes, for every instruction
// set and many lengths, and compares the tiers. Made to run under the sanitizers: a read or write beyond a
// buffer, a misaligned access or an overflow ends it.
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <functional>
#include <random>
#include <vector>

#include "fedft_cpu.h"

namespace {

using Bytes = std::vector<uint8_t>;

int failures = 0;

void expect(bool ok, const char* what, int64_t n, int tier) {
  if (ok) return;
  ++failures;
  fprintf(stderr, "%s differs: n=%lld tier=%d\n", what, static_cast<long long>(n), tier);
}

// A buffer of exactly `size` bytes that begins `shift` bytes after an allocation does.
struct Buffer {
  explicit Buffer(size_t size, size_t shift = 0) : bytes(size + shift), shift(shift) {}
  uint8_t* at() { return bytes.data() + shift; }
  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(at());
  }
  Bytes content() { return Bytes(bytes.begin() + static_cast<int64_t>(shift), bytes.end()); }
  Bytes bytes;
  size_t shift;
};

std::mt19937_64 random_bits(7);

Buffer random_weights(int64_t n, int dtype, size_t shift) {
  Buffer w(static_cast<size_t>(n) * (dtype == FEDFT_F32 ? 4 : 2), shift);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  for (int64_t i = 0; i < n; ++i) {
    const float x = i / 64 == 1 ? 0.0f : normal(random_bits);
    uint32_t b;
    memcpy(&b, &x, 4);
    if (dtype == FEDFT_F32)
      memcpy(w.at() + 4 * i, &x, 4);
    else if (dtype == FEDFT_BF16)
      memcpy(w.at() + 2 * i, reinterpret_cast<char*>(&b) + 2, 2);
    else
      memset(w.at() + 2 * i, static_cast<int>(random_bits() & 0x3b), 2);  // finite halves
  }
  return w;
}

// Everything the library makes of one input, as bytes.
std::vector<Bytes> nf4(Buffer& w, int dtype, int64_t n, size_t shift, int tier) {
  const int64_t blocks = (n + 63) / 64, nested = (blocks + 255) / 256;
  Buffer q(static_cast<size_t>((n + 1) / 2), shift), absmax(static_cast<size_t>(blocks) * 4),
      q8(static_cast<size_t>(blocks), shift), absmax2(static_cast<size_t>(nested) * 4), code(1024);
  for (int i = 0; i < 256; ++i) code.as<float>()[i] = static_cast<float>(i - 127) / 128.0f;
  float offset = 0.0f;
  expect(fedft_nf4_quantize(w.at(), dtype, n, q.at(), absmax.as<float>(), 2) == FEDFT_OK, "quantize", n, tier);
  expect(fedft_nf4_nest(absmax.as<float>(), blocks, code.as<float>(), q8.at(), absmax2.as<float>(), &offset, 2) ==
             FEDFT_OK,
         "nest", n, tier);
  std::vector<Bytes> results = {q.content(), absmax.content(), q8.content(), absmax2.content()};
  for (int out = 0; out < 3; ++out) {
    Buffer flat(static_cast<size_t>(n) * (out == 0 ? 4 : 2)), twice(static_cast<size_t>(n) * (out == 0 ? 4 : 2), shift);
    expect(!fedft_nf4_dequantize(q.at(), nullptr, nullptr, absmax.as<float>(), 0.0f, n, flat.at(), out, 2),
           "dequantize", n, tier);
    expect(!fedft_nf4_dequantize(q.at(), q8.at(), code.as<float>(), absmax2.as<float>(), offset, n, twice.at(), out, 1),
           "dequantize nested", n, tier);
    results.push_back(flat.content());
    results.push_back(twice.content());
  }
  return results;
}

std::vector<Bytes> ternary(const std::vector<int8_t>& t, int tier) {
  const int64_t n = static_cast<int64_t>(t.size());
  const size_t plane = static_cast<size_t>((n + 7) / 8), count = t.size();
  Buffer x(count), pos(2 * plane), neg(2 * plane), back(count), floats(4 * count), sum(4 * count), total(8 * count);
  if (n > 0) memcpy(x.at(), t.data(), count);
  expect(!fedft_ternary_pack(x.at(), 0, n, pos.at(), neg.at()), "pack", n, tier);
  expect(!fedft_ternary_unpack_i8(pos.at(), neg.at(), n, back.as<int8_t>()), "unpack", n, tier);
  expect(back.content() == x.content(), "pack and unpack", n, tier);
  expect(!fedft_ternary_unpack_f32(pos.at(), neg.at(), n, 0.3f, floats.as<float>()), "unpack", n, tier);
  expect(!fedft_ternary_pack(floats.at(), 1, n, pos.at() + plane, neg.at() + plane), "pack floats", n, tier);
  expect(!fedft_ternary_add_f32(pos.at(), neg.at(), n, 0.7f, sum.as<float>()), "add", n, tier);
  const int64_t weights[2] = {INT64_MAX / 2, -12345};
  expect(!fedft_ternary_accumulate(pos.at(), neg.at(), 2, n, weights, total.as<int64_t>()), "accumulate", n, tier);
  return {pos.content(), neg.content(), floats.content(), sum.content(), total.content()};
}

void for_each_tier(int64_t n, const char* what, const std::function<std::vector<Bytes>(int)>& run) {
  std::vector<Bytes> first;
  for (int tier = 0; tier <= fedft_cpu_best_tier(); ++tier) {
    expect(fedft_cpu_set_tier(tier) == FEDFT_OK, "set_tier", n, tier);
    const std::vector<Bytes> now = run(tier);
    if (tier == 0) first = now;
    expect(now == first, what, n, tier);
  }
}

void refusals() {
  float x = 1.0f;
  uint8_t q = 0;
  expect(fedft_nf4_quantize(nullptr, 0, 1, &q, &x, 1) == FEDFT_BAD_ARGUMENT, "null", 1, -1);
  expect(fedft_nf4_quantize(&x, 9, 1, &q, &x, 1) == FEDFT_BAD_ARGUMENT, "dtype", 1, -1);
  expect(fedft_nf4_quantize(&x, 0, -1, &q, &x, 1) == FEDFT_BAD_ARGUMENT, "length", 1, -1);
  expect(fedft_nf4_dequantize(&q, &q, nullptr, &x, 0, 1, &x, 0, 1) == FEDFT_BAD_ARGUMENT, "no code", 1, -1);
  expect(fedft_cpu_set_tier(4) == FEDFT_BAD_ARGUMENT, "tier", 1, -1);
  const uint32_t infinity = 0x7f800000;
  expect(fedft_nf4_quantize(&infinity, 0, 1, &q, &x, 1) == FEDFT_NOT_FINITE, "infinity", 1, -1);
}

}  // namespace

int main() {
  refusals();
  for (int64_t n : {0, 1, 2, 3, 63, 64, 65, 100, 127, 128, 1000, 16383, 16384, 16385, 16384 * 2 + 65})
    for (int dtype = 0; dtype < 3; ++dtype)
      for (size_t shift : {size_t{0}, size_t{4}}) {
        Buffer w = random_weights(n, dtype, shift);
        for_each_tier(n, "nf4", [&](int tier) { return nf4(w, dtype, n, shift, tier); });
      }
  for (int64_t n = 0; n < 200; ++n) {
    std::vector<int8_t> t(static_cast<size_t>(n));
    for (int8_t& each : t) each = static_cast<int8_t>(static_cast<int>(random_bits() % 3) - 1);
    for_each_tier(n, "ternary", [&](int tier) { return ternary(t, tier); });
  }
  printf("%d failures, tiers 0 to %d, sources %s\n", failures, fedft_cpu_best_tier(), fedft_build_id());
  return failures != 0;
}
