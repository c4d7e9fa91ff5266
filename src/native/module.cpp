// The Python module `edgewright._native`: `edgewright.kernels` checks for people what this file checks for safety.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <mutex>

#include "binary_conv.h"
#include "network.h"

namespace nb = nanobind;

namespace edgewright {
namespace {

template <class T>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

const Variant& named(const std::string& name) {
  for (const Variant* variant : variants())
    if (name == variant->name) return *variant;
  throw std::invalid_argument("this machine cannot run the variant " + name);
}

std::vector<std::string> names() {
  std::vector<std::string> found;
  for (const Variant* variant : variants()) found.emplace_back(variant->name);
  return found;
}

template <class T>
T* sized(const Array<T>& array, int64_t size, const char* what) {
  if (static_cast<int64_t>(array.size()) != size)
    throw std::invalid_argument(std::string(what) + " has " + std::to_string(array.size()) + " values, not " + std::to_string(size));
  return array.data();
}

// f32[batch, pixels, channels] by strides, so that channels may be anywhere -> u64[batch, pixels, words].
void pack(nb::ndarray<const float, nb::ndim<3>, nb::device::cpu> x, std::optional<Array<const float>> thresholds, Array<uint64_t> out,
          const std::string& variant, Pool& pool) {
  constexpr int64_t kPixelsAPart = 512;
  const int64_t batch = static_cast<int64_t>(x.shape(0)), pixels = static_cast<int64_t>(x.shape(1)), channels = static_cast<int64_t>(x.shape(2));
  const int64_t words = divided_up(channels, kWordBits), parts = divided_up(pixels, kPixelsAPart);
  uint64_t* to = sized(out, batch * pixels * words, "out");
  const float* limits = thresholds ? sized(*thresholds, channels, "thresholds") : nullptr;
  const Variant& kernels = named(variant);
  nb::gil_scoped_release release;
  pool.run(batch * parts, [&](int64_t part, int) {
    const int64_t image = part / parts, first = part % parts * kPixelsAPart;
    const float* data = x.data() + image * x.stride(0) + first * x.stride(1);
    kernels.pack({data, std::min(kPixelsAPart, pixels - first), channels, x.stride(1), x.stride(2), limits}, to + (image * pixels + first) * words);
  });
}

// A layer with memory of its own to work in; calls from several threads follow one another.
class Layer {
 public:
  Layer(const Array<const uint64_t>& weights, const std::vector<int64_t>& sizes, bool pads_minus, const std::string& variant, int threads)
      : conv_(shape_of(sizes, pads_minus), named(variant), checked_weights(weights, shape_of(sizes, pads_minus)), threads),
        workspace_(conv_.workspace_bytes()) {}

  void set_thresholds(const Array<const int32_t>& thresholds, const Array<const uint8_t>& flip) {
    const int64_t filters = conv_.shape().filters;
    std::lock_guard lock(mutex_);
    conv_.set_thresholds(sized(thresholds, filters, "thresholds"), sized(flip, filters, "flip"));
    has_thresholds_ = true;
  }

  void set_affine(const Array<const float>& scale, const Array<const float>& shift, std::optional<Array<const float>> slope, float low, float high) {
    const int64_t filters = conv_.shape().filters;
    std::lock_guard lock(mutex_);
    conv_.set_affine(sized(scale, filters, "scale"), sized(shift, filters, "shift"), slope ? sized(*slope, filters, "slope") : nullptr, low, high);
    has_affine_ = true;
  }

  void signs(const Array<const uint64_t>& words, const Array<uint64_t>& out, Pool& pool) {
    if (!has_thresholds_) throw std::invalid_argument("set_thresholds comes first");
    run(words, SignsOut{sized(out, pixels() * conv_.shape().output_words(), "out")}, pool);
  }

  void floats(const Array<const uint64_t>& words, std::optional<Array<const float>> residual, const Array<float>& out, Pool& pool) {
    if (!has_affine_) throw std::invalid_argument("set_affine comes first");
    const int64_t size = pixels() * conv_.shape().filters;
    run(words, FloatsOut{residual ? sized(*residual, size, "residual") : nullptr, sized(out, size, "out")}, pool);
  }

  void dots(const Array<const uint64_t>& words, const Array<int32_t>& out, Pool& pool) {
    run(words, DotsOut{sized(out, pixels() * conv_.shape().filters, "out")}, pool);
  }

 private:
  static Shape shape_of(const std::vector<int64_t>& sizes, bool pads_minus) {
    if (sizes.size() != 16) throw std::invalid_argument("a convolution has 16 sizes");
    const Shape shape = {sizes[0], sizes[1], sizes[2],  sizes[3],  sizes[4],  sizes[5],  sizes[6],  sizes[7], sizes[8],
                         sizes[9], sizes[10], sizes[11], sizes[12], sizes[13], sizes[14], sizes[15], pads_minus};
    shape.check();
    return shape;
  }

  static const uint64_t* checked_weights(const Array<const uint64_t>& weights, const Shape& s) {
    return sized(weights, s.filters * s.kernel_h * s.kernel_w * s.group_words(), "weights");
  }

  int64_t pixels() const { return conv_.shape().batch * conv_.shape().output_h() * conv_.shape().output_w(); }

  template <class Out>
  void run(const Array<const uint64_t>& words, const Out& out, Pool& pool) {
    const Shape& s = conv_.shape();
    const uint64_t* from = sized(words, s.batch * s.height * s.width * s.input_words(), "input");
    if (pool.threads() > conv_.threads()) throw std::invalid_argument("the pool has more threads than the layer was made for");
    nb::gil_scoped_release release;
    std::lock_guard lock(mutex_);
    conv_.run(from, out, workspace_.as<void>(), pool);
  }

  BinaryConv conv_;
  Buffer workspace_;
  std::mutex mutex_;
  bool has_thresholds_ = false, has_affine_ = false;
};

using Spans = std::vector<std::pair<int64_t, int64_t>>;

std::vector<Span> spans_of(const Spans& pairs) {
  std::vector<Span> spans;
  for (const auto& [offset, bytes] : pairs) spans.push_back({offset, bytes});
  return spans;
}

// A network and the arrays of one call; calls from several threads follow one another.
class Runner {
 public:
  Runner(int64_t arena_bytes, const std::string& variant, int threads) : network_(arena_bytes, named(variant), threads) {}

  void add(const std::string& kernel, const std::vector<int64_t>& sizes, const std::vector<float>& numbers, const Spans& reads,
           const Spans& writes, const std::vector<std::optional<Array<const uint8_t>>>& constants) {
    StepData data = {kernel, sizes, numbers, spans_of(reads), spans_of(writes), {}};
    for (const auto& constant : constants)
      data.constants.push_back(constant ? Constant{constant->data(), static_cast<int64_t>(constant->size())} : Constant{});
    network_.add(data);
  }

  void finish() {
    network_.finish();
    inputs_.resize(network_.input_bytes().size());
    outputs_.resize(network_.output_bytes().size());
    ready_ = true;
  }

  // Arrays are bytes, in the order of the feed and take steps. With `seconds`, the time of each step is added to it.
  void run(const std::vector<Array<const uint8_t>>& inputs, const std::vector<Array<uint8_t>>& outputs, std::optional<Array<double>> seconds, Pool& pool) {
    if (!ready_) throw std::invalid_argument("finish comes first");
    if (inputs.size() != inputs_.size() || outputs.size() != outputs_.size()) throw std::invalid_argument("it takes another number of arrays");
    if (pool.threads() > network_.threads()) throw std::invalid_argument("the pool has more threads than the network was made for");
    if (seconds && seconds->size() != network_.size()) throw std::invalid_argument("there is one time for each step");
    nb::gil_scoped_release release;
    std::lock_guard lock(mutex_);
    for (size_t i = 0; i < inputs.size(); ++i) inputs_[i] = sized(inputs[i], network_.input_bytes()[i], "input");
    for (size_t i = 0; i < outputs.size(); ++i) outputs_[i] = sized(outputs[i], network_.output_bytes()[i], "output");
    if (seconds)
      network_.run_timed(inputs_.data(), outputs_.data(), pool, seconds->data());
    else
      network_.run(inputs_.data(), outputs_.data(), pool);
  }

 private:
  Network network_;
  std::vector<const void*> inputs_;
  std::vector<void*> outputs_;
  std::mutex mutex_;
  bool ready_ = false;
};

}  // namespace
}  // namespace edgewright

NB_MODULE(_native, m) {
  using namespace edgewright;
  m.doc() = "Kernels in C++; use them through edgewright.kernels.";
  m.def("variants", names);
  nb::class_<Pool>(m, "Pool").def(nb::init<int>(), nb::arg("threads")).def_prop_ro("threads", &Pool::threads);
  m.def("pack", pack, nb::arg("x"), nb::arg("thresholds").none(), nb::arg("out"), nb::arg("variant"), nb::arg("pool"));
  nb::class_<Layer>(m, "BinaryConv")
      .def(nb::init<const Array<const uint64_t>&, const std::vector<int64_t>&, bool, const std::string&, int>(), nb::arg("weights"),
           nb::arg("sizes"), nb::arg("pads_minus"), nb::arg("variant"), nb::arg("threads"))
      .def("set_thresholds", &Layer::set_thresholds, nb::arg("thresholds"), nb::arg("flip"))
      .def("set_affine", &Layer::set_affine, nb::arg("scale"), nb::arg("shift"), nb::arg("slope").none(), nb::arg("low"), nb::arg("high"))
      .def("signs", &Layer::signs, nb::arg("words"), nb::arg("out"), nb::arg("pool"))
      .def("floats", &Layer::floats, nb::arg("words"), nb::arg("residual").none(), nb::arg("out"), nb::arg("pool"))
      .def("dots", &Layer::dots, nb::arg("words"), nb::arg("out"), nb::arg("pool"));
  nb::class_<Runner>(m, "Network")
      .def(nb::init<int64_t, const std::string&, int>(), nb::arg("arena_bytes"), nb::arg("variant"), nb::arg("threads"))
      .def("add", &Runner::add, nb::arg("kernel"), nb::arg("sizes"), nb::arg("numbers"), nb::arg("reads"), nb::arg("writes"), nb::arg("constants"))
      .def("finish", &Runner::finish)
      .def("run", &Runner::run, nb::arg("inputs"), nb::arg("outputs"), nb::arg("seconds").none(), nb::arg("pool"));
}
