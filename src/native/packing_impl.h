// Packing of floats, written once. Before this file is included, these are defined for the instruction set:
//
//   kStrip          pixels that are packed at once
//   bytes_of_eight  the signs of a strip in up to eight channels from `channel` on: byte i has the bits of pixel i
//   transpose       the words of a strip, words[kStrip][per_pixel], from the bytes of eight times eight channels, `step` apart
//   pack_last       channels are contiguous
//   pack_few        fewer pixels than a strip has, contiguous
//
// Everything has internal linkage, as in common.h.
#pragma once

#include "common.h"

namespace edgewright {
namespace {

constexpr int64_t kMany = 256;  // pixels that each plane is read for before the next one
static_assert(kMany % kStrip == 0, "whole strips");

// The words of `pixels`, a multiple of kStrip up to kMany, from pixel `first` on.
void pack_strips(const Floats& floats, int64_t first, int64_t pixels, uint64_t* words) {
  const int64_t per_pixel = divided_up(floats.channels, kWordBits);
  alignas(64) uint8_t bytes[8 * kMany];
  for (int64_t word = 0; word < per_pixel; ++word) {
    for (int64_t i = 0; i < 8; ++i)
      for (int64_t pixel = 0; pixel < pixels; pixel += kStrip)
        bytes_of_eight(floats, first + pixel, word * kWordBits + i * 8, bytes + i * kMany + pixel);
    for (int64_t pixel = 0; pixel < pixels; pixel += kStrip)
      transpose(bytes + pixel, kMany, per_pixel, words + (first + pixel) * per_pixel + word);
  }
}

// Pixels are contiguous: planes are compared a register at a time, each for many pixels, and their bytes transposed.
void pack_first(const Floats& floats, uint64_t* words) {
  if (floats.pixels < kStrip) return pack_few(floats, words);
  const int64_t strips = floats.pixels / kStrip * kStrip;
  for (int64_t first = 0; first < strips; first += kMany) pack_strips(floats, first, std::min(kMany, strips - first), words);
  if (strips < floats.pixels) pack_strips(floats, floats.pixels - kStrip, kStrip, words);  // some of them once more
}

void pack(const Floats& floats, uint64_t* words) {
  if (floats.channel_step == 1) return pack_last(floats, words);
  if (floats.pixel_step == 1) return pack_first(floats, words);
  pack_plain(floats, 0, floats.pixels, words);
}

}  // namespace
}  // namespace edgewright
