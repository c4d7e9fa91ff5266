#include "pool.h"

#include <stdexcept>

namespace edgewright {

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
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return busy_ == 0; });
}

void Pool::take(int thread) {
  for (int64_t part = next_++; part < parts_; part = next_++) job_.call(job_.data, part, thread);
}

void Pool::wait_for_work(int thread) {
  uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return ending_ || round_ != seen; });
    if (ending_) return;
    seen = round_;
    lock.unlock();
    take(thread);
    lock.lock();
    if (--busy_ == 0) done_.notify_one();
  }
}

}  // namespace edgewright
