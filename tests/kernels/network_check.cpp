// Runs random steps on every variant that this machine (or emulator) can run, holds them to plain loops, and counts what running
// allocates: nothing.
//
//   cmake -S . -B build -DCMAKE_BUILD_TYPE=Release -DEDGEWRIGHT_CHECK=ON [-DEDGEWRIGHT_SANITIZE=ON] && cmake --build build
//   build/src/native/network_check [networks] [seed]
//
// tests/kernels/test_steps.py does the same against numpy; this one needs no Python, as binary_conv_check.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <random>

#include "network.h"

namespace {
std::atomic<long> allocations{0};
}

void* operator new(std::size_t size) {
  ++allocations;
  if (void* found = std::malloc(size ? size : 1)) return found;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, std::align_val_t align) {
  ++allocations;
  const auto step = static_cast<std::size_t>(align);
  if (void* found = std::aligned_alloc(step, (size + step - 1) / step * step)) return found;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

using namespace edgewright;

namespace {

std::mt19937_64 rng;

int64_t within(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(rng); }

std::vector<float> normal(int64_t count) {
  std::normal_distribution<float> draw;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = draw(rng);
  return values;
}

Constant constant(const std::vector<float>& values) { return {values.data(), static_cast<int64_t>(values.size() * 4)}; }

// x -> conv -> pack -> binary_conv with the conv's results as residual -> pool -> y, all of one size; and x -> conv_pool.
struct Drawn {
  Shape conv, binary, pool;
  std::vector<float> x, weights, shift, scale, slope;
  std::vector<uint64_t> bits;

  Drawn() {
    Shape& s = conv;
    s.channels = within(1, 20), s.filters = within(1, 80), s.batch = within(1, 2);
    s.height = within(3, 12), s.width = within(3, 12);
    s.kernel_h = within(1, 3), s.kernel_w = within(1, 3), s.stride_h = within(1, 2), s.stride_w = within(1, 2);
    if (within(0, 3) == 0) {  // a stem
      s.channels = within(0, 3) ? within(1, 4) : 16, s.filters = within(1, 40);
      s.kernel_h = within(5, 8), s.kernel_w = within(5, 8);
      s.height = within(16, 24), s.width = within(16, 24);
      if (within(0, 3) == 0) s.height = within(10, 14), s.width = within(150, 170);  // more tiles than go at once
    }
    s.top = within(0, 4), s.left = within(0, 4), s.bottom = within(0, 1), s.right = within(0, 3);
    Shape& b = binary;
    b.batch = s.batch, b.height = s.output_h(), b.width = s.output_w(), b.channels = b.filters = s.filters;
    b.kernel_h = b.kernel_w = 3, b.top = b.left = b.bottom = b.right = 1;
    Shape& p = pool;
    p.batch = b.batch, p.height = b.height, p.width = b.width, p.channels = p.filters = b.filters;
    p.kernel_h = within(1, 4), p.kernel_w = within(1, 4), p.stride_h = within(1, 5), p.stride_w = within(1, 3);
    p.top = within(0, 5), p.left = within(0, 2), p.bottom = within(3, 6), p.right = within(3, 4);  // windows fit
    x = normal(s.batch * s.height * s.width * s.channels);
    weights = normal(s.filters * s.kernel_h * s.kernel_w * s.channels);
    shift = normal(s.filters), scale = normal(s.filters), slope = normal(s.filters);
    bits.resize(static_cast<size_t>(b.filters * 9 * b.group_words()));
    const int64_t rest = b.channels % 64;
    for (size_t i = 0; i < bits.size(); ++i) {
      bits[i] = rng();
      if (rest && (static_cast<int64_t>(i) + 1) % b.group_words() == 0) bits[i] &= (uint64_t{1} << rest) - 1;
    }
  }
};

std::vector<int64_t> sizes(const Shape& s) {
  return {s.batch, s.height, s.width, s.channels, s.filters, s.kernel_h, s.kernel_w, s.stride_h,
          s.stride_w, s.dilation_h, s.dilation_w, s.top, s.left, s.bottom, s.right, s.groups};
}

float at_padded(const std::vector<float>& x, const Shape& s, int64_t n, int64_t y, int64_t c, int64_t column) {
  if (y < 0 || y >= s.height || column < 0 || column >= s.width) return 0;
  return x[static_cast<size_t>(((n * s.height + y) * s.width + column) * s.channels + c)];
}

std::vector<float> plain_conv(const Drawn& d) {
  const Shape& s = d.conv;
  std::vector<float> made;
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t y = 0; y < s.output_h(); ++y)
      for (int64_t x = 0; x < s.output_w(); ++x)
        for (int64_t f = 0; f < s.filters; ++f) {
          double sum = d.shift[static_cast<size_t>(f)];
          const float* weight = d.weights.data() + f * s.kernel_h * s.kernel_w * s.channels;
          for (int64_t i = 0; i < s.kernel_h; ++i)
            for (int64_t j = 0; j < s.kernel_w; ++j)
              for (int64_t c = 0; c < s.channels; ++c)
                sum += double{*weight++} * at_padded(d.x, s, n, y * s.stride_h - s.top + i, c, x * s.stride_w - s.left + j);
          made.push_back(static_cast<float>(sum));
        }
  return made;
}

std::vector<float> plain_largest(const Shape& s, const std::vector<float>& floats) {
  std::vector<float> made;
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t y = 0; y < s.output_h(); ++y)
      for (int64_t x = 0; x < s.output_w(); ++x)
        for (int64_t c = 0; c < s.channels; ++c) {
          float most = -std::numeric_limits<float>::infinity();
          for (int64_t i = std::max<int64_t>(0, y * s.stride_h - s.top); i < std::min(s.height, y * s.stride_h - s.top + s.kernel_h); ++i)
            for (int64_t j = std::max<int64_t>(0, x * s.stride_w - s.left); j < std::min(s.width, x * s.stride_w - s.left + s.kernel_w); ++j)
              most = std::max(most, at_padded(floats, s, n, i, c, j));
          made.push_back(most);
        }
  return made;
}

// What the binary layer and the pool (a mean of the whole image) make of floats, whose signs are known from here on.
std::vector<float> plain_rest(const Drawn& d, const std::vector<float>& floats) {
  const Shape& b = d.binary;
  std::vector<double> sums(static_cast<size_t>(b.batch * b.filters));
  for (int64_t n = 0; n < b.batch; ++n)
    for (int64_t y = 0; y < b.height; ++y)
      for (int64_t x = 0; x < b.width; ++x)
        for (int64_t f = 0; f < b.filters; ++f) {
          int64_t dot = 0;
          for (int64_t k = 0; k < 9; ++k)
            for (int64_t c = 0; c < b.channels; ++c) {
              const bool weight = d.bits[static_cast<size_t>((f * 9 + k) * b.group_words() + c / 64)] >> c % 64 & 1;
              dot += (at_padded(floats, b, n, y - 1 + k / 3, c, x - 1 + k % 3) < 0) == weight ? 1 : -1;
            }
          const size_t at = static_cast<size_t>(((n * b.height + y) * b.width + x) * b.filters + f), i = static_cast<size_t>(f);
          const float value = static_cast<float>(dot) * d.scale[i] + d.shift[i] + floats[at];
          sums[static_cast<size_t>(n * b.filters + f)] += value < 0 ? value * d.slope[i] : value;
        }
  std::vector<float> made;
  for (double sum : sums) made.push_back(static_cast<float>(sum / static_cast<double>(b.height * b.width)));
  return made;
}

struct Result {
  std::vector<float> floats, y, largest;
};

bool run(const Drawn& d, const Variant& variant, int threads, Result& result) {
  const float inf = std::numeric_limits<float>::infinity();
  const Shape &s = d.conv, &b = d.binary;
  const int64_t pixels = b.batch * b.height * b.width;
  int64_t end = 0;
  const auto place = [&](int64_t bytes) {
    const Span span = {end, bytes};
    end += divided_up(bytes, 64) * 64;
    return span;
  };
  const Span x = place(static_cast<int64_t>(d.x.size()) * 4), floats = place(pixels * b.filters * 4), signs = place(pixels * b.input_words() * 8),
             made = place(pixels * b.filters * 4), y = place(b.batch * b.filters * 4), largest = place(d.pool.batch * d.pool.output_h() * d.pool.output_w() * d.pool.filters * 4);
  Network network(end, variant, threads);
  std::vector<int64_t> binary = sizes(b), pool = sizes(b);
  binary.push_back(0), pool.push_back(1);
  pool[5] = b.height, pool[6] = b.width;
  for (size_t i = 11; i < 15; ++i) pool[i] = 0;
  const Shape& p = d.pool;
  std::vector<int64_t> both = sizes(s);
  both.insert(both.end(), {p.kernel_h, p.kernel_w, p.stride_h, p.stride_w, p.top, p.left, p.bottom, p.right});
  network.add({"feed", {0, 4, 1, 1, x.bytes / 4}, {}, {}, {x}, {}});
  network.add({"conv", sizes(s), {-inf, inf}, {x, Span()}, {floats}, {constant(d.weights), constant(d.shift), Constant()}});
  network.add({"take", {0, 4, 1, 1, floats.bytes / 4}, {}, {floats}, {}, {}});
  network.add({"pack", {pixels, b.filters}, {}, {floats}, {signs}, {Constant()}});
  network.add({"binary_conv", binary, {-inf, inf}, {signs, floats}, {made, Span()},
               {{d.bits.data(), static_cast<int64_t>(d.bits.size() * 8)}, constant(d.scale), constant(d.shift), constant(d.slope), Constant()}});
  network.add({"pool", pool, {}, {made}, {y}, {}});
  network.add({"take", {1, 4, 1, 1, y.bytes / 4}, {}, {y}, {}, {}});
  network.add({"conv_pool", both, {-inf, inf}, {x}, {largest}, {constant(d.weights), constant(d.shift), Constant()}});
  network.add({"take", {2, 4, 1, 1, largest.bytes / 4}, {}, {largest}, {}, {}});
  network.finish();
  result.floats.resize(static_cast<size_t>(floats.bytes / 4)), result.y.resize(static_cast<size_t>(y.bytes / 4));
  result.largest.resize(static_cast<size_t>(largest.bytes / 4));
  const void* inputs[] = {d.x.data()};
  void* outputs[] = {result.floats.data(), result.y.data(), result.largest.data()};
  Pool workers(threads);
  network.run(inputs, outputs, workers);
  const long before = allocations;
  network.run(inputs, outputs, workers);
  if (allocations == before) return true;
  std::printf("%s: a run allocated %ld times\n", variant.name, allocations - before);
  return false;
}

bool near(const std::vector<float>& found, const std::vector<float>& wanted, const char* variant, const char* what) {
  for (size_t i = 0; i < wanted.size(); ++i)
    if (!(std::abs(found[i] - wanted[i]) <= 1e-3f + 1e-4f * std::abs(wanted[i]))) {
      std::printf("%s: %s differ at %zu: %g, not %g\n", variant, what, i, found[i], wanted[i]);
      return false;
    }
  return true;
}

bool same(const std::vector<float>& found, const std::vector<float>& wanted, const char* variant, const char* what) {
  if (found == wanted) return true;
  std::printf("%s: %s are not those of the single steps\n", variant, what);
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  const long count = argc > 1 ? std::atol(argv[1]) : 100;
  rng.seed(argc > 2 ? static_cast<uint64_t>(std::atoll(argv[2])) : 0);
  for (long i = 0; i < count; ++i) {
    const Drawn drawn;
    const std::vector<float> floats = plain_conv(drawn);
    for (const Variant* variant : variants())
      for (int threads : {1, 3}) {
        Result found;
        if (!run(drawn, *variant, threads, found) || !near(found.floats, floats, variant->name, "convolutions") ||
            !near(found.y, plain_rest(drawn, found.floats), variant->name, "results") ||
            !same(found.largest, plain_largest(drawn.pool, found.floats), variant->name, "pooled convolutions"))
          return 1;
      }
  }
  for (const Variant* variant : variants()) std::printf("%s ", variant->name);
  std::printf("agree on %ld networks, and running them allocates nothing\n", count);
  return 0;
}
