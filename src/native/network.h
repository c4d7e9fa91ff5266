// A network as a list of steps over one block of memory. Everything is checked, ordered and allocated when the list is made;
// running it allocates nothing.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "binary_conv.h"
#include "floats.h"
#include "pool.h"
#include "shape.h"
#include "variant.h"

namespace edgewright {

// A tensor's place in the arena; none where a step may do without it.
struct Span {
  int64_t offset = -1, bytes = 0;
};

// Bytes of the file that the plan came from; none where data is null.
struct Constant {
  const void* data = nullptr;
  int64_t bytes = 0;
};

// A step as the plan has it: plain data, which a generator of C++ could print as well as run.
struct StepData {
  std::string kernel;
  std::vector<int64_t> sizes;   // in the order of the kernel's list in docs/binary.md
  std::vector<float> numbers;   // the same
  std::vector<Span> reads, writes;
  std::vector<Constant> constants;
};

struct Memory {
  uint8_t* arena;
  uint8_t* workspace;  // starts on a cache line
  const void* const* inputs;
  void* const* outputs;
  Pool& pool;
};

class Step {
 public:
  virtual ~Step() = default;
  virtual int64_t workspace_bytes() const { return 0; }
  virtual void run(const Memory& memory) const = 0;
};

// What a step is made from; every question is checked, and std::invalid_argument says what does not fit.
class Given {
 public:
  Given(const StepData& data, int64_t arena_bytes, const Variant& variant, int threads);

  const Variant& variant;
  const int threads;

  void expect(size_t sizes, size_t numbers, size_t reads, size_t writes, size_t constants) const;
  int64_t size(size_t at, int64_t least = 1, int64_t most = int64_t{1} << 24) const;
  size_t sizes() const { return data_.sizes.size(); }
  size_t reads() const { return data_.reads.size(); }
  float number(size_t at) const { return data_.numbers.at(at); }
  // Offsets into the arena of tensors that have exactly so many bytes; -1 for one that is not there, if it may lack.
  int64_t read(size_t at, int64_t bytes, bool may_lack = false) const;
  int64_t write(size_t at, int64_t bytes, bool may_lack = false) const;
  // A copy of a constant of so many values; empty where it is not there, if it may lack.
  template <class T>
  std::vector<T> constant(size_t at, int64_t count, bool may_lack = false) const {
    const void* from = checked_constant(at, product(count, sizeof(T)), may_lack);
    std::vector<T> values(from ? static_cast<size_t>(count) : 0);
    if (from) std::memcpy(values.data(), from, values.size() * sizeof(T));
    return values;
  }

 private:
  int64_t place(const std::vector<Span>& spans, size_t at, int64_t bytes, bool may_lack) const;
  const void* checked_constant(size_t at, int64_t bytes, bool may_lack) const;

  const StepData& data_;
  const int64_t arena_bytes_;
};

template <class T>
T* at(const Memory& memory, int64_t offset) {
  return offset < 0 ? nullptr : reinterpret_cast<T*>(memory.arena + offset);
}

// One for each kernel, by the name that plans call it.
using MakeStep = std::unique_ptr<Step> (*)(const Given&);
std::unique_ptr<Step> make_conv(const Given&), make_conv_pool(const Given&), make_depthwise(const Given&), make_pool(const Given&), make_pointwise(const Given&),
    make_concat(const Given&), make_softmax(const Given&), make_map(const Given&), make_transpose(const Given&), make_expand(const Given&), make_slice(const Given&),
    make_pack(const Given&),
    make_binary_conv(const Given&), make_binary_signs(const Given&), make_feed(const Given&), make_take(const Given&);

constexpr int64_t kLargestArena = int64_t{1} << 35;

class Network {
 public:
  Network(int64_t arena_bytes, const Variant& variant, int threads);

  void add(const StepData& data);
  // Between the last add and the first run: takes the memory.
  void finish();

  // Bytes of the arrays that feed and take steps name by their index.
  const std::vector<int64_t>& input_bytes() const { return input_bytes_; }
  const std::vector<int64_t>& output_bytes() const { return output_bytes_; }
  int threads() const { return threads_; }
  size_t size() const { return steps_.size(); }

  void run(const void* const* inputs, void* const* outputs, Pool& pool) const;
  // The same; adds the seconds of each step to `seconds`.
  void run_timed(const void* const* inputs, void* const* outputs, Pool& pool, double* seconds) const;

 private:
  Memory memory(const void* const* inputs, void* const* outputs, Pool& pool) const;

  int64_t arena_bytes_, workspace_bytes_ = 0;
  const Variant& variant_;
  int threads_;
  std::vector<std::unique_ptr<Step>> steps_;
  std::vector<int64_t> input_bytes_, output_bytes_;
  Buffer arena_{0}, workspace_{0};
};

}  // namespace edgewright
