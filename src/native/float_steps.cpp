// Steps on floats that have weights or windows: convolutions, pools, and what is done by channel.
#include <algorithm>

#include "float_shape.h"

namespace edgewright {
namespace {

class ConvStep : public Step {
 public:
  explicit ConvStep(const Given& given) : conv_(make_convolution(given)) {
    given.expect(16, 2, 2, 1, 3);
    const Shape& s = conv_->shape();
    input_ = given.read(0, input_bytes(s));
    residual_ = given.read(1, output_bytes(s), true);
    output_ = given.write(0, output_bytes(s));
  }

  int64_t workspace_bytes() const override { return conv_->workspace_bytes(); }

  void run(const Memory& memory) const override {
    const Shape& s = conv_->shape();
    const int64_t floats = s.height * s.width * s.channels, made = s.output_h() * s.output_w() * s.filters;
    for (int64_t image = 0; image < s.batch; ++image) {
      const float* input = at<float>(memory, input_) + image * floats;
      const float* residual = residual_ < 0 ? nullptr : at<float>(memory, residual_) + image * made;
      conv_->prepare(input, memory.workspace, memory.pool);
      conv_->run(input, {0, s.output_h(), residual, at<float>(memory, output_) + image * made}, memory.workspace, memory.pool);
    }
  }

 private:
  std::unique_ptr<Convolution> conv_;
  int64_t input_, residual_, output_;
};

// Rows of outputs that have a window for each channel. Whoever computes one has a table for the taps.
class Windows {
 public:
  explicit Windows(const Shape& shape) : shape_(shape), taps_(product(shape.kernel_h, shape.kernel_w)) {}

  const Shape& shape() const { return shape_; }
  int64_t taps() const { return taps_; }
  int64_t table_bytes() const { return to_line(taps_ * 16); }

  // Calls `call(window, place)` for the outputs of row y, as many at once as have the same taps, place being where the first one
  // lies in the row. Of the input `kept` rows are there, in turn: row i is the one of number i % kept.
  template <class Call>
  void each(const float* input, int64_t kept, int64_t y, uint8_t* table, Call&& call) const {
    const Shape& s = shape_;
    auto* inputs = reinterpret_cast<const float**>(table);
    auto* numbers = reinterpret_cast<int64_t*>(inputs + taps_);
    Window window = {1, s.stride_w * s.channels, inputs, numbers, 0, s.channels, nullptr, nullptr, nullptr, {}};
    for (int64_t x = 0; x < s.output_w(); x += window.count) {
      window.taps = 0;
      each_tap(s, y, x, [&](int64_t number, int64_t row, int64_t column) {
        inputs[window.taps] = input + (row % kept * s.width + column) * s.channels;
        numbers[window.taps++] = number;
      });
      window.count = 1;
      while (inside(x) && x + window.count < s.output_w() && inside(x + window.count)) ++window.count;
      call(window, x * s.channels);
    }
  }

 private:
  // Whether all columns of an output's window lie inside the input.
  bool inside(int64_t x) const {
    const int64_t first = x * shape_.stride_w - shape_.left;
    return first >= 0 && first + (shape_.kernel_w - 1) * shape_.dilation_w < shape_.width;
  }

  Shape shape_;
  int64_t taps_;
};

// What steps with a window for each channel share: a thread takes rows of outputs.
class WindowStep : public Step {
 public:
  explicit WindowStep(const Given& given) : windows_(shape_of(given)), kernels_(*given.variant.floats), threads_(given.threads) {
    input_ = given.read(0, input_bytes(windows_.shape()));
    output_ = given.write(0, output_bytes(windows_.shape()));
  }

  int64_t workspace_bytes() const override { return threads_ * windows_.table_bytes(); }

 protected:
  template <class Call>
  void each_window(const Memory& memory, Call&& call) const {
    const Shape& s = windows_.shape();
    memory.pool.run(s.batch * s.output_h(), [&](int64_t row, int thread) {
      const float* image = at<float>(memory, input_) + row / s.output_h() * s.height * s.width * s.channels;
      const int64_t first = row * s.output_w() * s.channels;
      windows_.each(image, s.height, row % s.output_h(), memory.workspace + thread * windows_.table_bytes(), [&](Window& window, int64_t place) {
        window.output = at<float>(memory, output_) + first + place;
        call(window, first + place);
      });
    });
  }

  Windows windows_;
  const FloatKernels& kernels_;
  int threads_;
  int64_t input_, output_;
};

class Depthwise : public WindowStep {
 public:
  explicit Depthwise(const Given& given) : WindowStep(given) {
    given.expect(16, 2, 2, 1, 3);
    const Shape& s = windows_.shape();
    const int64_t taps = windows_.taps();
    if (s.groups != s.channels || s.filters != s.channels) throw std::invalid_argument("each channel has a filter of its own");
    residual_ = given.read(1, output_bytes(s), true);
    low_ = given.number(0), high_ = given.number(1);
    const std::vector<float> weights = given.constant<float>(0, product(s.channels, taps));
    weights_.resize(weights.size());
    for (int64_t c = 0; c < s.channels; ++c)
      for (int64_t i = 0; i < taps; ++i) weights_[static_cast<size_t>(i * s.channels + c)] = weights[static_cast<size_t>(c * taps + i)];
    shift_ = given.constant<float>(1, s.filters, true);
    slope_ = given.constant<float>(2, s.filters, true);
  }

  void run(const Memory& memory) const override {
    const Finish finish = {nullptr, shift_.empty() ? nullptr : shift_.data(), slope_.empty() ? nullptr : slope_.data(), low_, high_};
    each_window(memory, [&](Window& window, int64_t to) {
      window.weights = weights_.data();
      window.finish = finish;
      if (residual_ >= 0) window.residual = at<float>(memory, residual_) + to;
      kernels_.depthwise(window);
    });
  }

 private:
  int64_t residual_;
  float low_, high_;
  std::vector<float> weights_, shift_, slope_;
};

enum Pooling { kLargest = 0, kMean = 1, kMeanOfAll = 2 };  // the last one counts padding as zeros

class PoolStep : public WindowStep {
 public:
  explicit PoolStep(const Given& given) : WindowStep(given), pooling_(given.size(16, 0, 2)) {
    given.expect(17, 0, 1, 1, 0);
    if (windows_.shape().filters != windows_.shape().channels) throw std::invalid_argument("a pool makes as many channels as it reads");
  }

  void run(const Memory& memory) const override {
    each_window(memory, [&](const Window& window, int64_t) {
      if (pooling_ == kLargest) return kernels_.largest(window);
      const int64_t count = pooling_ == kMeanOfAll ? windows_.taps() : std::max<int64_t>(window.taps, 1);
      kernels_.summed(window, 1.0f / static_cast<float>(count));
    });
  }

 private:
  int64_t pooling_;
};

// A convolution whose only reader is a pool of largest values. Rows of it are pooled as soon as they are there, and then forgotten:
// the few that are kept stay in the caches, where the whole tensor would not.
class ConvPool : public Step {
 public:
  explicit ConvPool(const Given& given)
      : conv_(make_convolution(given)), windows_(pool_of(given, conv_->shape())), kernels_(*given.variant.floats), threads_(given.threads) {
    given.expect(24, 2, 1, 1, 3);
    const Shape &s = conv_->shape(), &p = windows_.shape();
    input_ = given.read(0, input_bytes(s));
    output_ = given.write(0, output_bytes(p));
    kept_ = divided_up(std::min(p.height, p.kernel_h + kTogether - 1), kTogether) * kTogether;
    kept_bytes_ = to_line(product(kept_, product(p.width, p.channels * 4)));
  }

  int64_t workspace_bytes() const override { return conv_->workspace_bytes() + threads_ * (kept_bytes_ + windows_.table_bytes()); }

  void run(const Memory& memory) const override {
    const Shape &s = conv_->shape(), &p = windows_.shape();
    // A band's first rows are its neighbour's last ones, computed twice: so there are no more bands than threads.
    const int64_t bands = std::min<int64_t>(p.output_h(), memory.pool.threads());
    for (int64_t image = 0; image < s.batch; ++image) {
      const float* input = at<float>(memory, input_) + image * s.height * s.width * s.channels;
      float* output = at<float>(memory, output_) + image * p.output_h() * p.output_w() * p.channels;
      conv_->prepare(input, memory.workspace, memory.pool);
      memory.pool.run(bands, [&](int64_t band, int thread) {
        run_band({input, memory.workspace, thread}, {p.output_h() * band / bands, p.output_h() * (band + 1) / bands, nullptr, output});
      });
    }
  }

 private:
  static constexpr int64_t kTogether = 3;  // rows of the convolution: tiles of winograd.cpp are that high

  static Shape pool_of(const Given& given, const Shape& conv) {
    Shape p;
    p.batch = conv.batch, p.height = conv.output_h(), p.width = conv.output_w(), p.channels = p.filters = conv.filters;
    int64_t* const sizes[] = {&p.kernel_h, &p.kernel_w, &p.stride_h, &p.stride_w, &p.top, &p.left, &p.bottom, &p.right};
    for (size_t i = 0; i < 8; ++i) *sizes[i] = given.size(16 + i, 0);
    p.check_window();
    return p;
  }

  // Rows of the pool; its windows are all that says which of the convolution's are needed.
  void run_band(Band band, const Rows& rows) const {
    const Shape& p = windows_.shape();
    uint8_t* own = band.workspace + conv_->workspace_bytes() + band.thread * (kept_bytes_ + windows_.table_bytes());
    float* kept = reinterpret_cast<float*>(own);
    int64_t next = 0;  // row of the convolution
    for (int64_t y = rows.first; y < rows.last; ++y) {
      const int64_t first = std::max<int64_t>(0, y * p.stride_h - p.top), last = std::min(p.height, y * p.stride_h - p.top + p.kernel_h);
      for (next = std::max(next, first / kTogether * kTogether); next < last; next += kTogether)
        conv_->run_some(band, {next, std::min(p.height, next + kTogether), nullptr, kept + next % kept_ * p.width * p.channels});
      windows_.each(kept, kept_, y, own + kept_bytes_, [&](Window& window, int64_t place) {
        window.output = rows.output + y * p.output_w() * p.channels + place;
        kernels_.largest(window);
      });
    }
  }

  std::unique_ptr<Convolution> conv_;
  Windows windows_;
  const FloatKernels& kernels_;
  int threads_;
  int64_t input_, output_, kept_, kept_bytes_;
};

// limit(slope(x * scale + shift + residual)) by channel; the scale may be a tensor, one for each image.
class Pointwise : public Step {
 public:
  explicit Pointwise(const Given& given) : kernels_(*given.variant.floats) {
    given.expect(3, 2, 3, 1, 3);
    batch_ = given.size(0), pixels_ = given.size(1, 1, kMostElements), channels_ = given.size(2, 1, kMostElements);
    const int64_t bytes = product(product(batch_, pixels_), product(channels_, 4));
    input_ = given.read(0, bytes);
    residual_ = given.read(1, bytes, true);
    factor_ = given.read(2, product(batch_, product(channels_, 4)), true);
    output_ = given.write(0, bytes);
    low_ = given.number(0), high_ = given.number(1);
    scale_ = given.constant<float>(0, channels_, true);
    shift_ = given.constant<float>(1, channels_, true);
    slope_ = given.constant<float>(2, channels_, true);
    if (factor_ >= 0 && !scale_.empty()) throw std::invalid_argument("there are two scales");
  }

  void run(const Memory& memory) const override {
    constexpr int64_t kFloatsAPart = 8192;
    const int64_t each = std::max<int64_t>(1, kFloatsAPart / channels_), parts = divided_up(pixels_, each);
    memory.pool.run(batch_ * parts, [&](int64_t part, int) {
      const int64_t image = part / parts, first = part % parts * each;
      const int64_t from = (image * pixels_ + first) * channels_;
      const float* scale = factor_ >= 0 ? at<float>(memory, factor_) + image * channels_ : scale_.empty() ? nullptr : scale_.data();
      const Finish how = {scale, shift_.empty() ? nullptr : shift_.data(), slope_.empty() ? nullptr : slope_.data(), low_, high_};
      const float* residual = residual_ < 0 ? nullptr : at<float>(memory, residual_) + from;
      kernels_.pointwise(at<float>(memory, input_) + from, residual, std::min(each, pixels_ - first), channels_, how, at<float>(memory, output_) + from);
    });
  }

 private:
  const FloatKernels& kernels_;
  int64_t batch_, pixels_, channels_, input_, residual_, factor_, output_;
  float low_, high_;
  std::vector<float> scale_, shift_, slope_;
};

}  // namespace

std::unique_ptr<Step> make_conv(const Given& given) { return std::make_unique<ConvStep>(given); }
std::unique_ptr<Step> make_conv_pool(const Given& given) { return std::make_unique<ConvPool>(given); }
std::unique_ptr<Step> make_depthwise(const Given& given) { return std::make_unique<Depthwise>(given); }
std::unique_ptr<Step> make_pool(const Given& given) { return std::make_unique<PoolStep>(given); }
std::unique_ptr<Step> make_pointwise(const Given& given) { return std::make_unique<Pointwise>(given); }

}  // namespace edgewright
