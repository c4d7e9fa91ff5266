// What float steps with a window share.
#pragma once

#include "network.h"

namespace edgewright {

constexpr int64_t kLineBytes = 64;  // of the cache

inline int64_t to_line(int64_t bytes) { return divided_up(bytes, kLineBytes) * kLineBytes; }

inline Shape shape_of(const Given& given) {
  Shape s;
  int64_t* const sizes[] = {&s.batch, &s.height, &s.width, &s.channels, &s.filters, &s.kernel_h, &s.kernel_w, &s.stride_h,
                            &s.stride_w, &s.dilation_h, &s.dilation_w, &s.top, &s.left, &s.bottom, &s.right, &s.groups};
  for (size_t i = 0; i < 16; ++i) *sizes[i] = given.size(i, 0);
  s.check_window();
  return s;
}

inline int64_t input_bytes(const Shape& s) { return product(product(s.batch * s.height, s.width), product(s.channels, 4)); }

inline int64_t output_bytes(const Shape& s) { return product(product(s.batch * s.output_h(), s.output_w()), product(s.filters, 4)); }

// Convolutions of few channels and a large window; see winograd.cpp.
bool winograd_wins(const Shape& shape);
std::unique_ptr<Step> make_winograd(const Given& given);

}  // namespace edgewright
