// Kernels in plain C++ that each variant compiles for its own instructions.
//
// Everything has internal linkage: were these inline functions shared, the linker could keep the copy with AVX2
// instructions and call it on a CPU that has none.
#pragma once

#include <algorithm>
#include <cstdint>

#include "shape.h"
#include "variant.h"

namespace edgewright {
namespace {

// Channels from `first` on of what Affine says, as a function of the count.
[[maybe_unused]] uint64_t affine_rest(const Affine& how, const uint16_t* counts, int64_t first, const AffinePixel& pixel) {
  uint64_t below = 0;
  for (int64_t i = first; i < how.channels; ++i) {
    float y = static_cast<float>(static_cast<int32_t>(how.bits) - 2 * static_cast<int32_t>(counts[i])) * how.scale[i] + how.shift[i];
    if (pixel.residual) y += pixel.residual[i];
    if (how.slope && y < 0) y *= how.slope[i];
    pixel.results[i] = y = std::min(std::max(y, how.low), how.high);
    below |= static_cast<uint64_t>(y < (how.thresholds ? how.thresholds[i] : 0.0f)) << i;
  }
  return below;
}

[[maybe_unused]] uint64_t affine_plain(const Affine& how, const uint16_t* counts, const AffinePixel& pixel) {
  return affine_rest(how, counts, 0, pixel);
}

[[maybe_unused]] uint64_t reached_plain(const uint16_t* counts, const uint16_t* limits) {
  uint64_t bits = 0;
  for (int i = 0; i < kBlock; ++i) bits |= static_cast<uint64_t>(counts[i] >= limits[i]) << i;
  return bits;
}

using Count = void(const Tiles&, int64_t, uint16_t*);

// A variant's signs and floats where counts go through memory: from what counts a tile and what finishes one pixel.
template <int pixels, Count* count, uint64_t (*reached)(const uint16_t*, const uint16_t*)>
void signs_of(const Tiles& tiles, const uint16_t* limits, uint64_t* words) {
  alignas(64) uint16_t counts[pixels * kBlock] = {};  // a block may have fewer filters
  for (int64_t tile = 0; tile < tiles.count; ++tile) {
    count(tiles, tile, counts);
    for (int i = 0; i < pixels; ++i) *words++ = reached(counts + i * kBlock, limits);
  }
}

template <int pixels, Count* count, uint64_t (*affine)(const Affine&, const uint16_t*, const AffinePixel&)>
void affine_of(const Tiles& tiles, const Affine& how, AffinePixel* pixel) {
  alignas(64) uint16_t counts[pixels * kBlock] = {};
  for (int64_t tile = 0; tile < tiles.count; ++tile) {
    count(tiles, tile, counts);
    for (int i = 0; i < pixels; ++i, ++pixel)
      if (pixel->results) pixel->signs = affine(how, counts + i * kBlock, *pixel);
  }
}

// Where filters stand that are in order.
[[maybe_unused]] int in_order(int filter) { return filter; }

// The words of `floats` from pixel `first` on, `last` not included.
[[maybe_unused]] void pack_plain(const Floats& floats, int64_t first, int64_t last, uint64_t* words) {
  const int64_t per_pixel = divided_up(floats.channels, kWordBits);
  for (int64_t pixel = first; pixel < last; ++pixel)
    for (int64_t word = 0; word < per_pixel; ++word) {
      const int64_t start = word * kWordBits, end = std::min(floats.channels, start + kWordBits);
      uint64_t bits = 0;
      for (int64_t c = start; c < end; ++c) {
        const float value = floats.data[pixel * floats.pixel_step + c * floats.channel_step];
        bits |= static_cast<uint64_t>(value < (floats.thresholds ? floats.thresholds[c] : 0.0f)) << (c - start);
      }
      words[pixel * per_pixel + word] = bits;
    }
}

}  // namespace
}  // namespace edgewright
