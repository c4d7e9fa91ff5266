// Kernels for AArch64: `cnt` counts the bits of each byte.
#include <arm_neon.h>

#include "common.h"

namespace edgewright {
namespace {

constexpr int kUnits = 4;
constexpr int kFilters = 8;    // that are counted together
constexpr int kMostSums = 31;  // of up to 8, in a byte

// The sums of the eight bytes of each word.
inline uint64x2_t words_of(uint8x16_t bytes) { return vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(bytes))); }

void count_filters(const Tiles& tiles, int64_t tile, const uint64_t* weights, uint16_t* counts) {
  constexpr int kRegisters = kFilters / 2;
  uint8x16_t sums[kUnits][kRegisters];
  uint64x2_t totals[kUnits][kRegisters];
  for (int unit = 0; unit < kUnits; ++unit)
    for (int i = 0; i < kRegisters; ++i) sums[unit][i] = vdupq_n_u8(0), totals[unit][i] = vdupq_n_u64(0);
  const auto flush = [&] {
    for (int unit = 0; unit < kUnits; ++unit)
      for (int i = 0; i < kRegisters; ++i) {
        totals[unit][i] = vaddq_u64(totals[unit][i], words_of(sums[unit][i]));
        sums[unit][i] = vdupq_n_u8(0);
      }
  };
  int room = kMostSums;
  for (const Run* run = tiles.runs; run != tiles.runs + tiles.run_count; ++run)
    for (int64_t k = run->offset; k < run->offset + run->length; ++k, weights += kBlock) {
      for (int unit = 0; unit < kUnits; ++unit) {
        const uint64x2_t bits = vdupq_n_u64(static_cast<const uint64_t*>(tiles.inputs[tile * kUnits + unit])[k]);
        for (int i = 0; i < kRegisters; ++i) {
          const uint64x2_t differ = veorq_u64(bits, vld1q_u64(weights + 2 * i));
          sums[unit][i] = vaddq_u8(sums[unit][i], vcntq_u8(vreinterpretq_u8_u64(differ)));
        }
      }
      if (--room == 0) {
        flush();
        room = kMostSums;
      }
    }
  flush();
  for (int unit = 0; unit < kUnits; ++unit)
    for (int i = 0; i < kRegisters; i += 2) {
      const uint32x4_t four = vcombine_u32(vmovn_u64(totals[unit][i]), vmovn_u64(totals[unit][i + 1]));
      vst1_u16(counts + unit * kBlock + 2 * i, vmovn_u32(four));
    }
}

void count(const Tiles& tiles, int64_t tile, uint16_t* counts) {
  for (int first = 0; first < kBlock; first += kFilters)
    count_filters(tiles, tile, static_cast<const uint64_t*>(tiles.weights) + first, counts + first);
}

uint64_t reached(const uint16_t* counts, const uint16_t* limits) {
  static const uint8_t kBits[8] = {1, 2, 4, 8, 16, 32, 64, 128};
  uint64_t bits = 0;
  for (int i = 0; i < kBlock; i += 8) {
    const uint8x8_t found = vmovn_u16(vcgeq_u16(vld1q_u16(counts + i), vld1q_u16(limits + i)));
    bits |= static_cast<uint64_t>(vaddv_u8(vand_u8(found, vld1_u8(kBits)))) << i;
  }
  return bits;
}

// Channels are contiguous: eight comparisons make a byte.
void pack_last(const Floats& floats, uint64_t* words) {
  static const uint16_t kBits[8] = {1, 2, 4, 8, 16, 32, 64, 128};
  for (int64_t pixel = 0; pixel < floats.pixels; ++pixel)
    for (int64_t start = 0; start < floats.channels; start += kWordBits, ++words) {
      const float* data = floats.data + pixel * floats.pixel_step + start;
      const float* thresholds = floats.thresholds ? floats.thresholds + start : nullptr;
      const int64_t channels = std::min(floats.channels - start, kWordBits);
      uint64_t bits = 0;
      int64_t c = 0;
      for (; c + 8 <= channels; c += 8) {
        const float32x4_t zero = vdupq_n_f32(0);
        const uint32x4_t low = vcltq_f32(vld1q_f32(data + c), thresholds ? vld1q_f32(thresholds + c) : zero);
        const uint32x4_t high = vcltq_f32(vld1q_f32(data + c + 4), thresholds ? vld1q_f32(thresholds + c + 4) : zero);
        const uint16x8_t both = vcombine_u16(vmovn_u32(low), vmovn_u32(high));
        bits |= static_cast<uint64_t>(vaddvq_u16(vandq_u16(both, vld1q_u16(kBits)))) << c;
      }
      for (; c < channels; ++c) bits |= static_cast<uint64_t>(data[c] < (thresholds ? thresholds[c] : 0.0f)) << c;
      *words = bits;
    }
}

void pack(const Floats& floats, uint64_t* words) {
  if (floats.channel_step == 1) return pack_last(floats, words);
  pack_plain(floats, 0, floats.pixels, words);
}

}  // namespace

const Variant neon_variant = {"neon", Layout::words, kBlock, kUnits, 1, in_order, count, signs_of<kUnits, count, reached>,
                              affine_of<kUnits, count, affine_plain>, pack, nullptr, nullptr, &neon_floats};

}  // namespace edgewright
