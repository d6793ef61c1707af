// Tests of the host emulation itself: that it computes what CUDA promises, and that what CUDA leaves open or forbids
// (early reads, missing waits, divergent barriers, overruns) shows. What ends the process is tried in children.
#include <cuda_runtime.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "cuda_bf16.h"

#if defined(__SANITIZE_ADDRESS__)
constexpr bool has_asan = true;
#elif defined(__has_feature)
constexpr bool has_asan = __has_feature(address_sanitizer);
#else
constexpr bool has_asan = false;
#endif

#define CHECK(condition)                                                         \
    do {                                                                         \
        if (!(condition)) {                                                      \
            printf("%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                             \
        }                                                                        \
    } while (0)
#define OK(call) check_error((call), cudaSuccess, #call, __LINE__)
#define FAILS(error, call)                             \
    do {                                               \
        check_error((call), (error), #call, __LINE__); \
        CHECK(cudaGetLastError() == (error));          \
    } while (0)

static void check_error(cudaError_t got, cudaError_t wanted, const char *call, int line) {
    if (got == wanted) { return; }
    printf("%s:%d: %s gave %s\n", __FILE__, line, call, cudaGetErrorName(got));
    exit(1);
}

static void set_order(const char *order) { setenv("CUDA_HOST_ORDER", order, 1); }

static cudaLaunchConfig_t config(dim3 grid, dim3 block, size_t shared = 0, cudaStream_t stream = nullptr) {
    cudaLaunchConfig_t c = {};
    c.gridDim = grid;
    c.blockDim = block;
    c.dynamicSmemBytes = shared;
    c.stream = stream;
    return c;
}

template <typename... Params, typename... Args>
static cudaError_t launch(dim3 grid, dim3 block, void (*kernel)(Params...), Args &&...args) {
    const cudaLaunchConfig_t c = config(grid, block);
    return cudaLaunchKernelEx(&c, kernel, std::forward<Args>(args)...);
}

template <typename... Params, typename... Args>
static cudaError_t launch_in(cudaStream_t stream, void (*kernel)(Params...), Args &&...args) {
    const cudaLaunchConfig_t c = config(1, 32, 0, stream);
    return cudaLaunchKernelEx(&c, kernel, std::forward<Args>(args)...);
}

template <typename T>
static T *device_array(size_t count) {
    T *memory;
    OK(cudaMalloc(&memory, count * sizeof(T)));
    return memory;
}

template <typename T>
static std::vector<T> host_copy(const T *memory, size_t count) {
    std::vector<T> copy(count);
    OK(cudaMemcpy(copy.data(), memory, count * sizeof(T), cudaMemcpyDeviceToHost));
    return copy;
}

// Runs body in a child, which has to die with a message that has the text in it.
static void check_dies(void (*body)(), const char *text) {
    int ends[2];
    CHECK(!pipe(ends));
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        body();
        _exit(0);
    }
    close(ends[1]);
    std::string said;
    char piece[4096];
    for (ssize_t n; (n = read(ends[0], piece, sizeof piece)) > 0;) { said.append(piece, static_cast<size_t>(n)); }
    close(ends[0]);
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    if (!(WIFEXITED(status) && WEXITSTATUS(status) == 0) && said.find(text) != std::string::npos) { return; }
    printf("a child should have died with \"%s\" but ended with %d and said:\n%s\n", text, status, said.c_str());
    exit(1);
}

// The index of the thread in the grid, with whole dimensions in use.
static __device__ unsigned place() {
    const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    return block * (blockDim.x * blockDim.y * blockDim.z) + thread;
}

static __global__ void number_threads(unsigned *out) { out[place()] = place() + 1; }

static __global__ void __launch_bounds__(256) reverse_block(float *x, int rounds) {
    __shared__ float shared[256];
    for (int round = 0; round < rounds; round++) {
        shared[threadIdx.x] = x[place()];
        __syncthreads();
        x[place()] = shared[blockDim.x - 1 - threadIdx.x];
        __syncthreads();
    }
}

// A third of the threads ends early; the barrier counts the others.
static __global__ void count_live(int *out) {
    if (threadIdx.x % 3 == 0) { return; }
    const int odd = __syncthreads_count(threadIdx.x % 2);
    const int any = __syncthreads_or(threadIdx.x == 1), all = __syncthreads_and(threadIdx.x != 1);
    out[threadIdx.x] = odd * 4 + any * 2 + all;
}

static void test_barriers() {
    const dim3 grid(3, 2, 2), block(5, 3, 7);
    const size_t count = 12 * 105;
    unsigned *numbers = device_array<unsigned>(count);
    OK(launch(grid, block, number_threads, numbers));
    const std::vector<unsigned> all = host_copy(numbers, count);
    for (size_t i = 0; i < count; i++) { CHECK(all[i] == i + 1); }
    OK(cudaFree(numbers));

    std::vector<float> start(3 * 200);
    for (size_t i = 0; i < start.size(); i++) { start[i] = static_cast<float>(i); }
    float *x = device_array<float>(start.size());
    OK(cudaMemcpy(x, start.data(), start.size() * sizeof *x, cudaMemcpyHostToDevice));
    OK(launch(3, 200, reverse_block, x, 7));
    const std::vector<float> turned = host_copy(x, start.size());
    for (size_t i = 0; i < start.size(); i++) { CHECK(turned[i] == start[i / 200 * 200 + 199 - i % 200]); }
    OK(cudaFree(x));

    int *out = device_array<int>(100);
    OK(cudaMemset(out, 0, 100 * sizeof *out));
    OK(launch(1, 100, count_live, out));
    const std::vector<int> votes = host_copy(out, 100);
    int odd = 0;
    for (int i = 0; i < 100; i++) { odd += i % 3 != 0 && i % 2; }
    for (size_t i = 0; i < 100; i++) { CHECK(votes[i] == (i % 3 ? odd * 4 + 2 : 0)); }
    OK(cudaFree(out));
}

template <typename T>
static __global__ void shuffle(T *out, int width) {
    const unsigned all = 0xffffffff, lane = threadIdx.x % 32;
    T *mine = out + threadIdx.x * 4;
    const T value = static_cast<T>(threadIdx.x) - 40;
    mine[0] = __shfl_sync(all, value, static_cast<int>(lane * 7 + 3), width);
    mine[1] = __shfl_up_sync(all, value, 3, width);
    mine[2] = __shfl_down_sync(all, value, 5, width);
    mine[3] = __shfl_xor_sync(all, value, 6, width);
}

template <typename T>
static void check_shuffles(int width) {
    T *out = device_array<T>(64 * 4);
    OK(launch(1, 64, shuffle<T>, out, width));
    const std::vector<T> got = host_copy(out, 64 * 4);
    for (int i = 0; i < 64; i++) {
        const int first = i & -width, last = first + width - 1;
        const int sources[4] = {first + ((i % 32 * 7 + 3) & (width - 1)), i - 3 < first ? i : i - 3,
                                i + 5 > last ? i : i + 5, (i ^ 6) > last ? i : i ^ 6};
        for (int k = 0; k < 4; k++) {
            CHECK(got[static_cast<size_t>(i * 4 + k)] == static_cast<T>(static_cast<T>(sources[k]) - 40));
        }
    }
    OK(cudaFree(out));
}

static __global__ void vote(unsigned *out) {
    const unsigned lane = threadIdx.x % 32, half = lane < 16 ? 0x0000ffff : 0xffff0000;
    unsigned *mine = out + threadIdx.x * 4;
    mine[0] = __ballot_sync(half, lane % 3 == 0);
    mine[1] = static_cast<unsigned>(__any_sync(half, lane == 20));
    mine[2] = static_cast<unsigned>(__all_sync(half, lane != 20));
    if (lane % 2) { __syncwarp(0xaaaaaaaa); }
    __syncwarp();
    mine[3] = lane < 31 ? __shfl_down_sync(0x7fffffff, lane, 1) : 0;
}

struct Term {
    float factor, sum;
};
static void sum_terms(Term *lanes[32]) {
    float sum = 0;
    for (int lane = 0; lane < 32; lane++) { sum += lanes[lane]->factor * static_cast<float>(lane); }
    for (int lane = 0; lane < 32; lane++) { lanes[lane]->sum = sum; }
}
static __global__ void collect(float *out) {
    Term mine = {2, 0};
    for (int i = 0; i < 3; i++) {
        cuda_host_warp_collective(&mine, sum_terms);
        mine.factor = mine.sum;
    }
    out[threadIdx.x] = mine.sum;
}

static void test_warps() {
    for (int width : {32, 16, 4, 1}) {
        check_shuffles<int>(width);
        check_shuffles<unsigned>(width);
        check_shuffles<float>(width);
        check_shuffles<double>(width);
    }
    unsigned *votes = device_array<unsigned>(64 * 4);
    OK(launch(1, 64, vote, votes));
    const std::vector<unsigned> got = host_copy(votes, 64 * 4);
    for (unsigned i = 0; i < 64; i++) {
        const unsigned lane = i % 32, *mine = &got[i * 4];
        CHECK(mine[0] == (lane < 16 ? 0x00009249u : 0x49240000u));
        CHECK(mine[1] == (lane >= 16) && mine[2] == (lane < 16));
        if (lane < 30) { CHECK(mine[3] == lane + 1); }
        if (lane == 30) { CHECK(mine[3] == 0xffffffff); }  // from a lane that did not take part
    }
    OK(cudaFree(votes));
    float *sums = device_array<float>(96);
    OK(launch(2, 96, collect, sums));
    for (float sum : host_copy(sums, 96)) { CHECK(sum == 2.0f * 496 * 496 * 496); }
    OK(cudaFree(sums));
}

static __global__ void sync_half() {
    if (threadIdx.x < 32) { __syncthreads(); }
    if (threadIdx.x >= 32) { __shfl_sync(0xffffffff, 1, 0); }
    if (threadIdx.x >= 48) { __shfl_sync(0xffff0000, 1, 0); }
    if (threadIdx.x >= 32) { __syncwarp(); }
    if (threadIdx.x == 63) { __syncwarp(); }
    if (threadIdx.x >= 32) { __syncthreads(); }
}
static __global__ void sync_apart() {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}
static __global__ void sync_unequal() {
    if (threadIdx.x < 8) { return; }
    __syncwarp(threadIdx.x < 16 ? 0xffffffff : 0xffff0000);
    __syncthreads();
}
static __global__ void sync_foreign() { __syncwarp(2); }
static __global__ void overrun(int bytes) { static_cast<volatile char *>(cuda_host_dynamic_shared())[bytes] = 1; }
static __global__ void copy_misaligned(const char *from) {
    cuda_host_copy_async(cuda_host_dynamic_shared(), from + 4, 16, 16);
}

static void test_deaths() {
    check_dies([] { (void)launch(1, 64, sync_half); }, "divergent: __syncthreads while thread");
    check_dies([] { (void)launch(1, 64, sync_apart); }, "divergent: __syncthreads");
    check_dies([] { (void)launch(dim3(1, 2), 32, sync_unequal); }, "block (0,0,0): deadlock");
    check_dies([] { (void)launch(1, 32, sync_unequal); }, "threads 8-15 wait in __syncwarp (mask 0xffffffff) at");
    check_dies([] { (void)launch(1, 32, sync_unequal); }, "threads 0-7 ended\n");
    check_dies([] { (void)launch(1, 32, sync_unequal); }, "threads 16-31 wait in __syncthreads");
    check_dies([] { (void)launch(1, 32, sync_foreign); }, "lane 0 is not in mask 0x00000002");
    check_dies([] { __syncthreads(); }, "outside of a kernel");
    check_dies(
        [] {
            const cudaLaunchConfig_t c = config(1, 1, 64);
            (void)cudaLaunchKernelEx(&c, copy_misaligned, device_array<char>(64));
        },
        "misaligned asynchronous copy of 16 bytes");
    if (!has_asan) { return; }
    check_dies(
        [] {
            const cudaLaunchConfig_t c = config(1, 1, 100);
            (void)cudaLaunchKernelEx(&c, overrun, 100);
        },
        "heap-buffer-overflow");
    check_dies([] { (void)launch(1, 26, number_threads, device_array<unsigned>(25)); }, "heap-buffer-overflow");
    check_dies([] { device_array<char>(100)[7] = 1; }, "use-after-poison");
    const char *options = getenv("ASAN_OPTIONS");
    if (options && strstr(options, "detect_leaks=0")) { return; }
    check_dies(
        [] {
            for (int i = 0; i < 9; i++) { OK(cudaMemset(device_array<char>(100), i, 100)); }
            exit(0);
        },
        "LeakSanitizer");
}

// Each block writes what it finds in shared memory and leaves something else there.
static __global__ void find_nan(float *out) {
    auto *shared = static_cast<float *>(cuda_host_dynamic_shared());
    out[place()] = shared[threadIdx.x];
    shared[threadIdx.x] = 1;
}

static void test_launches() {
    float *out = device_array<float>(96);
    OK(cudaFuncSetAttribute(find_nan, cudaFuncAttributeMaxDynamicSharedMemorySize, 48 << 10));
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    cudaLaunchConfig_t c = config(3, 32, 32 * sizeof(float));
    c.attrs = &attribute;
    c.numAttrs = 1;
    OK(cudaLaunchKernelEx(&c, find_nan, out));
    for (float x : host_copy(out, 96)) { CHECK(std::isnan(x)); }

    c = config(1, 32, (48 << 10) + 1);
    FAILS(cudaErrorInvalidValue, cudaLaunchKernelEx(&c, find_nan, out));
    OK(cudaFuncSetAttribute(find_nan, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 << 10));
    c.dynamicSmemBytes = 227 << 10;
    OK(cudaLaunchKernelEx(&c, find_nan, out));
    FAILS(cudaErrorInvalidValue,
          cudaFuncSetAttribute(find_nan, cudaFuncAttributeMaxDynamicSharedMemorySize, (227 << 10) + 1));
    for (const auto &wrong : {config(0, 1), config(1, 0), config(1, 1025), config(1, dim3(1, 1, 65)),
                              config(1, dim3(64, 32)), config(dim3(1, 65536), 1), config(dim3(1, 1, 65536), 1)}) {
        FAILS(cudaErrorInvalidConfiguration, cudaLaunchKernelEx(&wrong, find_nan, out));
    }
    OK(cudaFree(out));
}

static void test_memory() {
    char *device, *pinned, own[8];
    OK(cudaMalloc(&device, 100));
    OK(cudaMallocHost(&pinned, 100));
    CHECK(reinterpret_cast<uintptr_t>(device) % 256 == 0 && host_copy(device, 1)[0] == static_cast<char>(0xff));
    FAILS(cudaErrorInvalidValue, cudaMemcpy(device, pinned, 101, cudaMemcpyHostToDevice));
    FAILS(cudaErrorInvalidValue, cudaMemcpy(device + 93, own, 8, cudaMemcpyHostToDevice));
    FAILS(cudaErrorInvalidValue, cudaMemcpy(device, own, 8, cudaMemcpyDeviceToHost));
    FAILS(cudaErrorInvalidValue, cudaMemset(own, 0, 8));
    FAILS(cudaErrorInvalidValue, cudaFree(pinned));
    FAILS(cudaErrorInvalidValue, cudaFree(device + 1));
    OK(cudaFree(nullptr));
    OK(cudaHostRegister(own, sizeof own, cudaHostRegisterDefault));
    FAILS(cudaErrorHostMemoryAlreadyRegistered, cudaHostRegister(own + 1, 1, 0));
    OK(cudaHostUnregister(own));
    FAILS(cudaErrorHostMemoryNotRegistered, cudaHostUnregister(own));

    setenv("CUDA_HOST_MEMORY", "1000", 1);
    size_t available, total;
    OK(cudaMemGetInfo(&available, &total));
    CHECK(available == 900 && total == 1000);
    void *more;
    FAILS(cudaErrorMemoryAllocation, cudaMalloc(&more, 901));
    OK(cudaMalloc(&more, 900));
    OK(cudaFree(more));
    unsetenv("CUDA_HOST_MEMORY");
    OK(cudaFreeHost(pinned));
    OK(cudaFree(device));
}

static __global__ void set_value(int *x, int value) {
    if (threadIdx.x == 0) { *x = value; }
}
static __global__ void copy_value(int *to, const int *from) {
    if (threadIdx.x == 0) { *to = *from; }
}

static cudaStream_t new_stream(unsigned flags = cudaStreamNonBlocking) {
    cudaStream_t stream;
    OK(cudaStreamCreateWithFlags(&stream, flags));
    return stream;
}
static cudaEvent_t new_event(unsigned flags = cudaEventDisableTiming) {
    cudaEvent_t event;
    OK(cudaEventCreateWithFlags(&event, flags));
    return event;
}

// One stream writes 7, another copies it, waiting or not for the first; what it copied.
static int hand_over(bool waits, bool records_first) {
    const cudaStream_t writer = new_stream(), reader = new_stream();
    const cudaEvent_t written = new_event();
    int *x = device_array<int>(2);
    OK(cudaMemset(x, 0, 2 * sizeof *x));
    OK(cudaDeviceSynchronize());
    if (!records_first && waits) { OK(cudaStreamWaitEvent(reader, written)); }
    OK(launch_in(writer, set_value, x, 7));
    OK(cudaEventRecord(written, writer));
    if (records_first && waits) { OK(cudaStreamWaitEvent(reader, written)); }
    OK(launch_in(writer, set_value, x, 8));
    OK(launch_in(reader, copy_value, x + 1, x));
    OK(cudaStreamSynchronize(reader));
    const int got = host_copy(x + 1, 1)[0];
    OK(cudaStreamDestroy(writer));
    OK(cudaDeviceSynchronize());
    CHECK(host_copy(x, 1)[0] == 8);
    OK(cudaEventDestroy(written));
    OK(cudaStreamDestroy(reader));
    FAILS(cudaErrorInvalidResourceHandle, cudaStreamSynchronize(reader));
    OK(cudaFree(x));
    return got;
}

// Pinned memory is read when the copy runs, other memory when it is submitted.
static int late_source(bool is_pinned) {
    int own = 1, *pinned, *x = device_array<int>(1);
    OK(cudaMallocHost(&pinned, sizeof *pinned));
    int *source = is_pinned ? pinned : &own;
    *source = 1;
    const cudaStream_t stream = new_stream();
    OK(cudaMemcpyAsync(x, source, sizeof *x, cudaMemcpyHostToDevice, stream));
    *source = 2;
    OK(cudaStreamSynchronize(stream));
    const int got = host_copy(x, 1)[0];
    OK(cudaStreamDestroy(stream));
    OK(cudaFreeHost(pinned));
    OK(cudaFree(x));
    return got;
}

static void count_up(void *counter) {
    ++*static_cast<int *>(counter);
    int device;
    FAILS(cudaErrorNotPermitted, cudaGetDevice(&device));
}

// Threads of the host share fibers, and each has its own device and last error.
static void test_threads() {
    float *x = device_array<float>(4 * 200);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; t++) {
        threads.emplace_back([x, t] {
            CHECK(cudaPeekAtLastError() == cudaSuccess);
            for (int i = 0; i < 10; i++) { OK(launch(1, 200, reverse_block, x + t * 200, 2)); }
            OK(cudaDeviceSynchronize());
            (void)cudaSetDevice(-1);
        });
    }
    for (std::thread &thread : threads) { thread.join(); }
    OK(cudaGetLastError());
    OK(cudaFree(x));
}

static void test_polling(bool late) {
    const cudaStream_t stream = new_stream();
    const cudaEvent_t start = new_event(cudaEventDefault), end = new_event(cudaEventDefault);
    int counter = 0, polls = 0;
    OK(cudaEventRecord(start, stream));
    for (int i = 0; i < 3; i++) { OK(cudaLaunchHostFunc(stream, count_up, &counter)); }
    OK(cudaEventRecord(end, stream));
    CHECK(counter == (late ? 0 : 3));
    while (cudaEventQuery(end) == cudaErrorNotReady) { polls++; }
    CHECK(counter == 3 && polls == (late ? 5 : 0));
    OK(cudaStreamQuery(stream));
    (void)cudaGetLastError();
    float milliseconds;
    OK(cudaEventElapsedTime(&milliseconds, start, end));
    CHECK(milliseconds >= 0);
    OK(cudaEventDestroy(start));
    OK(cudaEventDestroy(end));
    OK(cudaStreamDestroy(stream));
}

// The null stream comes after a blocking stream, but not after another.
static int null_stream_sees(unsigned flags) {
    const cudaStream_t stream = new_stream(flags);
    int *x = device_array<int>(2);
    OK(cudaMemset(x, 0, 2 * sizeof *x));
    OK(cudaDeviceSynchronize());
    OK(launch_in(stream, set_value, x, 5));
    OK(launch_in(nullptr, copy_value, x + 1, x));
    const int got = host_copy(x + 1, 1)[0];
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(x));
    return got;
}

static void test_streams(bool late) {
    CHECK(hand_over(false, true) == (late ? 0 : 8));  // the missing wait shows
    CHECK(hand_over(true, true) == (late ? 7 : 8));
    CHECK(hand_over(true, false) == (late ? 0 : 8));  // an event never recorded
    CHECK(late_source(true) == (late ? 2 : 1) && late_source(false) == 1);
    CHECK(null_stream_sees(cudaStreamDefault) == 5);
    CHECK(null_stream_sees(cudaStreamNonBlocking) == (late ? 0 : 5));
    test_polling(late);
}

static void append_digit(int *x, int digit) { *x = *x * 10 + digit; }
static __global__ void append(int *x, int digit) {
    if (threadIdx.x == 0) { append_digit(x, digit); }
}

struct Fork {
    cudaStream_t main, side;
    cudaEvent_t forked, joined;
    int *x;
};
static Fork make_fork() { return {new_stream(), new_stream(), new_event(), new_event(), device_array<int>(1)}; }
static void drop_fork(const Fork &f) {
    OK(cudaStreamDestroy(f.main));
    OK(cudaStreamDestroy(f.side));
    OK(cudaEventDestroy(f.forked));
    OK(cudaEventDestroy(f.joined));
    OK(cudaFree(f.x));
}

// Captures 1, then 2 beside 3, then 4.
static cudaError_t capture_diamond(const Fork &f, bool joins, cudaGraph_t *graph) {
    OK(cudaStreamBeginCapture(f.main, cudaStreamCaptureModeThreadLocal));
    OK(cudaMemsetAsync(f.x, 0, sizeof *f.x, f.main));
    OK(launch_in(f.main, append, f.x, 1));
    OK(cudaEventRecord(f.forked, f.main));
    OK(cudaStreamWaitEvent(f.side, f.forked));
    OK(launch_in(f.main, append, f.x, 2));
    OK(launch_in(f.side, append, f.x, 3));
    OK(cudaEventRecord(f.joined, f.side));
    if (joins) { OK(cudaStreamWaitEvent(f.main, f.joined)); }
    OK(launch_in(f.main, append, f.x, 4));
    return cudaStreamEndCapture(f.main, graph);
}

static void test_graphs(bool late) {
    const Fork f = make_fork();
    cudaGraph_t graph;
    OK(capture_diamond(f, true, &graph));
    size_t count = 0;
    OK(cudaGraphGetNodes(graph, nullptr, &count));
    CHECK(count == 5);
    cudaGraphExec_t exec;
    OK(cudaGraphInstantiate(&exec, graph));
    OK(cudaGraphDestroy(graph));
    OK(cudaGraphLaunch(exec, f.main));
    OK(launch_in(f.main, append, f.x, 5));
    OK(cudaGraphLaunch(exec, f.side));
    OK(cudaStreamSynchronize(f.main));
    CHECK(host_copy(f.x, 1)[0] == (late ? 13245 : 1234));
    OK(cudaStreamSynchronize(f.side));
    CHECK(host_copy(f.x, 1)[0] == (late ? 1324 : 1234));
    OK(cudaGraphExecDestroy(exec));
    drop_fork(f);
}

static void test_capture_errors() {
    const Fork f = make_fork();
    cudaGraph_t graph;
    FAILS(cudaErrorStreamCaptureUnjoined, capture_diamond(f, false, &graph));
    CHECK(!graph);
    FAILS(cudaErrorCapturedEvent, cudaEventSynchronize(f.joined));
    cudaStreamCaptureStatus status;
    void *memory;
    const auto spoilt_by = [&](cudaError_t error, auto call) {
        OK(cudaStreamBeginCapture(f.main, cudaStreamCaptureModeThreadLocal));
        FAILS(error, call());
        OK(cudaStreamIsCapturing(f.main, &status));
        CHECK(status == cudaStreamCaptureStatusInvalidated);
        FAILS(cudaErrorStreamCaptureInvalidated, launch_in(f.main, append, f.x, 1));
        FAILS(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(f.main, &graph));
        OK(cudaStreamIsCapturing(f.main, &status));
        CHECK(status == cudaStreamCaptureStatusNone);
    };
    spoilt_by(cudaErrorStreamCaptureUnsupported, [&] { return cudaStreamSynchronize(f.main); });
    spoilt_by(cudaErrorStreamCaptureUnsupported, [&] { return cudaStreamQuery(f.main); });
    spoilt_by(cudaErrorStreamCaptureUnsupported, [&] { return cudaDeviceSynchronize(); });
    spoilt_by(cudaErrorStreamCaptureUnsupported, [&] { return cudaMalloc(&memory, 1); });
    spoilt_by(cudaErrorStreamCaptureUnsupported, [&] { return cudaMemset(f.x, 0, 1); });
    OK(cudaEventRecord(f.joined, f.side));
    spoilt_by(cudaErrorStreamCaptureIsolation, [&] { return cudaStreamWaitEvent(f.main, f.joined); });

    OK(cudaStreamBeginCapture(f.main, cudaStreamCaptureModeRelaxed));
    OK(cudaMalloc(&memory, 1));
    FAILS(cudaErrorIllegalState, cudaStreamBeginCapture(f.main, cudaStreamCaptureModeRelaxed));
    OK(cudaStreamSynchronize(f.side));
    OK(cudaStreamEndCapture(f.main, &graph));
    OK(cudaGraphDestroy(graph));
    FAILS(cudaErrorIllegalState, cudaStreamEndCapture(f.main, &graph));
    OK(cudaFree(memory));
    drop_fork(f);
}

// Thread i copies four floats, or fewer at the end, from global memory in each of two groups.
static __global__ void copy_async(const float *from, int count, float *out) {
    auto *shared = static_cast<float *>(cuda_host_dynamic_shared());
    float *mine = shared + threadIdx.x * 8;
    for (int group = 0; group < 2; group++) {
        const int first = (static_cast<int>(threadIdx.x) * 2 + group) * 4, left = max(0, min(4, count - first));
        cuda_host_copy_async(mine + group * 4, left ? from + first : from, 16, left * 4);
        cuda_host_copy_commit();
    }
    float *row = out + threadIdx.x * 4;
    row[0] = mine[0];
    cuda_host_copy_wait(1);
    row[1] = mine[0];
    row[2] = mine[4];
    cuda_host_copy_wait(0);
    row[3] = mine[4] + mine[5] + mine[6] + mine[7];
}

static void test_copies() {
    const int count = 29;
    std::vector<float> start(count);
    for (int i = 0; i < count; i++) { start[static_cast<size_t>(i)] = static_cast<float>(i + 1); }
    float *from = device_array<float>(count), *out = device_array<float>(16);
    OK(cudaMemcpy(from, start.data(), count * sizeof *from, cudaMemcpyHostToDevice));
    const cudaLaunchConfig_t c = config(1, 4, 4 * 8 * sizeof(float));
    OK(cudaLaunchKernelEx(&c, copy_async, from, count, out));
    const std::vector<float> got = host_copy(out, 16);
    for (int thread = 0; thread < 4; thread++) {
        const float *row = &got[static_cast<size_t>(thread * 4)];
        CHECK(std::isnan(row[0]) && row[1] == static_cast<float>(thread * 8 + 1) && std::isnan(row[2]));
        float sum = 0;
        for (int i = thread * 8 + 4; i < thread * 8 + 8 && i < count; i++) { sum += static_cast<float>(i + 1); }
        CHECK(row[3] == sum);
    }
    OK(cudaFree(from));
    OK(cudaFree(out));
}

static void test_devices() {
    int count, value;
    cudaDeviceProp first, second;
    setenv("CUDA_HOST_DEVICES", "2", 1);
    OK(cudaGetDeviceCount(&count));
    CHECK(count == 2);
    OK(cudaGetDeviceProperties(&first, 0));
    OK(cudaGetDeviceProperties(&second, 1));
    CHECK(memcmp(&first.uuid, &second.uuid, sizeof first.uuid) && first.major == 9 && first.minor == 0);
    FAILS(cudaErrorInvalidDevice, cudaSetDevice(2));
    const cudaStream_t stream = new_stream();
    OK(cudaSetDevice(1));
    FAILS(cudaErrorInvalidResourceHandle, launch_in(stream, sync_foreign));
    OK(cudaSetDevice(0));
    OK(cudaStreamDestroy(stream));
    setenv("CUDA_HOST_CAPABILITY", "7.5", 1);
    OK(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    CHECK(value == 64 << 10);
    unsetenv("CUDA_HOST_CAPABILITY");
    setenv("CUDA_HOST_DEVICES", "0", 1);
    FAILS(cudaErrorNoDevice, cudaGetDeviceCount(&count));
    CHECK(count == 0 && !strcmp(cudaGetErrorString(cudaErrorNoDevice), "no CUDA-capable device is detected"));
    unsetenv("CUDA_HOST_DEVICES");
}

static void test_faults() {
    void *memory[3];
    setenv("CUDA_HOST_FAIL", "cudaStreamSynchronize:1:700,cudaMalloc:3:2,cudaLaunchKernelEx:1:719", 1);
    OK(cudaMalloc(&memory[0], 1));
    OK(cudaMalloc(&memory[1], 1));
    FAILS(cudaErrorMemoryAllocation, cudaMalloc(&memory[2], 1));
    OK(cudaMalloc(&memory[2], 1));
    FAILS(cudaErrorIllegalAddress, cudaStreamSynchronize(nullptr));
    FAILS(cudaErrorLaunchFailure, launch(1, 1, sync_foreign));
    unsetenv("CUDA_HOST_FAIL");
    for (void *one : memory) { OK(cudaFree(one)); }
    // A kernel's fault is found by whoever waits, and stays.
    check_dies(
        [] {
            set_order("late");
            setenv("CUDA_HOST_FAIL", "kernel:1:700", 1);
            OK(launch(1, 1, sync_foreign));
            FAILS(cudaErrorIllegalAddress, cudaDeviceSynchronize());
            FAILS(cudaErrorIllegalAddress, cudaStreamSynchronize(nullptr));
            fprintf(stderr, "as it should");
            _exit(1);
        },
        "as it should");
}

static void test_arithmetic() {
    CHECK(__popc(0xf0f0) == 8 && __ffs(8) == 4 && __ffs(0) == 0 && __clz(1) == 31);
    CHECK(__umulhi(0xffffffff, 3) == 2 && __float_as_uint(1.0f) == 0x3f800000 && __uint_as_float(0x40000000) == 2);
    CHECK(min(-1, 2u) == 2 && max(1.0f, NAN) == 1 && min(3L, -2L) == -2 && max(1.0f, 2.0) == 2);
    CHECK(rsqrtf(4) == 0.5f && __expf(0) == 1 && __frcp_rn(4) == 0.25f && make_float4(1, 2, 3, 4).w == 4);
    CHECK(sizeof(uint4) == 16 && alignof(float4) == 16 && alignof(int2) == 8 && sizeof(float3) == 12);
    CHECK(__float2bfloat16_rn(1.00390625f).bits == 0x3f80 && __float2bfloat16_rn(1.01171875f).bits == 0x3f82);
    CHECK(__bfloat162float(__ushort_as_bfloat16(0x4040)) == 3);
}

int main() {
    test_arithmetic();
    for (const char *order : {"early", "late"}) {
        set_order(order);
        const bool late = !strcmp(order, "late");
        test_barriers();
        test_warps();
        test_launches();
        test_memory();
        test_streams(late);
        test_threads();
        test_graphs(late);
        test_capture_errors();
        test_copies();
        test_devices();
        test_faults();
    }
    set_order("early");
    test_deaths();
    printf("host emulation: all tests passed\n");
    return 0;
}
