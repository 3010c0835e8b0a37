// The choice of instruction set, and what identifies the library.
#include <atomic>

#include "fedft_cpu.h"
#include "tiers.h"

namespace {

int detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const bool bf16 = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi");
  if (!avx2) return FEDFT_TIER_SCALAR;
  if (!avx512) return FEDFT_TIER_AVX2;
  return bf16 ? FEDFT_TIER_AVX512_BF16 : FEDFT_TIER_AVX512;
#else
  return FEDFT_TIER_SCALAR;
#endif
}

const int kBestTier = detect();
std::atomic<int> forced{-1};

int current_tier() {
  const int tier = forced.load(std::memory_order_relaxed);
  return tier < 0 ? kBestTier : tier;
}

}  // namespace

const Tier& tier() {
  switch (current_tier()) {
#if defined(__x86_64__)
    case FEDFT_TIER_AVX512_BF16: return kAvx512Bf16Tier;
    case FEDFT_TIER_AVX512: return kAvx512Tier;
    case FEDFT_TIER_AVX2: return kAvx2Tier;
#endif
    default: return kScalarTier;
  }
}

#ifndef FEDFT_BUILD_ID
#define FEDFT_BUILD_ID ""
#endif

int fedft_abi_version(void) { return FEDFT_ABI_VERSION; }
const char* fedft_build_id(void) { return FEDFT_BUILD_ID; }
int fedft_cpu_tier(void) { return current_tier(); }
int fedft_cpu_best_tier(void) { return kBestTier; }

int fedft_cpu_set_tier(int tier) {
  if (tier < -1 || tier > FEDFT_TIER_AVX512_BF16) return FEDFT_BAD_ARGUMENT;
  if (tier > kBestTier) return FEDFT_UNSUPPORTED;
  forced.store(tier, std::memory_order_relaxed);
  return FEDFT_OK;
}

int fedft_cpu_openmp(void) {
#if defined(_OPENMP)
  return 1;
#else
  return 0;
#endif
}
