#include "pool.h"

#include <stdexcept>

namespace edgewright {
namespace {

constexpr int kLooks = 1000;  // about 20 to 50 microseconds

void pause() {
#if defined(__x86_64__) || defined(_M_X64)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Whether `come` turns true while one looks, without going to sleep.
template <class Come>
bool comes(Come&& come) {
  for (int look = 0; look < kLooks; ++look) {
    if (come()) return true;
    pause();
  }
  return false;
}

}  // namespace

Pool::Pool(int threads) {
  if (threads < 1 || threads > 1024) throw std::invalid_argument("threads lie within 1 and 1024");
  for (int thread = 1; thread < threads; ++thread) workers_.emplace_back([this, thread] { wait_for_work(thread); });
}

Pool::~Pool() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Pool::share(Job job, int64_t parts) {
  std::lock_guard one_caller(callers_);
  {
    std::lock_guard lock(mutex_);
    job_ = job;
    parts_ = parts;
    next_ = 0;
    busy_ = static_cast<int>(workers_.size());
    ++round_;
  }
  wake_.notify_all();
  take(0);
  if (comes([this] { return busy_ == 0; })) return;
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return busy_ == 0; });
}

void Pool::take(int thread) {
  for (int64_t part = next_++; part < parts_; part = next_++) job_.call(job_.data, part, thread);
}

void Pool::wait_for_work(int thread) {
  for (uint64_t seen = 0;; ++seen) {
    const auto called = [&] { return ending_ || round_ != seen; };
    if (!comes(called)) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, called);
    }
    if (ending_) return;
    take(thread);
    if (--busy_ == 0) {
      std::lock_guard lock(mutex_);  // the caller is either still to look, or asleep
      done_.notify_one();
    }
  }
}

}  // namespace edgewright
