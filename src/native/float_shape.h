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

// Calls `tap(number, y, x)` for the inputs of a window at an output pixel; number is its place in the window.
template <class Tap>
void each_tap(const Shape& s, int64_t y, int64_t x, Tap&& tap) {
  for (int64_t i = 0; i < s.kernel_h; ++i) {
    const int64_t row = y * s.stride_h - s.top + i * s.dilation_h;
    if (row < 0 || row >= s.height) continue;
    for (int64_t j = 0; j < s.kernel_w; ++j) {
      const int64_t column = x * s.stride_w - s.left + j * s.dilation_w;
      if (column >= 0 && column < s.width) tap(i * s.kernel_w + j, row, column);
    }
  }
}

// Rows of one image's outputs, the last one not included.
struct Rows {
  int64_t first, last;
  const float* residual;  // from the first row on, or null
  float* output;          // the same
};

// What one thread does of an image: some rows, and then others below them.
struct Band {
  const float* image;
  uint8_t* workspace;
  int thread;
  int64_t known = 0;  // rows of the input above this one need not be looked at again
};

// A convolution of one image, however it is computed: its steps know where tensors lie.
class Convolution {
 public:
  explicit Convolution(const Given& given)
      : shape_(shape_of(given)), kernels_(*given.variant.floats), threads_(given.threads), low_(given.number(0)), high_(given.number(1)) {}
  virtual ~Convolution() = default;

  const Shape& shape() const { return shape_; }
  // Whole cache lines; the same workspace goes to all calls for an image.
  virtual int64_t workspace_bytes() const = 0;
  // What the image's rows have in common, where there is something; the threads share it out.
  virtual void prepare(const float*, uint8_t*, Pool&) const {}
  // All rows after that, shared out as suits them, or some of a band.
  virtual void run(const float* image, const Rows& all, uint8_t* workspace, Pool& pool) const = 0;
  virtual void run_some(Band& band, const Rows& rows) const = 0;

 protected:
  Shape shape_;
  const FloatKernels& kernels_;
  int threads_;
  float low_, high_;
};

std::unique_ptr<Convolution> make_convolution(const Given& given);

// Those of few channels and a large window; see winograd.cpp.
bool winograd_wins(const Shape& shape);
std::unique_ptr<Convolution> make_winograd(const Given& given);

}  // namespace edgewright
