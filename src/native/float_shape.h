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

// What a convolution reads and writes, however it is computed.
class ConvStep : public Step {
 protected:
  explicit ConvStep(const Given& given) : shape_(shape_of(given)), kernels_(*given.variant.floats), threads_(given.threads) {
    given.expect(16, 2, 2, 1, 3);
    input_ = given.read(0, input_bytes(shape_));
    residual_ = given.read(1, output_bytes(shape_), true);
    output_ = given.write(0, output_bytes(shape_));
    low_ = given.number(0), high_ = given.number(1);
  }

  Shape shape_;
  const FloatKernels& kernels_;
  int threads_;
  int64_t input_, residual_, output_;
  float low_, high_;
};

// Convolutions of few channels and a large window; see winograd.cpp.
bool winograd_wins(const Shape& shape);
std::unique_ptr<Step> make_winograd(const Given& given);

}  // namespace edgewright
