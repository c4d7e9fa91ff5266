// A few threads that wait for work, at first awake: networks hand out work every few microseconds, and waking a thread takes
// longer than a small step. Nothing is allocated while they run.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace edgewright {

// A function that may be called from several threads, without the allocation of std::function.
struct Job {
  void (*call)(void* data, int64_t part, int thread);
  void* data;
};

class Pool {
 public:
  // `threads` that work, the caller's among them.
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls work(part, thread) for each part in 0..parts-1, thread in 0..threads-1, and returns when all are done.
  // `work` must not throw. Two callers at once are served one after the other.
  template <class Work>
  void run(int64_t parts, Work&& work) {
    if (workers_.empty() || parts <= 1) {
      for (int64_t part = 0; part < parts; ++part) work(part, 0);
      return;
    }
    const auto call = [](void* data, int64_t part, int thread) { (*static_cast<std::remove_reference_t<Work>*>(data))(part, thread); };
    share({call, &work}, parts);
  }

 private:
  void share(Job job, int64_t parts);
  void take(int thread);
  void wait_for_work(int thread);

  std::mutex callers_, mutex_;
  std::condition_variable wake_, done_;
  Job job_ = {};
  int64_t parts_ = 0;
  std::atomic<int64_t> next_{0};
  std::atomic<int> busy_{0};         // workers that have not finished the round
  std::atomic<uint64_t> round_{0};
  std::atomic<bool> ending_{false};  // written under the mutex, as is the round
  std::vector<std::thread> workers_;
};

}  // namespace edgewright
