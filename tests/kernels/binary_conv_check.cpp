// Compares every variant that this machine (or emulator) can run with a plain loop, over random sizes.
//
//   cmake -S . -B build -DCMAKE_BUILD_TYPE=Release -DEDGEWRIGHT_CHECK=ON [-DEDGEWRIGHT_SANITIZE=ON] && cmake --build build
//   build/src/native/binary_conv_check [layers] [seed]
//
// tests/kernels/test_binary_conv.py does the same against numpy; this one needs no Python, so that it runs under
// AddressSanitizer and, built for AArch64, under qemu-aarch64.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "binary_conv.h"

using namespace edgewright;

namespace {

std::mt19937_64 rng;

int64_t within(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(rng); }

template <size_t size>
int64_t one_of(const int64_t (&values)[size]) {
  return values[within(0, size - 1)];
}

template <class T>
bool equal(const std::vector<T>& found, const std::vector<T>& wanted, const Shape& s, const char* variant, const char* what) {
  for (size_t i = 0; i < wanted.size(); ++i)
    if (found[i] != wanted[i]) {
      std::printf("%s: %s differ at %zu: channels %ld filters %ld kernel %ldx%ld groups %ld input %ldx%ldx%ld\n", variant, what, i,
                  static_cast<long>(s.channels), static_cast<long>(s.filters), static_cast<long>(s.kernel_h), static_cast<long>(s.kernel_w),
                  static_cast<long>(s.groups), static_cast<long>(s.batch), static_cast<long>(s.height), static_cast<long>(s.width));
      return false;
    }
  return true;
}

bool bit(const std::vector<uint64_t>& words, int64_t pixel, int64_t per_pixel, int64_t channel) {
  return words[static_cast<size_t>(pixel * per_pixel + channel / 64)] >> channel % 64 & 1;
}

Shape any_shape() {
  const int64_t widths[] = {1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200};
  for (;;) {
    Shape s;
    s.groups = within(0, 2) ? 1 : within(2, 3);
    s.channels = s.groups * one_of(widths);
    s.filters = s.groups * one_of(widths);
    s.batch = within(1, 2);
    s.height = within(1, 10), s.width = within(1, 10);
    s.kernel_h = within(1, 5), s.kernel_w = within(1, 5);
    s.stride_h = within(1, 3), s.stride_w = within(1, 3);
    s.dilation_h = within(1, 2), s.dilation_w = within(1, 2);
    s.top = within(0, 2), s.left = within(0, 2), s.bottom = within(0, 2), s.right = within(0, 2);
    s.pads_minus = within(0, 1);
    if (s.height + s.top + s.bottom > s.dilation_h * (s.kernel_h - 1) && s.width + s.left + s.right > s.dilation_w * (s.kernel_w - 1))
      return s;
  }
}

// Dot products by the definition: bits of the window that differ count twice against its size.
std::vector<int32_t> dots_of(const Shape& s, const std::vector<uint64_t>& words, const std::vector<uint64_t>& weights) {
  std::vector<int32_t> dots;
  const int64_t channels = s.group_channels();
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t oy = 0; oy < s.output_h(); ++oy)
      for (int64_t ox = 0; ox < s.output_w(); ++ox)
        for (int64_t m = 0; m < s.filters; ++m) {
          int32_t dot = 0;
          for (int64_t ky = 0; ky < s.kernel_h; ++ky)
            for (int64_t kx = 0; kx < s.kernel_w; ++kx) {
              const int64_t y = oy * s.stride_h + ky * s.dilation_h - s.top, x = ox * s.stride_w + kx * s.dilation_w - s.left;
              const bool inside = y >= 0 && y < s.height && x >= 0 && x < s.width;
              for (int64_t c = 0; c < channels; ++c) {
                const int64_t channel = m / s.group_filters() * channels + c;
                const bool minus = inside ? bit(words, (n * s.height + y) * s.width + x, s.input_words(), channel) : s.pads_minus;
                dot += minus == bit(weights, (m * s.kernel_h + ky) * s.kernel_w + kx, s.group_words(), c) ? 1 : -1;
              }
            }
          dots.push_back(dot);
        }
  return dots;
}

// Now and then all bits are equal, so that sums become as large as they get.
std::vector<uint64_t> any_bits(int64_t pixels, int64_t channels) {
  const int64_t kind = within(0, 3);
  std::vector<uint64_t> words(static_cast<size_t>(pixels * divided_up(channels, 64)));
  for (size_t i = 0; i < words.size(); ++i) {
    const int64_t left = channels - static_cast<int64_t>(i) % divided_up(channels, 64) * 64;
    const uint64_t bits = kind == 0 ? 0 : kind == 1 ? ~uint64_t{0} : rng();
    words[i] = bits & (left < 64 ? (uint64_t{1} << left) - 1 : ~uint64_t{0});
  }
  return words;
}

bool check_conv(const Shape& s, Pool& pool) {
  const auto words = any_bits(s.batch * s.height * s.width, s.channels);
  const auto weights = any_bits(s.filters * s.kernel_h * s.kernel_w, s.group_channels());
  const auto dots = dots_of(s, words, weights);
  std::vector<int32_t> thresholds;
  std::vector<uint8_t> flip;
  std::vector<float> scale, shift, slope, residual, floats;
  std::normal_distribution<float> normal;
  for (int64_t m = 0; m < s.filters; ++m) {
    thresholds.push_back(static_cast<int32_t>(within(-s.bits() - 1, s.bits() + 1)));
    flip.push_back(static_cast<uint8_t>(within(0, 1)));
    scale.push_back(normal(rng)), shift.push_back(normal(rng)), slope.push_back(normal(rng));
  }
  // Each of what may follow a dot product comes and goes.
  const bool adds = within(0, 1), slopes = within(0, 1), signed_too = s.groups == 1 && within(0, 1);
  const float most = within(0, 1) ? 9.0f : std::numeric_limits<float>::infinity();
  const int64_t pixels = s.batch * s.output_h() * s.output_w();
  std::vector<uint64_t> float_signs(signed_too ? static_cast<size_t>(pixels * s.output_words()) : 0);
  std::vector<uint64_t> signs(static_cast<size_t>(pixels * s.output_words()));
  for (int64_t i = 0; i < pixels * s.filters; ++i) {
    const auto m = static_cast<size_t>(i % s.filters);
    residual.push_back(normal(rng));
    float value = static_cast<float>(dots[static_cast<size_t>(i)]) * scale[m] + shift[m];
    if (adds) value += residual.back();
    if (slopes && value < 0) value *= slope[m];
    floats.push_back(std::min(std::max(value, -most), most));
    if (signed_too && floats.back() < shift[m])
      float_signs[static_cast<size_t>(i / s.filters * s.output_words() + i % s.filters / 64)] |= uint64_t{1} << i % s.filters % 64;
    if ((dots[static_cast<size_t>(i)] < thresholds[m]) != (flip[m] != 0))
      signs[static_cast<size_t>(i / s.filters * s.output_words() + i % s.filters / 64)] |= uint64_t{1} << i % s.filters % 64;
  }
  bool good = true;
  for (const Variant* variant : variants()) {
    BinaryConv conv(s, *variant, weights.data(), pool.threads());
    conv.set_thresholds(thresholds.data(), flip.data());
    conv.set_affine(scale.data(), shift.data(), slopes ? slope.data() : nullptr, -most, most);
    Buffer workspace(conv.workspace_bytes());
    std::vector<int32_t> found(dots.size());
    std::vector<float> found_floats(floats.size());
    std::vector<uint64_t> found_signs(signs.size(), ~uint64_t{0}), found_float_signs(float_signs.size(), ~uint64_t{0});
    conv.run(words.data(), DotsOut{found.data()}, workspace.as<void>(), pool);
    conv.run(words.data(), FloatsOut{adds ? residual.data() : nullptr, found_floats.data(), signed_too ? found_float_signs.data() : nullptr, shift.data()},
             workspace.as<void>(), pool);
    conv.run(words.data(), SignsOut{found_signs.data()}, workspace.as<void>(), pool);
    good = equal(found, dots, s, variant->name, "dot products") && equal(found_floats, floats, s, variant->name, "floats") &&
           equal(found_float_signs, float_signs, s, variant->name, "signs of floats") &&
           equal(found_signs, signs, s, variant->name, "signs") && good;
  }
  return good;
}

bool check_pack(const Shape& s) {
  const int64_t pixels = s.height * s.width * within(1, 8), channels = s.channels;
  std::vector<float> values, thresholds;
  for (int64_t i = 0; i < pixels * channels; ++i) values.push_back(within(0, 9) ? static_cast<float>(within(-2, 2)) : NAN);
  for (int64_t c = 0; c < channels; ++c) thresholds.push_back(static_cast<float>(within(-1, 1)));
  bool good = true;
  for (const Variant* variant : variants())
    for (int with = 0; with < 2; ++with)
      for (int last = 0; last < 2; ++last) {
        const Floats floats = {values.data(), pixels, channels, last ? channels : 1, last ? 1 : pixels, with ? thresholds.data() : nullptr};
        std::vector<uint64_t> wanted(static_cast<size_t>(pixels * divided_up(channels, 64))), found(wanted.size());
        for (int64_t i = 0; i < pixels * channels; ++i) {
          const int64_t pixel = i / channels, c = i % channels;
          const float value = values[static_cast<size_t>(pixel * floats.pixel_step + c * floats.channel_step)];
          if (value < (with ? thresholds[static_cast<size_t>(c)] : 0))
            wanted[static_cast<size_t>(pixel * divided_up(channels, 64) + c / 64)] |= uint64_t{1} << c % 64;
        }
        variant->pack(floats, found.data());
        good = equal(found, wanted, s, variant->name, "packed signs") && good;
      }
  return good;
}

}  // namespace

int main(int count, char** arguments) {
  const int64_t layers = count > 1 ? std::atoll(arguments[1]) : 200;
  rng.seed(count > 2 ? static_cast<uint64_t>(std::atoll(arguments[2])) : 0);
  Pool one(1), three(3);
  int64_t failed = 0;
  for (int64_t i = 0; i < layers; ++i) {
    const Shape s = any_shape();
    failed += !check_conv(s, i % 4 ? one : three) || !check_pack(s);
  }
  for (const Variant* variant : variants()) std::printf("%s ", variant->name);
  std::printf(": %ld layers, %ld failed\n", static_cast<long>(layers), static_cast<long>(failed));
  return failed ? 1 : 0;
}
