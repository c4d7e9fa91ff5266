// The sizes of a convolution, and what follows from them.
#pragma once

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

namespace edgewright {

constexpr int64_t kWordBits = 64;  // channels that share a word

constexpr int64_t divided_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

// Every size, and every product of sizes that is an index, stays below this, so that no sum of two overflows.
constexpr int64_t kMostElements = int64_t{1} << 40;

inline int64_t product(int64_t a, int64_t b) {
  if (a != 0 && b > kMostElements / a) throw std::invalid_argument("sizes multiply to more than 2^40");
  return a * b;
}

// Counts are kept in 16 bits, and the largest one stands for "never".
constexpr int64_t kMostBits = std::numeric_limits<uint16_t>::max() - 1;

struct Shape {
  int64_t batch = 1, height = 1, width = 1, channels = 1;  // input [batch, height, width, channels]
  int64_t filters = 1, kernel_h = 1, kernel_w = 1;         // weights [filters, kernel_h, kernel_w, channels / groups]
  int64_t stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1;
  int64_t top = 0, left = 0, bottom = 0, right = 0;  // rows and columns of padding
  int64_t groups = 1;
  bool pads_minus = false;  // in binary ones padding stands for -1, else for +1

  int64_t group_channels() const { return channels / groups; }
  int64_t group_filters() const { return filters / groups; }
  int64_t group_words() const { return divided_up(group_channels(), kWordBits); }
  int64_t input_words() const { return divided_up(channels, kWordBits); }
  int64_t output_words() const { return divided_up(filters, kWordBits); }
  int64_t output_h() const { return (height + top + bottom - dilation_h * (kernel_h - 1) - 1) / stride_h + 1; }
  int64_t output_w() const { return (width + left + right - dilation_w * (kernel_w - 1) - 1) / stride_w + 1; }
  int64_t bits() const { return kernel_h * kernel_w * group_channels(); }  // of one dot product

  // Throws std::invalid_argument where a size cannot be.
  void check_window() const {
    const int64_t positive[] = {batch,    height,   width,      channels,   filters, kernel_h,
                                kernel_w, stride_h, stride_w, dilation_h, dilation_w, groups};
    for (int64_t size : positive)
      if (size < 1 || size > (int64_t{1} << 24)) throw std::invalid_argument("sizes lie within 1 and 2^24");
    for (int64_t size : {top, left, bottom, right})
      if (size < 0 || size > (int64_t{1} << 24)) throw std::invalid_argument("padding lies within 0 and 2^24");
    if (channels % groups || filters % groups) throw std::invalid_argument("groups do not divide the channels");
    if (height + top + bottom <= product(dilation_h, kernel_h - 1) || width + left + right <= product(dilation_w, kernel_w - 1))
      throw std::invalid_argument("the window is larger than the padded input");
    product(product(product(batch, height), width), channels);
    product(product(height + top + bottom, width + left + right), channels);
    product(product(product(batch, output_h()), output_w()), filters);
    product(product(product(filters, kernel_h), kernel_w), group_channels());
  }

  // The same for a binary convolution, whose tensors have whole words.
  void check() const {
    check_window();
    product(product(product(batch, height), width), input_words() * kWordBits);
    product(product(height + top + bottom, width + left + right), group_words() * kWordBits);
    product(product(product(batch, output_h()), output_w()), output_words() * kWordBits);
    product(product(product(filters, kernel_h), kernel_w), group_words() * kWordBits);
    if (product(product(kernel_h, kernel_w), group_channels()) > kMostBits)
      throw std::invalid_argument("a dot product has more than " + std::to_string(kMostBits) + " bits");
  }
};

}  // namespace edgewright
