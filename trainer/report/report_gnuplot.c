// gnuplot as a child process: gnuplot_run of report_figure.h. Script, picture and messages pass through files without
// names, so that nothing is left behind and nobody waits for a full pipe.
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "datasets/file.h"
#include "trainer/report/report_figure.h"

enum { SECONDS = 120, NOT_STARTED = 127, LARGEST = 256 << 20 };

enum { SCRIPT, PICTURE, MESSAGES, FILES };

static bool fill(int file, const char *bytes, size_t length) {
    for (size_t done = 0; done < length;) {
        const ssize_t put = TEMP_FAILURE_RETRY(write(file, bytes + done, length - done));
        if (put <= 0) { return false; }
        done += (size_t)put;
    }
    return lseek(file, 0, SEEK_SET) == 0;
}

// Does not return. A gnuplot that hangs is ended by the alarm, one that outlives us by the signal.
static void become_gnuplot(const int files[FILES]) {
    for (int i = 0; i < FILES; i++) {
        if (dup2(files[i], i) != i) { _exit(NOT_STARTED); }
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setenv("LC_ALL", "C", 1);
    alarm(SECONDS);
    execlp("gnuplot", "gnuplot", "--default-settings", "-", (char *)NULL);
    _exit(NOT_STARTED);
}

// Everything in the file, NUL-terminated; NULL when there is too much.
static char *contents(int file) {
    const off_t length = lseek(file, 0, SEEK_END);
    if (length < 0 || length > LARGEST) { return NULL; }
    char *bytes = check_calloc((size_t)length + 1, 1);
    for (off_t done = 0; done < length;) {
        const ssize_t got = TEMP_FAILURE_RETRY(pread(file, bytes + done, (size_t)(length - done), done));
        if (got <= 0) { break; }
        done += got;
    }
    return bytes;
}

static bool failed(int status, int messages, Error *error) {
    if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_STARTED) {
        return error_set(error, EX_UNAVAILABLE,
                         "gnuplot, which draws the report, is missing: apt-get install gnuplot-nox");
    }
    char *said = contents(messages);
    char *text = said ? said + strspn(said, " \t\r\n") : "";
    text[strcspn(text, "\r\n")] = 0;
    error_set(error, EX_UNAVAILABLE, "gnuplot %s %d: %.300s; a newer one may do: apt-get install gnuplot-nox",
              WIFSIGNALED(status) ? "was ended by signal" : "failed with exit code",
              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), text);
    free(said);
    return false;
}

static bool run(const int files[FILES], const char *script, size_t length, char **svg, Error *error) {
    int status = 0;
    if (!fill(files[SCRIPT], script, length)) {
        return error_set(error, EX_UNAVAILABLE, "cannot hand the script to gnuplot: %s", strerror(errno));
    }
    const pid_t child = fork();
    if (child == 0) { become_gnuplot(files); }
    if (child < 0 || TEMP_FAILURE_RETRY(waitpid(child, &status, 0)) != child) {
        return error_set(error, EX_UNAVAILABLE, "cannot start gnuplot: %s", strerror(errno));
    }
    if (status != 0) { return failed(status, files[MESSAGES], error); }
    *svg = contents(files[PICTURE]);
    return *svg || error_set(error, EX_UNAVAILABLE, "gnuplot drew more than %d bytes", LARGEST);
}

bool gnuplot_run(const char *script, size_t length, char **svg, Error *error) {
    int files[FILES];
    bool ok = true;
    for (int i = 0; i < FILES; i++) {
        files[i] = memfd_create("bertune-report", MFD_CLOEXEC);
        ok = ok && files[i] >= 0;
    }
    ok = ok ? run(files, script, length, svg, error)
            : error_set(error, EX_UNAVAILABLE, "cannot make temporary files: %s", strerror(errno));
    for (int i = 0; i < FILES; i++) {
        if (files[i] >= 0) { close(files[i]); }
    }
    return ok;
}
