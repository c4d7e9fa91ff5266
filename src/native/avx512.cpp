// Kernels for AVX-512 with VPOPCNTDQ: eight words are counted by one instruction.
#include <immintrin.h>

#include "common.h"

namespace edgewright {
namespace {

constexpr int kUnits = 2;
constexpr int kLanes = 8;  // filters of a register

void count(const Tile& tile, uint16_t* counts) {
  constexpr int kRegisters = kBlock / kLanes;
  __m512i sums[kUnits][kRegisters];
  for (auto& unit : sums)
    for (__m512i& sum : unit) sum = _mm512_setzero_si512();
  const auto* weights = static_cast<const uint64_t*>(tile.weights);
  const auto* a = static_cast<const uint64_t*>(tile.inputs[0]);
  const auto* b = static_cast<const uint64_t*>(tile.inputs[1]);
  for (const Run* run = tile.runs; run != tile.runs + tile.run_count; ++run)
    for (int64_t k = run->offset; k < run->offset + run->length; ++k, weights += kBlock) {
      const __m512i bits_a = _mm512_set1_epi64(static_cast<int64_t>(a[k])), bits_b = _mm512_set1_epi64(static_cast<int64_t>(b[k]));
      for (int i = 0; i < kRegisters; ++i) {
        const __m512i weight = _mm512_loadu_si512(weights + i * kLanes);
        sums[0][i] = _mm512_add_epi64(sums[0][i], _mm512_popcnt_epi64(_mm512_xor_si512(bits_a, weight)));
        sums[1][i] = _mm512_add_epi64(sums[1][i], _mm512_popcnt_epi64(_mm512_xor_si512(bits_b, weight)));
      }
    }
  for (int unit = 0; unit < kUnits; ++unit)
    for (int i = 0; i < kRegisters; ++i)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(counts + unit * kBlock + i * kLanes), _mm512_maskz_cvtepi64_epi16(0xff, sums[unit][i]));
}

void reached(const uint16_t* counts, int64_t pixels, const uint16_t* limits, uint64_t* words) {
  for (int64_t pixel = 0; pixel < pixels; ++pixel, counts += kBlock) {
    const uint64_t low = _mm512_cmpge_epu16_mask(_mm512_loadu_si512(counts), _mm512_loadu_si512(limits));
    const uint64_t high = _mm512_cmpge_epu16_mask(_mm512_loadu_si512(counts + 32), _mm512_loadu_si512(limits + 32));
    words[pixel] = low | high << 32;
  }
}

uint64_t affine(const uint16_t* counts, int64_t channels, const Affine& how, float* result) {
  return avx2_variant.affine(counts, channels, how, result);
}

void pack(const Floats& floats, uint64_t* words) { avx2_variant.pack(floats, words); }

}  // namespace

const Variant avx512_variant = {"avx512", Layout::words, kBlock, kUnits, 1, count, reached, affine, pack, nullptr, nullptr, &avx512_floats};

}  // namespace edgewright
