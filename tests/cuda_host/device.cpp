// Devices, errors and what the environment asks for. It is read at every call, so that a test can change it.
#include <pthread.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "cuda_host.h"

namespace {

constexpr int version = CUDART_VERSION;

thread_local cudaError_t last_error = cudaSuccess;
thread_local int device_of_thread = 0;
cudaError_t device_failure = cudaSuccess;  // of a kernel; never goes away

long environment(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

struct Capability {
    int major, minor;
};

Capability capability() {
    Capability c = {9, 0};
    const char *text = getenv("CUDA_HOST_CAPABILITY");
    if (text && sscanf(text, "%d.%d", &c.major, &c.minor) != 2) {
        fprintf(stderr, "cuda_host: CUDA_HOST_CAPABILITY=%s is not of the form 9.0\n", text);
        abort();
    }
    return c;
}

cudaError_t keep(cudaError_t error) {
    if (error != cudaSuccess) { last_error = error; }
    return error;
}

std::recursive_mutex &mutex() {
    static auto *const one = new std::recursive_mutex;  // outlives destructors that call
    return *one;
}

cudaError_t run(const char *name, bool needs_device, const Call &body) {
    const std::lock_guard<std::recursive_mutex> lock(mutex());
    const cudaError_t fault = injected(name);
    if (fault != cudaSuccess) { return keep(fault); }
    if (needs_device && device_count() == 0) { return keep(cudaErrorNoDevice); }
    if (needs_device && in_host_function()) { return keep(cudaErrorNotPermitted); }
    if (needs_device && device_failure != cudaSuccess) { return keep(device_failure); }
    const cudaError_t error = body();
    return keep(error == cudaSuccess && needs_device ? device_failure : error);
}

}  // namespace

cudaError_t api(const char *name, const Call &body) { return run(name, true, body); }
cudaError_t api_without_device(const char *name, const Call &body) { return run(name, false, body); }

cudaError_t injected(const char *name) {
    static std::map<std::string, long> calls;
    static std::string plan;
    const char *now = getenv("CUDA_HOST_FAIL");
    if (!now) { now = ""; }
    if (plan != now) {  // also when it was taken back
        plan = now;
        calls.clear();
    }
    if (!*now) { return cudaSuccess; }
    const long call = ++calls[name];
    const size_t length = strlen(name);
    for (const char *entry = now; entry; entry = strchr(entry, ',')) {
        entry += *entry == ',';
        long which;
        int error;
        if (!strncmp(entry, name, length) && entry[length] == ':' &&
            sscanf(entry + length, ":%ld:%d", &which, &error) == 2 && which == call) {
            return static_cast<cudaError_t>(error);
        }
    }
    return cudaSuccess;
}

void fail_device(cudaError_t error) { device_failure = error; }

bool order_is_late() {
    const char *text = getenv("CUDA_HOST_ORDER");
    if (!text || !*text || !strcmp(text, "early")) { return false; }
    if (!strcmp(text, "late")) { return true; }
    fprintf(stderr, "cuda_host: CUDA_HOST_ORDER=%s is neither early nor late\n", text);
    abort();
}

bool guards_memory() { return environment("CUDA_HOST_GUARD", 1) != 0; }

int device_count() { return static_cast<int>(environment("CUDA_HOST_DEVICES", 1)); }
int current_device() { return device_of_thread; }
size_t device_bytes() { return static_cast<size_t>(environment("CUDA_HOST_MEMORY", 8L << 30)); }

size_t largest_shared() {
    const Capability c = capability();
    const int code = c.major * 10 + c.minor;
    const size_t kib = code < 75 ? 96 : code < 80 ? 64 : code == 80 || code == 87 ? 163 : code < 90 ? 99 : 227;
    return (code >= 120 ? 99 : kib) << 10;
}

extern "C" {

#define CUDA_HOST_NAME(name, value, text) \
    case name:                            \
        return #name;
const char *cudaGetErrorName(cudaError_t error) {
    switch (error) { CUDA_HOST_ERRORS(CUDA_HOST_NAME) }
    return "unrecognized error code";
}

#define CUDA_HOST_TEXT(name, value, text) \
    case name:                            \
        return text;
const char *cudaGetErrorString(cudaError_t error) {
    switch (error) { CUDA_HOST_ERRORS(CUDA_HOST_TEXT) }
    return "unrecognized error code";
}

cudaError_t cudaPeekAtLastError(void) { return last_error; }

cudaError_t cudaGetLastError(void) {
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaDriverGetVersion(int *number) {
    return api_without_device(__func__, [&] {
        *number = device_count() ? version : 0;
        return cudaSuccess;
    });
}

cudaError_t cudaRuntimeGetVersion(int *number) {
    return api_without_device(__func__, [&] {
        *number = version;
        return cudaSuccess;
    });
}

cudaError_t cudaGetDeviceCount(int *count) {
    *count = 0;
    return api(__func__, [&] {
        *count = device_count();
        return cudaSuccess;
    });
}

cudaError_t cudaGetDevice(int *device) {
    return api(__func__, [&] {
        *device = device_of_thread;
        return cudaSuccess;
    });
}

cudaError_t cudaSetDevice(int device) {
    return api(__func__, [&] {
        if (device < 0 || device >= device_count()) { return cudaErrorInvalidDevice; }
        device_of_thread = device;
        return cudaSuccess;
    });
}

cudaError_t cudaSetDeviceFlags(unsigned int) {
    return api(__func__, [] { return cudaSuccess; });
}

// The same in all processes of the host, another for each device and host.
static cudaUUID_t device_uuid(int device) {
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    uint64_t hash = 14695981039346656037u;  // FNV-1a
    for (const char *c = host; *c; c++) { hash = (hash ^ static_cast<unsigned char>(*c)) * 1099511628211u; }
    cudaUUID_t uuid = {};
    memcpy(uuid.bytes, &hash, sizeof hash);
    memcpy(uuid.bytes + 8, "emul", 4);
    memcpy(uuid.bytes + 12, &device, sizeof device);
    return uuid;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
    return api(__func__, [&] {
        if (device < 0 || device >= device_count()) { return cudaErrorInvalidDevice; }
        cudaDeviceProp p = {};
        snprintf(p.name, sizeof p.name, "Host emulation");
        p.uuid = device_uuid(device);
        p.totalGlobalMem = device_bytes();
        p.sharedMemPerBlock = 48 << 10;
        p.sharedMemPerBlockOptin = largest_shared();
        p.sharedMemPerMultiprocessor = largest_shared() + 1024;
        p.reservedSharedMemPerBlock = 1024;
        p.totalConstMem = 64 << 10;
        p.regsPerBlock = p.regsPerMultiprocessor = 64 << 10;
        p.warpSize = 32;
        p.maxThreadsPerBlock = p.maxThreadsDim[0] = p.maxThreadsDim[1] = 1024;
        p.maxThreadsDim[2] = 64;
        p.maxGridSize[0] = 0x7fffffff;
        p.maxGridSize[1] = p.maxGridSize[2] = 0xffff;
        p.major = capability().major;
        p.minor = capability().minor;
        p.multiProcessorCount = 4;
        p.canMapHostMemory = p.concurrentKernels = p.unifiedAddressing = p.hostRegisterSupported = 1;
        p.asyncEngineCount = 2;
        p.pciBusID = device + 1;
        p.memoryBusWidth = 64;
        p.l2CacheSize = 1 << 20;
        p.maxThreadsPerMultiProcessor = 2048;
        p.maxBlocksPerMultiProcessor = 32;
        *properties = p;
        return cudaSuccess;
    });
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    return api(__func__, [&] {
        cudaDeviceProp p;
        const cudaError_t error = cudaGetDeviceProperties(&p, device);
        if (error != cudaSuccess) { return error; }
        switch (attribute) {
            case cudaDevAttrMaxThreadsPerBlock:
                *value = p.maxThreadsPerBlock;
                break;
            case cudaDevAttrMaxSharedMemoryPerBlock:
                *value = static_cast<int>(p.sharedMemPerBlock);
                break;
            case cudaDevAttrWarpSize:
                *value = p.warpSize;
                break;
            case cudaDevAttrClockRate:
                *value = 1000000;
                break;
            case cudaDevAttrMultiProcessorCount:
                *value = p.multiProcessorCount;
                break;
            case cudaDevAttrIntegrated:
                *value = p.integrated;
                break;
            case cudaDevAttrMemoryClockRate:
                *value = 1000000;
                break;
            case cudaDevAttrGlobalMemoryBusWidth:
                *value = p.memoryBusWidth;
                break;
            case cudaDevAttrL2CacheSize:
                *value = p.l2CacheSize;
                break;
            case cudaDevAttrMaxThreadsPerMultiProcessor:
                *value = p.maxThreadsPerMultiProcessor;
                break;
            case cudaDevAttrComputeCapabilityMajor:
                *value = p.major;
                break;
            case cudaDevAttrComputeCapabilityMinor:
                *value = p.minor;
                break;
            case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
                *value = static_cast<int>(p.sharedMemPerMultiprocessor);
                break;
            case cudaDevAttrMaxSharedMemoryPerBlockOptin:
                *value = static_cast<int>(p.sharedMemPerBlockOptin);
                break;
            case cudaDevAttrHostRegisterSupported:
                *value = p.hostRegisterSupported;
                break;
            default:
                return cudaErrorInvalidValue;
        }
        return cudaSuccess;
    });
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int device) {
    return api(__func__, [&] {
        if (device < 0 || device >= device_count()) { return cudaErrorInvalidDevice; }
        const int wanted = snprintf(text, static_cast<size_t>(length), "0000:%02X:00.0", device + 1);
        return wanted < length ? cudaSuccess : cudaErrorInvalidValue;
    });
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) {
    return api(__func__, [&] {
        if (device < 0 || device >= device_count() || peer < 0 || peer >= device_count()) {
            return cudaErrorInvalidDevice;
        }
        *can = 0;
        return cudaSuccess;
    });
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    return api(__func__, [&] {
        *least = 0;
        *greatest = -5;
        return cudaSuccess;
    });
}

}  // extern "C"
