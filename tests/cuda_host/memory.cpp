// Memory of devices and pinned memory: each allocation of exactly the size asked for, so that AddressSanitizer sees the
// first byte beyond, and full of NaN. Copies check direction and range, as the driver does.
#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>

#include "cuda_host.h"

extern "C" {
void __asan_poison_memory_region(const volatile void *memory, size_t bytes) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void *memory, size_t bytes) __attribute__((weak));
}

namespace {

struct Allocation {
    size_t bytes;
    MemoryKind kind;
    int device;
    bool registered;  // the user's own memory
};

// By address.
std::map<uintptr_t, Allocation> &allocations() {
    static auto *const all = new std::map<uintptr_t, Allocation>;
    return *all;
}

// Not the address itself, by which LeakSanitizer would find memory that everybody else has forgotten.
constexpr uintptr_t disguise = uintptr_t{1} << 63;
uintptr_t number(const void *memory) { return reinterpret_cast<uintptr_t>(memory) | disguise; }

// The allocation that memory lies in, or the end.
std::map<uintptr_t, Allocation>::iterator find(const void *memory) {
    auto after = allocations().upper_bound(number(memory));
    if (after == allocations().begin()) { return allocations().end(); }
    auto found = std::prev(after);
    return number(memory) - found->first < found->second.bytes ? found : allocations().end();
}

size_t bytes_used(int device) {
    size_t bytes = 0;
    for (const auto &entry : allocations()) {
        if (entry.second.kind == MemoryKind::device && entry.second.device == device) { bytes += entry.second.bytes; }
    }
    return bytes;
}

cudaError_t allocate(void **memory, size_t bytes, MemoryKind kind) {
    *memory = nullptr;
    if (bytes == 0) { return cudaSuccess; }
    void *made;
    if (posix_memalign(&made, 256, bytes)) { return cudaErrorMemoryAllocation; }
    memset(made, 0xff, bytes);
    allocations()[number(made)] = Allocation{bytes, kind, current_device(), false};
    *memory = made;
    open_device_memory(false);
    return cudaSuccess;
}

// Real drivers wait for the device here, too.
cudaError_t release(void *memory, MemoryKind kind) {
    if (!memory) { return cudaSuccess; }
    const cudaError_t forbidden = capture_forbids_unsafe();
    if (forbidden != cudaSuccess) { return forbidden; }
    const auto found = allocations().find(number(memory));
    if (found == allocations().end() || found->second.kind != kind || found->second.registered) {
        return cudaErrorInvalidValue;
    }
    for (int device = 0; device < device_count(); device++) {
        if (kind == MemoryKind::pinned || device == found->second.device) { finish_device(device); }
    }
    allocations().erase(found);
    free(memory);
    return cudaSuccess;
}

cudaError_t allocate_pinned(void **memory, size_t bytes) {
    const cudaError_t forbidden = capture_forbids_unsafe();
    return forbidden != cudaSuccess ? forbidden : allocate(memory, bytes, MemoryKind::pinned);
}

bool is_device(const void *memory) { return memory_kind(memory) == MemoryKind::device; }

cudaError_t check_copy(const void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) { return cudaErrorInvalidMemcpyDirection; }
    if (bytes == 0) { return cudaSuccess; }
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind != cudaMemcpyDefault && (to_device != is_device(to) || from_device != is_device(from))) {
        return cudaErrorInvalidValue;
    }
    return memory_holds(to, bytes) && memory_holds(from, bytes) ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t check_set(const void *memory, size_t bytes) {
    if (bytes == 0) { return cudaSuccess; }
    const bool known = memory_kind(memory) != MemoryKind::pageable;
    return known && memory_holds(memory, bytes) ? cudaSuccess : cudaErrorInvalidValue;
}

Work copying(void *to, const void *from, size_t bytes) {
    return [=] {
        if (bytes) { memmove(to, from, bytes); }
    };
}

Work copying_staged(void *to, const void *from, size_t bytes) {
    const char *begin = static_cast<const char *>(from);
    return [to, staged = std::vector<char>(begin, begin + bytes)] {
        if (!staged.empty()) { memcpy(to, staged.data(), staged.size()); }
    };
}

Work setting(void *memory, int value, size_t bytes) {
    return [=] {
        if (bytes) { memset(memory, value, bytes); }
    };
}

using KernelOnDevice = std::pair<int, const void *>;
std::map<KernelOnDevice, size_t> &dynamic_limits() {
    static auto *const limits = new std::map<KernelOnDevice, size_t>;
    return *limits;
}

}  // namespace

void open_device_memory(bool open) {
    (void)open;
#ifdef CUDA_HOST_ASAN
    if (!guards_memory()) { return; }
    for (const auto &entry : allocations()) {
        if (entry.second.kind != MemoryKind::device) { continue; }
        const void *memory = reinterpret_cast<const void *>(entry.first & ~disguise);
        (open ? __asan_unpoison_memory_region : __asan_poison_memory_region)(memory, entry.second.bytes);
    }
#endif
}

MemoryKind memory_kind(const void *memory) {
    const auto found = find(memory);
    return found == allocations().end() ? MemoryKind::pageable : found->second.kind;
}

bool memory_holds(const void *memory, size_t bytes) {
    const auto found = find(memory);
    return found == allocations().end() || bytes <= found->second.bytes - (number(memory) - found->first);
}

size_t largest_dynamic_shared(const void *kernel) {
    const auto found = dynamic_limits().find({current_device(), kernel});
    return found == dynamic_limits().end() ? 48 << 10 : found->second;
}

extern "C" {

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute, int value) {
    return api(__func__, [&] {
        if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) { return cudaSuccess; }
        if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) { return cudaErrorInvalidValue; }
        if (value < 0 || static_cast<size_t>(value) > largest_shared()) { return cudaErrorInvalidValue; }
        dynamic_limits()[{current_device(), kernel}] = static_cast<size_t>(value);
        return cudaSuccess;
    });
}

cudaError_t cudaMalloc(void **memory, size_t bytes) {
    return api(__func__, [&] {
        const cudaError_t forbidden = capture_forbids_unsafe();
        if (forbidden != cudaSuccess) { return forbidden; }
        const size_t used = bytes_used(current_device());
        if (bytes > device_bytes() || used > device_bytes() - bytes) { return cudaErrorMemoryAllocation; }
        return allocate(memory, bytes, MemoryKind::device);
    });
}

cudaError_t cudaFree(void *memory) {
    return api(__func__, [&] { return release(memory, MemoryKind::device); });
}

cudaError_t cudaMallocHost(void **memory, size_t bytes) {
    return api(__func__, [&] { return allocate_pinned(memory, bytes); });
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned int) {
    return api(__func__, [&] { return allocate_pinned(memory, bytes); });
}

cudaError_t cudaFreeHost(void *memory) {
    return api(__func__, [&] { return release(memory, MemoryKind::pinned); });
}

cudaError_t cudaHostRegister(void *memory, size_t bytes, unsigned int) {
    return api(__func__, [&] {
        const cudaError_t forbidden = capture_forbids_unsafe();
        if (forbidden != cudaSuccess) { return forbidden; }
        if (!memory || !bytes) { return cudaErrorInvalidValue; }
        const auto next = allocations().lower_bound(number(memory));
        const bool overlaps = next != allocations().end() && next->first - number(memory) < bytes;
        if (overlaps || find(memory) != allocations().end()) { return cudaErrorHostMemoryAlreadyRegistered; }
        allocations()[number(memory)] = Allocation{bytes, MemoryKind::pinned, current_device(), true};
        return cudaSuccess;
    });
}

cudaError_t cudaHostUnregister(void *memory) {
    return api(__func__, [&] {
        const cudaError_t forbidden = capture_forbids_unsafe();
        if (forbidden != cudaSuccess) { return forbidden; }
        const auto found = allocations().find(number(memory));
        if (found == allocations().end() || !found->second.registered) { return cudaErrorHostMemoryNotRegistered; }
        for (int device = 0; device < device_count(); device++) { finish_device(device); }
        allocations().erase(found);
        return cudaSuccess;
    });
}

cudaError_t cudaHostGetDevicePointer(void **device, void *memory, unsigned int) {
    return api(__func__, [&] {
        if (memory_kind(memory) != MemoryKind::pinned) { return cudaErrorInvalidValue; }
        *device = memory;
        return cudaSuccess;
    });
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *memory) {
    return api(__func__, [&] {
        const auto found = find(memory);
        void *plain = const_cast<void *>(memory);
        if (found == allocations().end()) {
            *attributes = cudaPointerAttributes{cudaMemoryTypeUnregistered, -2, nullptr, plain};
        } else if (found->second.kind == MemoryKind::device) {
            *attributes = cudaPointerAttributes{cudaMemoryTypeDevice, found->second.device, plain, nullptr};
        } else {
            *attributes = cudaPointerAttributes{cudaMemoryTypeHost, found->second.device, plain, plain};
        }
        return cudaSuccess;
    });
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
    return api(__func__, [&] {
        const size_t used = bytes_used(current_device());
        *total = device_bytes();
        *available = used < *total ? *total - used : 0;
        return cudaSuccess;
    });
}

// Between places of the device the host does not wait.
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    return api(__func__, [&] {
        cudaError_t error = capture_forbids_unsafe();
        if (error == cudaSuccess) { error = check_copy(to, from, bytes, kind); }
        if (error == cudaSuccess) { error = submit(nullptr, copying(to, from, bytes)); }
        if (error != cudaSuccess || (is_device(to) && is_device(from))) { return error; }
        return finish(nullptr);
    });
}

// Only between places of the host does the host wait; of memory that is not pinned it copies what it holds now.
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    return api(__func__, [&] {
        cudaError_t error = check_copy(to, from, bytes, kind);
        if (error != cudaSuccess) { return error; }
        const CUstream_st *target = stream_find(stream);
        if (!target) { return cudaErrorInvalidResourceHandle; }
        const bool staged = !is_capturing(target) && memory_kind(from) == MemoryKind::pageable;
        const bool waits = !is_capturing(target) && !is_device(from) && !is_device(to);
        error = submit(stream, staged ? copying_staged(to, from, bytes) : copying(to, from, bytes));
        return error == cudaSuccess && waits ? finish(stream) : error;
    });
}

// The host does not wait unless the memory is its own.
cudaError_t cudaMemset(void *memory, int value, size_t bytes) {
    return api(__func__, [&] {
        cudaError_t error = capture_forbids_unsafe();
        if (error == cudaSuccess) { error = check_set(memory, bytes); }
        if (error == cudaSuccess) { error = submit(nullptr, setting(memory, value, bytes)); }
        if (error != cudaSuccess || is_device(memory)) { return error; }
        return finish(nullptr);
    });
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream) {
    return api(__func__, [&] {
        const cudaError_t error = check_set(memory, bytes);
        return error != cudaSuccess ? error : submit(stream, setting(memory, value, bytes));
    });
}

}  // extern "C"
