// Runs kernels: block after block, the threads of a block as fibers of the calling OS thread. A fiber is a stack on
// which threads run one after another; only a thread that has to wait keeps one, so kernels without barriers cost
// little more than a loop. A barrier is a list of waiting threads that becomes part of the list of those ready to go
// on; when nobody is ready and some wait, that is a deadlock, and reported.
#include <boost/context/detail/fcontext.hpp>

// CUDA's headers define __shared__ and the like, so they come after all others.
#include <cxxabi.h>
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cuda_host.h"
#include "cuda_runtime.h"

extern "C" {
void __sanitizer_start_switch_fiber(void **fake_stack, const void *bottom, size_t size) __attribute__((weak));
void __sanitizer_finish_switch_fiber(void *fake_stack, const void **bottom, size_t *size) __attribute__((weak));
void __sanitizer_symbolize_pc(void *pc, const char *format, char *text, size_t size) __attribute__((weak));
}

using boost::context::detail::fcontext_t;
using boost::context::detail::transfer_t;

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace {

#ifdef CUDA_HOST_ASAN
constexpr size_t stack_size = 256 << 10;
#else
constexpr size_t stack_size = 128 << 10;
#endif
constexpr unsigned most_threads = 1024;
constexpr unsigned all_lanes = 0xffffffff;

struct Fiber {
    fcontext_t context;
    const void *bottom;
    size_t size;
    void *fake_stack;  // AddressSanitizer's
    Fiber *next_idle;
};

// One cp.async, not yet made.
struct Copy {
    void *to;
    const void *from;
    int bytes, valid;
    size_t group;
};

struct Thread {
    Thread *next;
    Fiber *fiber;
    uint3 index;
    unsigned number;
    const char *what, *file;  // what it waits for and where
    int line;
    unsigned mask;
    bool ended;
    size_t groups;  // of copies, committed
    std::vector<Copy> copies;
};

struct Queue {
    Thread *head, *tail;

    void push(Thread *thread) {
        thread->next = nullptr;
        (head ? tail->next : head) = thread;
        tail = thread;
    }
    Thread *pop() {
        Thread *first = head;
        if (first) { head = first->next; }
        return first;
    }
    // Appends the other queue and empties it.
    void append(Queue *other) {
        if (!other->head) { return; }
        (head ? tail->next : head) = other->head;
        tail = other->tail;
        other->head = nullptr;
    }
};

// Lanes of a warp that wait for the others of mask.
struct Gathering {
    unsigned mask, came;
    CudaHostBody body;
    const char *what;
    void *lanes[32];
    Queue waiting;
};

struct Warp {
    unsigned live;
    int gatherings;
    Gathering gathering[32];  // a lane waits in one at most
};

struct Barrier {
    Queue waiting;
    unsigned count;
    const char *what, *file;
    int line;
    int votes, result;
};

struct Block {
    const Kernel *kernel;
    bool late;
    char *shared;
    unsigned count, begun, live;
    Queue ready;
    Barrier barrier;
    Warp warps[most_threads / 32];
    Thread threads[most_threads];
};

Block block;
Thread *current;  // null outside of kernels
Fiber host;       // the OS thread's own stack
Fiber *running = &host;
Fiber *idle;

void begin_switch(Fiber *from, const Fiber *to) {
#ifdef CUDA_HOST_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->bottom, to->size);
#else
    (void)from, (void)to;
#endif
}

// Keeps where the fiber that switched to this one can be gone on with.
void end_switch(transfer_t transfer) {
    Fiber *from = static_cast<Fiber *>(transfer.data);
    from->context = transfer.fctx;
#ifdef CUDA_HOST_ASAN
    __sanitizer_finish_switch_fiber(running->fake_stack, &from->bottom, &from->size);
#endif
}

void switch_to(Fiber *to) {
    Fiber *from = running;
    if (from == to) { return; }
    running = to;
    begin_switch(from, to);
    end_switch(boost::context::detail::jump_fcontext(to->context, from));
}

void fiber_main(transfer_t transfer);

Fiber *make_fiber() {
    static unsigned made;
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    char *memory = static_cast<char *>(
        mmap(nullptr, page + stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE)) {
        perror("cuda_host: stack of a thread");
        abort();
    }
    // Tops at different places of their pages, lest they compete for the same cache lines.
    const size_t usable = stack_size - made++ % 16 * 256;
    auto *fiber = new Fiber{};
    fiber->bottom = memory + page;
    fiber->size = stack_size;
    fiber->context = boost::context::detail::make_fcontext(memory + page + usable, usable, fiber_main);
    return fiber;
}

Fiber *take_idle() {
    if (!idle) { return make_fiber(); }
    Fiber *fiber = idle;
    idle = fiber->next_idle;
    return fiber;
}

void leave_idle() {
    running->next_idle = idle;
    idle = running;
}

void set_current(Thread *thread) {
    current = thread;
    threadIdx = thread->index;
}

bool begin_next() {
    if (block.begun == block.count) { return false; }
    Thread *thread = &block.threads[block.late ? block.count - 1 - block.begun : block.begun];
    block.begun++;
    thread->fiber = running;
    thread->ended = false;
    thread->groups = 0;
    thread->copies.clear();
    set_current(thread);
    return true;
}

// Early, those who can go on do so before others begin; late, all begin first.
Thread *take_ready() { return block.late && block.begun < block.count ? nullptr : block.ready.pop(); }

// Makes the threads of a completed barrier ready: early at once, so that warps run ahead; late after all others.
void release(Queue *waiting) {
    if (!block.late) {
        waiting->append(&block.ready);
        block.ready = *waiting;
        waiting->head = nullptr;
    } else {
        block.ready.append(waiting);
    }
}

void release_barrier() {
    Barrier &barrier = block.barrier;
    barrier.result = barrier.votes;
    barrier.votes = 0;
    barrier.count = 0;
    release(&barrier.waiting);
}

void end_thread() {
    Warp &warp = block.warps[current->number / 32];
    current->ended = true;
    warp.live &= ~(1u << current->number % 32);
    block.live--;
    if (block.barrier.count && block.barrier.count == block.live) { release_barrier(); }
    for (int i = warp.gatherings; i-- > 0;) {
        Gathering &gathering = warp.gathering[i];
        if (gathering.mask & warp.live & ~gathering.came) { continue; }
        gathering.body(gathering.lanes, gathering.came);
        release(&gathering.waiting);
        gathering = warp.gathering[--warp.gatherings];
    }
}

void print_kernel() {
    char name[512] = "";
    Dl_info info = {};
    void *address = const_cast<void *>(block.kernel->address);
    const bool found = dladdr(address, &info) != 0;
    if (__sanitizer_symbolize_pc) {
        // Takes what it gets for a return address, which lies behind the call.
        __sanitizer_symbolize_pc(static_cast<char *>(address) + 1, "%f", name, sizeof name);
    } else if (found && info.dli_saddr == address) {
        int status;
        char *clear = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
        snprintf(name, sizeof name, "%s", clear ? clear : info.dli_sname);
        free(clear);
    } else if (found) {  // for addr2line -f -e
        const auto offset = static_cast<char *>(address) - static_cast<char *>(info.dli_fbase);
        snprintf(name, sizeof name, "%s+0x%zx", info.dli_fname, static_cast<size_t>(offset));
    }
    fprintf(stderr, "cuda_host: kernel %p %s, block (%u,%u,%u)", address, name, blockIdx.x, blockIdx.y, blockIdx.z);
}

bool same_state(const Thread &a, const Thread &b) {
    if (a.ended || b.ended) { return a.ended == b.ended; }
    return a.line == b.line && a.mask == b.mask && !strcmp(a.what, b.what) && !strcmp(a.file, b.file);
}

[[noreturn]] void report_deadlock() {
    print_kernel();
    fprintf(stderr, ": deadlock: no thread can go on\n");
    for (unsigned first = 0, end; first < block.count; first = end) {
        const Thread &thread = block.threads[first];
        for (end = first + 1; end < block.count && same_state(thread, block.threads[end]);) { end++; }
        fprintf(stderr, "  threads %u-%u ", first, end - 1);
        if (thread.ended) {
            fprintf(stderr, "ended\n");
        } else {
            char mask[32] = "";
            if (thread.mask) { snprintf(mask, sizeof mask, " (mask 0x%08x)", thread.mask); }
            fprintf(stderr, "wait in %s%s at %s:%d\n", thread.what, mask, thread.file, thread.line);
        }
    }
    abort();
}

// A fiber's life: begins threads and runs each to its end, and is idle when there is none to begin.
void fiber_main(transfer_t transfer) {
    end_switch(transfer);
    for (;;) {
        Thread *next = take_ready();
        if (next) {
            leave_idle();
            switch_to(next->fiber);
        } else if (begin_next()) {
            block.kernel->thread();
            end_thread();
        } else if (block.live == 0) {
            leave_idle();
            switch_to(&host);
        } else {
            report_deadlock();
        }
    }
}

// Lets others run until the current thread is ready and its turn comes.
void wait_for_turn() {
    Thread *self = current;
    Thread *next = take_ready();
    if (next) {
        switch_to(next->fiber);
    } else if (block.begun < block.count) {
        switch_to(take_idle());
    } else {
        report_deadlock();
    }
    set_current(self);
}

void note_place(const char *what, unsigned mask, const char *file, int line) {
    if (!current) { cuda_host_fault(file, line, "%s outside of a kernel", what); }
    current->what = what;
    current->mask = mask;
    current->file = file;
    current->line = line;
}

void run_block(uint3 index) {
    blockIdx = index;
    memset(block.shared, 0xff, block.kernel->shared);
    block.begun = 0;
    block.live = block.count;
    for (unsigned w = 0; w * 32 < block.count; w++) {
        const unsigned lanes = block.count - w * 32;
        block.warps[w].live = lanes < 32 ? (1u << lanes) - 1 : all_lanes;
    }
    switch_to(take_idle());
}

Gathering *find_gathering(Warp *warp, unsigned mask, CudaHostBody body, const char *what) {
    for (int i = 0; i < warp->gatherings; i++) {
        if (warp->gathering[i].mask == mask) { return &warp->gathering[i]; }
    }
    Gathering *gathering = &warp->gathering[warp->gatherings++];
    *gathering = Gathering{mask, 0, body, what, {}, {}};
    return gathering;
}

}  // namespace

void run_kernel(const Kernel &kernel) {
    block.kernel = &kernel;
    block.late = order_is_late();
    blockDim = kernel.block;
    gridDim = kernel.grid;
    block.count = kernel.block.x * kernel.block.y * kernel.block.z;
    for (unsigned i = 0; i < block.count; i++) {
        const unsigned line = i / blockDim.x;
        block.threads[i].number = i;
        block.threads[i].index = uint3{i % blockDim.x, line % blockDim.y, line / blockDim.y};
    }
    void *shared;
    if (posix_memalign(&shared, 16, kernel.shared)) { abort(); }
    block.shared = static_cast<char *>(shared);
    const size_t blocks = static_cast<size_t>(gridDim.x) * gridDim.y * gridDim.z;
    for (size_t i = 0; i < blocks; i++) {
        const size_t b = block.late ? blocks - 1 - i : i, line = b / gridDim.x;
        run_block(uint3{static_cast<unsigned>(b % gridDim.x), static_cast<unsigned>(line % gridDim.y),
                        static_cast<unsigned>(line / gridDim.y)});
    }
    free(shared);
    current = nullptr;
}

void cuda_host_fault(const char *file, int line, const char *format, ...) {
    fflush(stdout);
    if (current) {
        print_kernel();
        fprintf(stderr, ", thread (%u,%u,%u): ", threadIdx.x, threadIdx.y, threadIdx.z);
    } else {
        fprintf(stderr, "cuda_host: ");
    }
    fprintf(stderr, "%s:%d: ", file, line);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    abort();
}

void *cuda_host_dynamic_shared() { return block.shared; }

unsigned cuda_host_lane() { return current->number % 32; }

int cuda_host_barrier(int vote, const char *what, const char *file, int line) {
    note_place(what, 0, file, line);
    Barrier &barrier = block.barrier;
    if (!barrier.count) {
        barrier.what = what;
        barrier.file = file;
        barrier.line = line;
    } else if (barrier.line != line || strcmp(barrier.file, file)) {
        cuda_host_fault(file, line, "divergent: %s while thread %u waits in %s at %s:%d", what,
                        barrier.waiting.head->number, barrier.what, barrier.file, barrier.line);
    }
    barrier.votes += vote;
    barrier.waiting.push(current);
    if (++barrier.count == block.live) { release_barrier(); }
    wait_for_turn();
    return barrier.result;
}

void cuda_host_gather(unsigned mask, void *mine, CudaHostBody body, const char *what, const char *file, int line) {
    note_place(what, mask, file, line);
    Warp &warp = block.warps[current->number / 32];
    const unsigned lane = current->number % 32;
    if (!(mask >> lane & 1)) { cuda_host_fault(file, line, "%s: lane %u is not in mask 0x%08x", what, lane, mask); }
    Gathering *gathering = find_gathering(&warp, mask, body, what);
    if (gathering->body != body || strcmp(gathering->what, what)) {
        cuda_host_fault(file, line, "%s while other lanes of mask 0x%08x are in %s", what, mask, gathering->what);
    }
    gathering->lanes[lane] = mine;
    gathering->came |= 1u << lane;
    gathering->waiting.push(current);
    if (!(mask & warp.live & ~gathering->came)) {
        body(gathering->lanes, gathering->came);
        release(&gathering->waiting);
        *gathering = warp.gathering[--warp.gatherings];
    }
    wait_for_turn();
}

void cuda_host_copy_async(void *shared, const void *global, int bytes, int valid_bytes, const char *file, int line) {
    if (!current) { cuda_host_fault(file, line, "asynchronous copy outside of a kernel"); }
    if ((bytes != 4 && bytes != 8 && bytes != 16) || valid_bytes < 0 || valid_bytes > bytes) {
        cuda_host_fault(file, line, "asynchronous copy of %d bytes, %d of them valid", bytes, valid_bytes);
    }
    const auto misplaced =
        (reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) % static_cast<uintptr_t>(bytes);
    if (misplaced) { cuda_host_fault(file, line, "misaligned asynchronous copy of %d bytes", bytes); }
    memset(shared, 0xff, static_cast<size_t>(bytes));
    current->copies.push_back(Copy{shared, global, bytes, valid_bytes, current->groups});
}

void cuda_host_copy_commit() { current->groups++; }

void cuda_host_copy_wait(int groups_left) {
    std::vector<Copy> &copies = current->copies;
    size_t made = 0;
    for (; made < copies.size(); made++) {
        const Copy &copy = copies[made];
        if (copy.group + static_cast<size_t>(groups_left) >= current->groups) { break; }
        if (copy.valid) { memcpy(copy.to, copy.from, static_cast<size_t>(copy.valid)); }
        memset(static_cast<char *>(copy.to) + copy.valid, 0, static_cast<size_t>(copy.bytes - copy.valid));
    }
    copies.erase(copies.begin(), copies.begin() + static_cast<std::ptrdiff_t>(made));
}
