// Kernels for any CPU: bits are counted by shifts and sums, which compilers turn into vector code.
#include <cstring>

#include "common.h"

namespace edgewright {
namespace {

constexpr int kUnits = 1;

// Source: the usual divide and conquer; see Warren, Hacker's Delight, section 5-1.
uint64_t ones(uint64_t v) {
  v -= (v >> 1) & 0x5555555555555555u;
  v = (v & 0x3333333333333333u) + ((v >> 2) & 0x3333333333333333u);
  return (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu;  // one sum for each byte
}

uint64_t bytes_summed(uint64_t v) {
  v = (v & 0x00ff00ff00ff00ffu) + ((v >> 8) & 0x00ff00ff00ff00ffu);
  v = (v & 0x0000ffff0000ffffu) + ((v >> 16) & 0x0000ffff0000ffffu);
  return (v & 0xffffffffu) + (v >> 32);
}

void count(const Tiles& tiles, int64_t tile, uint16_t* counts) {
  constexpr int kMostSums = 31;  // of up to 8, in a byte
  uint64_t total[kBlock] = {}, sums[kBlock] = {};
  const auto* input = static_cast<const uint64_t*>(tiles.inputs[tile * kUnits]);
  const auto* weights = static_cast<const uint64_t*>(tiles.weights);
  int room = kMostSums;
  const auto flush = [&] {
    for (int i = 0; i < kBlock; ++i) total[i] += bytes_summed(sums[i]);
    std::memset(sums, 0, sizeof sums);
    room = kMostSums;
  };
  for (const Run* run = tiles.runs; run != tiles.runs + tiles.run_count; ++run)
    for (int64_t k = 0; k < run->length; ++k, weights += kBlock) {
      const uint64_t bits = input[run->offset + k];
      for (int i = 0; i < kBlock; ++i) sums[i] += ones(bits ^ weights[i]);
      if (--room == 0) flush();
    }
  flush();
  for (int i = 0; i < kBlock; ++i) counts[i] = static_cast<uint16_t>(total[i]);
}

void pack(const Floats& floats, uint64_t* words) { pack_plain(floats, 0, floats.pixels, words); }

}  // namespace

const Variant portable_variant = {"portable", Layout::words, kBlock, kUnits, 1, in_order, count, signs_of<kUnits, count, reached_plain>,
                                  affine_of<kUnits, count, affine_plain>, pack, nullptr, nullptr, &portable_floats};

}  // namespace edgewright
