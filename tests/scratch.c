// See scratch.h.
#include "tests/scratch.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datasets/file.h"

static char root[64];

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *place) {
    (void)status;
    (void)type;
    (void)place;
    return remove(path);
}

static void remove_tree(const char *path) { nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS); }

static void remove_root(void) { remove_tree(root); }

ScratchPath scratch(const char *name) {
    if (!root[0]) {
        // In memory where possible: the code under test syncs every file to disk.
        strcpy(root, "/dev/shm/bertune-test-XXXXXX");
        if (!mkdtemp(root)) {
            strcpy(root, "/tmp/bertune-test-XXXXXX");
            assert_non_null(mkdtemp(root));
        }
        atexit(remove_root);
    }
    ScratchPath path;
    path_join(path.text, sizeof path.text, root, name);
    return path;
}

ScratchPath scratch_directory(const char *name) {
    const ScratchPath path = scratch(name);
    remove_tree(path.text);
    assert_int_equal(mkdir(path.text, 0777), 0);
    return path;
}

void scratch_write(const char *path, const void *bytes, size_t length) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

unsigned char *scratch_read(const char *path, size_t *length) {
    char *bytes;
    Error error;
    if (!file_read(&bytes, length, path, 64 << 20, &error)) { fail_msg("%s", error.text); }
    return (unsigned char *)bytes;
}

bool scratch_exists(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0;
}

int scratch_count(const char *directory) {
    int count = 0;
    DIR *entries = opendir(directory);
    assert_non_null(entries);
    for (struct dirent *entry; (entry = readdir(entries));) {
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    }
    closedir(entries);
    return count;
}
