// See watchdog.h. A rank's own slot of the board can be reached from everywhere a rank makes progress, so the watchdog
// is a global.
#include "comm/watchdog.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "comm/comm.h"
#include "comm/process.h"
#include "comm/watchdog_board.h"

enum { TICK = 50 };                       // milliseconds between two looks
enum { PATIENT = 10 };                    // time-outs, in phases of long work
static const double longest_tick = 0.5;   // seconds; where more went by, this process did not run
static const double grace = 5.0;          // for a rank that ends by itself
static const double rest_to_leave = 1.5;  // for the others, before they are killed
static const double precedence = 2.0;     // of a node that sees a lost rank over one that only waits for it

// Who may do something long in a phase, so that its deadline is PATIENT time-outs.
typedef enum { NOBODY, FIRST_RANK, ANYBODY } LongWork;

static const struct {
    const char *name;
    LongWork long_work;
    bool waits;
} phases[WATCH_PHASES] = {
    [WATCH_START] = {"start-up", ANYBODY, false},     [WATCH_READ] = {"reading the data", ANYBODY, false},
    [WATCH_LOAD] = {"loading", ANYBODY, false},       [WATCH_STEP] = {"computing", NOBODY, false},
    [WATCH_REDUCE] = {"all-reduce", NOBODY, true},    [WATCH_EVALUATE] = {"evaluation", NOBODY, false},
    [WATCH_SAVE] = {"checkpoint", FIRST_RANK, false}, [WATCH_FINAL] = {"writing the model", FIRST_RANK, false},
    [WATCH_END] = {"closing", ANYBODY, false},
};

// The board of a rank that knows no other.
static struct {
    Board board;
    Slot slot;
} alone = {.board = {.ranks = 1}};

// What the thread looks at.
typedef struct {
    Board *board;
    int index;                       // of this rank's slot
    int next;                        // of the slot of the rank whose process this one observes, or -1
    bool observing;                  // it has signed in
    int next_fd;                     // readable when it has ended (pidfd), or -1
    double *idle;                    // (ranks) seconds without a beat
    double *used;                    // (ranks) processor seconds a while after the last beat
    uint64_t *beats;                 // (ranks) when last seen
    double next_stopped, next_gone;  // seconds since the observed process stopped, and ended by itself
    double dying, starting, scanned;
    int stopped_siblings;
} View;

static struct {
    pthread_t thread;
    bool started;
    int wake;  // eventfd: something for the thread to look at, or its end
    int board_fd;
    char host[64];
    _Atomic int log;
    atomic_bool end;
    _Atomic int64_t timeout;  // milliseconds, 0: off
    _Atomic int exit_code;    // of a rank that is dying
    _Atomic(View *) view;
    View *first;  // until watchdog_join; the thread may be at it when it is replaced
} dog = {.wake = -1, .board_fd = -1, .log = -1};

static Slot *own = &alone.slot;  // of the main thread

// ---- What the ranks' main threads show.

// There is one writer: no need for what several would take.
static void count(_Atomic int32_t *value, int32_t change) {
    atomic_store_explicit(value, atomic_load_explicit(value, memory_order_relaxed) + change, memory_order_relaxed);
}

void watchdog_beat(void) {
    const uint64_t beats = atomic_load_explicit(&own->beats, memory_order_relaxed);
    atomic_store_explicit(&own->beats, beats + 1, memory_order_relaxed);
}

void watchdog_phase(WatchPhase phase, int64_t step) {
    atomic_store_explicit(&own->step, step, memory_order_relaxed);
    atomic_store_explicit(&own->phase, (int32_t)phase, memory_order_relaxed);
    watchdog_beat();
}

void watchdog_set_computes(bool computes) { atomic_store_explicit(&own->computes, computes, memory_order_relaxed); }

void watchdog_wait_begin(void) { count(&own->waiting, 1); }

void watchdog_wait_end(void) {
    count(&own->waiting, -1);
    watchdog_beat();
}

void watchdog_dying(int code) {
    atomic_store(&dog.exit_code, code);
    atomic_store(&own->life, LIFE_DYING);
}

// ---- The end.

static void pause_for(double seconds) {
    const struct timespec time = {(time_t)seconds, (long)(1e9 * (seconds - (double)(time_t)seconds))};
    nanosleep(&time, NULL);
}

// Writes what fits without waiting: who reads may have stopped, too.
static void put(int fd, const char *text) {
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    if (fd < 0 || poll(&ready, 1, 200) != 1 || !(ready.revents & POLLOUT)) { return; }
    if (write(fd, text, strlen(text)) < 0) { return; }
}

static void put_verdict(const char *text, bool spoken) {
    char line[1200], stamp[32] = "";
    const time_t now = time(NULL);
    struct tm local;
    if (localtime_r(&now, &local)) { strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &local); }
    if (spoken) {
        snprintf(line, sizeof line, "%sbertune: %s\n", isatty(STDERR_FILENO) ? "\r\033[K" : "", text);
        put(STDERR_FILENO, line);
    }
    snprintf(line, sizeof line, "%s %s\n", stamp, text);
    put(atomic_load(&dog.log), line);
}

static ProcessState state_of(Slot *slot, int *signal) {
    return process_look(atomic_load(&slot->pid), atomic_load(&slot->started), signal);
}

// Sends a signal to the other processes of the node that are still there, and counts them; 0: only counts.
static int signal_others(const View *view, int number) {
    int left = 0, signal;
    for (int i = 0; i < view->board->ranks; i++) {
        Slot *slot = board_slot(view->board, i);
        if (i == view->index || state_of(slot, &signal) == PROCESS_ENDED) { continue; }
        kill(atomic_load(&slot->pid), number);
        left++;
    }
    return left;
}

// The other processes of the node end by themselves when they see the verdict; those that are stopped are woken for
// it, so that their exit code is theirs, and those that do not end are killed.
static void end_others(const View *view) {
    signal_others(view, SIGCONT);
    for (double waited = 0.0; waited < rest_to_leave; waited += 0.02) {
        if (signal_others(view, 0) == 0) { return; }
        pause_for(0.02);
    }
    signal_others(view, SIGKILL);
}

// Waits until the launcher has been told of ranks that have ended, so that their exit code is the first it knows of.
static void await_launcher(const View *view) {
    int untold = 1;
    for (int times = 0; untold && times < 50; times++) {
        untold = 0;
        for (int i = 0; i < view->board->ranks; i++) {
            Slot *slot = board_slot(view->board, i);
            int signal;
            untold += state_of(slot, &signal) == PROCESS_ENDED &&
                      process_started(atomic_load(&slot->pid)) == atomic_load(&slot->started);
        }
        if (untold) { pause_for(0.01); }
    }
}

// Another has written why.
static void obey(const View *view) {
    Verdict *verdict = &view->board->verdict;
    for (int i = 0; i < 100 && atomic_load(&verdict->state) != VERDICT_WRITTEN; i++) { pause_for(0.01); }
    if (atomic_load(&verdict->state) == VERDICT_WRITTEN) { put_verdict(verdict->text, false); }
    _exit(EX_PEER_LOST);
}

static void condemn(const View *view, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
static void condemn(const View *view, const char *format, ...) {
    Verdict *verdict = &view->board->verdict;
    int none = VERDICT_NONE;
    if (!atomic_compare_exchange_strong(&verdict->state, &none, VERDICT_WRITING)) { obey(view); }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(verdict->text, sizeof verdict->text, format, arguments);
    va_end(arguments);
    put_verdict(verdict->text, true);
    await_launcher(view);
    atomic_store(&verdict->state, VERDICT_WRITTEN);
    end_others(view);
    _exit(EX_PEER_LOST);
}

// ---- What the thread sees.

static WatchPhase phase_of(Slot *slot) {
    const int32_t phase = atomic_load_explicit(&slot->phase, memory_order_relaxed);
    return phase >= 0 && phase < WATCH_PHASES ? (WatchPhase)phase : WATCH_START;
}

static bool waits(Slot *slot) {
    return phases[phase_of(slot)].waits || atomic_load_explicit(&slot->waiting, memory_order_relaxed) > 0;
}

static bool watched(Slot *slot) { return atomic_load(&slot->life) == LIFE_WATCHED; }

static double timeout_seconds(void) { return 1e-3 * (double)atomic_load(&dog.timeout); }

// Of a rank that works.
static double deadline_of(Slot *slot) {
    return (phases[phase_of(slot)].long_work != NOBODY ? PATIENT : 1) * timeout_seconds();
}

// Of ranks that all wait. Where it is the first rank that works, it is elsewhere, or it would not wait.
static double waiting_deadline(const View *view, Slot *slot) {
    const LongWork work = phases[phase_of(slot)].long_work;
    const bool first_here = atomic_load(&board_slot(view->board, 0)->rank) == 0;
    const bool patient = work == ANYBODY || (work == FIRST_RANK && !first_here);
    return (patient ? PATIENT : 1) * timeout_seconds() + precedence;
}

typedef struct {
    char text[192];
} Name;

static Name name_of(Slot *slot) {
    Name name;
    snprintf(name.text, sizeof name.text, "rank %d (host %s, pid %d)", atomic_load(&slot->rank), dog.host,
             atomic_load(&slot->pid));
    return name;
}

// " in all-reduce at step 137"
static Name place_of(Slot *slot) {
    Name name;
    const int64_t step = atomic_load_explicit(&slot->step, memory_order_relaxed);
    const int length = snprintf(name.text, sizeof name.text, " in %s", phases[phase_of(slot)].name);
    if (step >= 0) {
        snprintf(name.text + length, sizeof name.text - (size_t)length, " at step %lld", (long long)step);
    }
    return name;
}

static const char advice[] = "; the run ends here and goes on from its last checkpoint when it is started again";

static void blame_stopped(const View *view, Slot *slot, double seconds) {
    condemn(view, "%s has been stopped for %.0f s%s%s", name_of(slot).text, seconds, place_of(slot).text, advice);
}

static void blame_ended(const View *view, Slot *slot, int signal) {
    char how[64] = "ended unexpectedly";
    if (signal) { snprintf(how, sizeof how, "was ended by signal %d (%s)", signal, strsignal(signal)); }
    condemn(view, "%s %s%s%s", name_of(slot).text, how, place_of(slot).text, advice);
}

// Whether the view observes the next rank's process: from when that has signed in, if its pid means anything here.
static bool observes(View *view, Slot *slot) {
    const uint64_t pids = atomic_load(&slot->pids);
    if (view->observing || pids == 0) { return view->observing; }
    if (pids != atomic_load(&board_slot(view->board, view->index)->pids)) {
        view->next = -1;
        return false;
    }
#ifdef SYS_pidfd_open
    view->next_fd = (int)syscall(SYS_pidfd_open, atomic_load(&slot->pid), 0);
#endif
    return view->observing = true;
}

// Each rank observes the process of the next one, so that a node of many ranks costs no more.
static void look_at_next(View *view, double passed) {
    if (view->next < 0) { return; }
    Slot *slot = board_slot(view->board, view->next);
    if (!observes(view, slot)) { return; }
    int signal;
    const ProcessState state = state_of(slot, &signal);
    if (state == PROCESS_ENDED) {
        if (view->next_fd >= 0) { close(view->next_fd); }
        view->next_fd = -1;
        const int32_t life = atomic_load(&slot->life);
        if (life == LIFE_WATCHED) { blame_ended(view, slot, signal); }
        if (life == LIFE_LEFT) { view->next = -1; }
        view->next_gone += passed;
        if (life == LIFE_DYING && view->next_gone >= grace) {
            condemn(view, "%s has ended with an error%s", name_of(slot).text, place_of(slot).text);
        }
        return;
    }
    view->next_stopped = state == PROCESS_STOPPED ? view->next_stopped + passed : 0.0;
    if (watched(slot) && view->next_stopped >= timeout_seconds()) { blame_stopped(view, slot, view->next_stopped); }
}

// A stopped rank of the node says more than that another makes no progress.
static void blame_any_stopped(const View *view) {
    for (int i = 0; i < view->board->ranks; i++) {
        Slot *slot = board_slot(view->board, i);
        int signal;
        if (watched(slot) && state_of(slot, &signal) == PROCESS_STOPPED) { blame_stopped(view, slot, view->idle[i]); }
    }
}

static void blame_elsewhere(const View *view) {
    Slot *slot = board_slot(view->board, view->index);
    char who[64] = "the only rank";
    if (view->board->ranks > 1) { snprintf(who, sizeof who, "all %d ranks", view->board->ranks); }
    condemn(view, "%s of host %s waited for %.0f s%s: %s%s", who, dog.host, view->idle[view->index],
            place_of(slot).text,
            view->board->others ? "a rank of another host, or the network, is lost" : "a GPU or the network is lost",
            advice);
}

// A rank that works on its processors beats between operations, which are long where batches are large: it is idle only
// if it has not used them much, either, in the second half of the time-out.
static bool computes(View *view, int i, double passed) {
    Slot *slot = board_slot(view->board, i);
    const double half = timeout_seconds() / 2, idle = view->idle[i], little = 0.05;
    if (!atomic_load_explicit(&slot->computes, memory_order_relaxed) || idle < half) { return false; }
    const double used = process_seconds(atomic_load(&slot->pid));
    if (idle - passed < half) { view->used[i] = used; }
    return used - view->used[i] > little * (idle - half) && idle < PATIENT * timeout_seconds();
}

// Whether a rank makes no progress, or all wait without any.
static void look_at_beats(View *view, double passed) {
    const int ranks = view->board->ranks;
    int idlest = -1, watching = 0, waiting = 0;
    for (int i = 0; i < ranks; i++) {
        Slot *slot = board_slot(view->board, i);
        const uint64_t beats = atomic_load_explicit(&slot->beats, memory_order_relaxed);
        view->idle[i] = beats == view->beats[i] ? view->idle[i] + passed : 0.0;
        view->beats[i] = beats;
        if (!watched(slot)) { continue; }
        watching++;
        const bool busy = !waits(slot) && computes(view, i, passed);
        if (waits(slot)) {
            waiting += view->idle[i] >= waiting_deadline(view, slot);
        } else if (!busy && view->idle[i] >= deadline_of(slot) && (idlest < 0 || view->idle[i] > view->idle[idlest])) {
            idlest = i;
        }
    }
    const bool all_wait = watching > 0 && waiting == watching;
    if (idlest < 0 && !all_wait) { return; }
    blame_any_stopped(view);
    if (all_wait) { blame_elsewhere(view); }
    Slot *slot = board_slot(view->board, idlest);
    condemn(view, "%s made no progress for %.0f s%s%s", name_of(slot).text, view->idle[idlest], place_of(slot).text,
            advice);
}

// True for one process of the job on this node: a name that goes with the process, in no file system.
static bool first_to_speak(void) {
    const char *job = getenv("PMIX_NAMESPACE");
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    const int length = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "bertune-%s", job ? job : "");
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const size_t size = offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length;
    return fd < 0 || bind(fd, (struct sockaddr *)&name, (socklen_t)(size < sizeof name ? size : sizeof name)) == 0 ||
           errno != EADDRINUSE;
}

// While MPI starts, ranks do not know each other, but a stopped one holds up all.
static void look_at_siblings(View *view, double passed) {
    enum { TIMES = 4 };
    pid_t pid;
    int rank;
    view->starting += passed;
    view->scanned += passed;
    if (view->starting < timeout_seconds() || view->scanned < 0.5) { return; }
    view->scanned = 0.0;
    view->stopped_siblings = process_stopped_sibling(&pid, &rank) ? view->stopped_siblings + 1 : 0;
    if (view->stopped_siblings < TIMES) { return; }
    if (first_to_speak()) {
        condemn(view, "rank %d (host %s, pid %ld) has been stopped for %.0f s while MPI starts", rank, dog.host,
                (long)pid, timeout_seconds());
    }
    pause_for(rest_to_leave);
    _exit(EX_PEER_LOST);
}

static void look(View *view, double passed) {
    Slot *slot = board_slot(view->board, view->index);
    if (atomic_load(&view->board->verdict.state) != VERDICT_NONE) { obey(view); }
    look_at_next(view, passed);
    if (atomic_load(&slot->life) == LIFE_DYING) {
        view->dying += passed;
        if (view->dying > grace) { _exit(atomic_load(&dog.exit_code)); }
        return;
    }
    look_at_beats(view, passed);
    if (view == dog.first) { look_at_siblings(view, passed); }
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void *watch(void *nothing) {
    double before = seconds();
    while (!atomic_load(&dog.end)) {
        View *view = atomic_load(&dog.view);
        struct pollfd wakers[2] = {{.fd = dog.wake, .events = POLLIN}, {.fd = view->next_fd, .events = POLLIN}};
        poll(wakers, 2, atomic_load(&dog.timeout) ? TICK : -1);
        uint64_t times;
        if (wakers[0].revents && read(dog.wake, &times, sizeof times) < 0) { return nothing; }
        const double now = seconds(), passed = now - before;
        before = now;
        if (atomic_load(&dog.timeout) && !atomic_load(&dog.end)) {
            look(atomic_load(&dog.view), passed < longest_tick ? passed : longest_tick);
        }
    }
    return nothing;
}

// ---- Beginning and end.

static View *view_open(Board *board, int index) {
    View *view = check_calloc(1, sizeof *view);
    const int next = (index + 1) % board->ranks;
    *view = (View){.board = board, .index = index, .next = next == index ? -1 : next, .next_fd = -1};
    view->idle = check_calloc((size_t)board->ranks, sizeof *view->idle);
    view->used = check_calloc((size_t)board->ranks, sizeof *view->used);
    view->beats = check_calloc((size_t)board->ranks, sizeof *view->beats);
    return view;
}

static void view_close(View *view) {
    if (view->next_fd >= 0) { close(view->next_fd); }
    free(view->idle);
    free(view->used);
    free(view->beats);
    free(view);
}

static void wake_up(void) {
    const uint64_t once = 1;
    if (dog.started && write(dog.wake, &once, sizeof once) < 0) { die(EX_OSERR, "eventfd: %s", strerror(errno)); }
}

void watchdog_set_timeout(double timeout) {
    const double most = 1e15;
    int64_t milliseconds = (int64_t)(1e3 * (timeout < most ? timeout : most));
    if (timeout > 0 && milliseconds == 0) { milliseconds = 1; }
    atomic_store(&dog.timeout, milliseconds);
    wake_up();
}

void watchdog_set_log(int fd) { atomic_store(&dog.log, fd); }

static void sign_in(Slot *slot, int rank) {
    struct stat space;
    atomic_store(&slot->pid, getpid());
    atomic_store(&slot->started, process_started(getpid()));
    atomic_store(&slot->rank, rank);
    atomic_store(&slot->step, -1);
    atomic_store(&slot->pids, stat("/proc/self/ns/pid", &space) == 0 ? (uint64_t)space.st_ino : 1);
}

void watchdog_start(double timeout) {
    const char *rank = getenv("PMIX_RANK");
    gethostname(dog.host, sizeof dog.host - 1);
    sign_in(own, rank ? atoi(rank) : 0);
    dog.first = view_open(&alone.board, 0);
    atomic_store(&dog.view, dog.first);
    dog.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (dog.wake < 0) { die(EX_OSERR, "eventfd: %s", strerror(errno)); }
    watchdog_set_timeout(timeout);
    sigset_t all, before;  // signals are for the main thread
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&dog.thread, NULL, watch, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) { die(EX_OSERR, "cannot start a thread: %s", strerror(error)); }
    dog.started = true;
}

void watchdog_join(const Comm *comm) {
    Board *board = comm_shared_map(comm, WATCHDOG_BOARD_NAME, board_bytes(comm->local_size), &dog.board_fd);
    const bool alone_here = !board;  // others cannot be reached
    const int index = alone_here ? 0 : comm->local_rank;
    if (alone_here) { board = &alone.board; }
    board->ranks = alone_here ? 1 : comm->local_size;  // the same by all
    board->others = comm->size - board->ranks;
    Slot *slot = board_slot(board, index);
    sign_in(slot, comm->rank);
    own = slot;
    atomic_store(&dog.view, view_open(board, index));
    wake_up();
    CHECK_MPI(MPI_Barrier(comm->local));
}

// None leaves before all of the node are through with MPI, so that one that stops on the way, the first too, is
// noticed; and mpirun, which ends all as soon as one has left with an exit code other than 0, finds none still at it.
static void await_others(const View *view) {
    const double once = 0.001, least = 10.0, patience = PATIENT * timeout_seconds();
    for (double waited = 0.0; waited < (patience > least ? patience : least); waited += once) {
        int inside = 0, signal;
        for (int i = 0; i < view->board->ranks; i++) {
            Slot *slot = board_slot(view->board, i);
            inside += watched(slot) && state_of(slot, &signal) != PROCESS_ENDED;
        }
        if (!inside) { return; }
        pause_for(once);
    }
}

// The first rank of a node leaves last: one that stops on its way out would hold up the launcher, with nobody there to
// notice.
static void see_off(const View *view) {
    const double once = 0.002;
    double waited = 0.0, stopped = 0.0;
    for (; waited < PATIENT * timeout_seconds() && signal_others(view, 0) > 0; waited += once) {
        Slot *held = NULL;
        for (int i = 1; i < view->board->ranks; i++) {
            int signal;
            Slot *slot = board_slot(view->board, i);
            if (state_of(slot, &signal) == PROCESS_STOPPED) { held = slot; }
        }
        stopped = held ? stopped + once : 0.0;
        if (held && stopped >= timeout_seconds()) { blame_stopped(view, held, stopped); }
        pause_for(once);
    }
}

void watchdog_stop(void) {
    if (!dog.started) { return; }
    atomic_store(&own->life, LIFE_LEFT);
    await_others(atomic_load(&dog.view));
    if (atomic_load(&dog.view)->index == 0) { see_off(atomic_load(&dog.view)); }
    atomic_store(&dog.end, true);
    wake_up();
    pthread_join(dog.thread, NULL);
    View *view = atomic_load(&dog.view);
    if (view->board != &alone.board) { munmap(view->board, board_bytes(view->board->ranks)); }
    if (view != dog.first) { view_close(dog.first); }
    view_close(view);
    own = &alone.slot;
    close(dog.wake);
    if (dog.board_fd >= 0) { close(dog.board_fd); }
    dog.started = false;
}
