// See report_tensorboard.h. The messages, of tensorflow/core/util/event.proto and framework/summary.proto:
// Event {1: double wall_time; 2: int64 step; 3: string file_version; 5: Summary summary},
// Summary {1: repeated Value value}, Value {1: string tag; 2: float simple_value}.
#include "trainer/report/report_tensorboard.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/file.h"

// CRC-32C (Castagnoli).
static uint32_t crc32c(const void *bytes, size_t length) {
    const unsigned char *byte = bytes;
    uint32_t value = ~0u;
    for (size_t i = 0; i < length; i++) {
        value ^= byte[i];
        for (int bit = 0; bit < 8; bit++) { value = value >> 1 ^ (value & 1 ? 0x82F63B78u : 0); }
    }
    return ~value;
}

// A message of protocol buffers, all of ours being short.
typedef struct {
    unsigned char bytes[256];
    size_t length;
} Message;

static void put_varint(Message *message, uint64_t value) {
    for (; value >= 128; value >>= 7) { message->bytes[message->length++] = (unsigned char)(value | 128); }
    message->bytes[message->length++] = (unsigned char)value;
}

static void put_little(Message *message, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) { message->bytes[message->length++] = (unsigned char)(value >> 8 * i); }
}

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static void put_key(Message *message, int field, int type) { put_varint(message, (uint64_t)(field << 3 | type)); }

static void put_bytes(Message *message, int field, const void *bytes, size_t length) {
    put_key(message, field, BYTES);
    put_varint(message, length);
    CHECK(message->length + length <= sizeof message->bytes);
    memcpy(message->bytes + message->length, bytes, length);
    message->length += length;
}

static Message begin_event(double wall_time) {
    Message event = {.length = 0};
    uint64_t bits;
    memcpy(&bits, &wall_time, sizeof bits);
    put_key(&event, 1, FIXED64);
    put_little(&event, bits, 8);
    return event;
}

static uint32_t masked_crc(const void *bytes, size_t length) {
    const uint32_t crc = crc32c(bytes, length);
    return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

static void put_record(FILE *out, const Message *event) {
    Message head = {.length = 0}, tail = {.length = 0};
    put_little(&head, event->length, 8);
    put_little(&head, masked_crc(head.bytes, 8), 4);
    put_little(&tail, masked_crc(event->bytes, event->length), 4);
    fwrite(head.bytes, 1, head.length, out);
    fwrite(event->bytes, 1, event->length, out);
    fwrite(tail.bytes, 1, tail.length, out);
}

static void put_scalar(FILE *out, double wall_time, int64_t step, const char *tag, double number) {
    const float value = (float)number;
    uint32_t bits;
    Message scalar = {.length = 0}, summary = {.length = 0}, event = begin_event(wall_time);
    memcpy(&bits, &value, sizeof bits);
    put_bytes(&scalar, 1, tag, strlen(tag));
    put_key(&scalar, 2, FIXED32);
    put_little(&scalar, bits, 4);
    put_bytes(&summary, 1, scalar.bytes, scalar.length);
    put_key(&event, 2, VARINT);
    put_varint(&event, (uint64_t)step);
    put_bytes(&event, 5, summary.bytes, summary.length);
    put_record(out, &event);
}

static void put_epoch(FILE *out, const EpochLine *epoch, double wall_time) {
    const double accuracy = isnan(epoch->accuracy) ? epoch->validation_accuracy : epoch->accuracy;
    put_scalar(out, wall_time, epoch->step, "eval/loss", epoch->validation_loss);
    put_scalar(out, wall_time, epoch->step, "eval/accuracy", accuracy);
    put_scalar(out, wall_time, epoch->step, "eval/f1", epoch->f1);
}

static void put_history(FILE *out, const History *history) {
    static const char version[] = "brain.Event:2";
    const double begin = history->modified - history->step_seconds;
    size_t next = 0;
    Message first = begin_event(begin);
    put_bytes(&first, 3, version, strlen(version));
    put_record(out, &first);
    for (size_t i = 0; i < history->step_count; i++) {
        const StepLine *step = &history->steps[i];
        const double wall_time = begin + step->elapsed;
        put_scalar(out, wall_time, step->step, "train/loss", step->loss);
        put_scalar(out, wall_time, step->step, "train/learning_rate", step->learning_rate);
        put_scalar(out, wall_time, step->step, "train/grad_norm", step->gradient_norm);
        for (; next < history->epoch_count && history->epochs[next].step <= step->step; next++) {
            put_epoch(out, &history->epochs[next], wall_time);
        }
    }
    for (; next < history->epoch_count; next++) {
        put_epoch(out, &history->epochs[next], begin + history->epochs[next].elapsed);
    }
}

// The last part of a path, without what a name of a directory cannot or should not have.
static void safe_name(char *name, size_t size, const char *path) {
    const char *slash = strrchr(path, '/');
    snprintf(name, size, "%.100s", slash && slash[1] ? slash + 1 : path);
    for (char *c = name; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7F || *c == '/' || (c == name && *c == '.')) { *c = '_'; }
    }
}

// Names that were given already are told apart by a number.
typedef struct {
    char **names;
    size_t count;
} Names;

static void unique_name(char *name, size_t size, Names *names, const char *path) {
    char base[128];
    safe_name(base, sizeof base, path);
    snprintf(name, size, "%s", base);
    for (size_t i = 0, number = 2; i < names->count; i++) {
        if (strcmp(names->names[i], name) != 0) { continue; }
        snprintf(name, size, "%s-%zu", base, number++);
        i = (size_t)-1;
    }
    names->names = room_for(names->names, names->count, sizeof *names->names);
    names->names[names->count++] = check_strdup(name);
}

static bool write_run(const History *history, const char *directory, const char *name, Error *error) {
    char path[REPORT_PATH], below[REPORT_PATH], *bytes = NULL;
    size_t length = 0;
    if (!history->step_count && !history->epoch_count) { return true; }
    path_join(below, sizeof below, directory, name);
    path_join(path, sizeof path, below, "events.out.tfevents.bertune");
    FILE *out = open_memstream(&bytes, &length);
    CHECK(out);
    put_history(out, history);
    CHECK(fclose(out) == 0);
    const bool ok = directory_create(below, error) && file_write(path, bytes, length, error);
    free(bytes);
    return ok;
}

static bool write_group(const Group *group, const char *directory, Names *used, Error *error) {
    char place[REPORT_PATH], name[160];
    bool ok = true;
    snprintf(place, sizeof place, "%s", directory);
    if (group->sweep) {
        unique_name(name, sizeof name, used, group->directory);
        path_join(place, sizeof place, directory, name);
    }
    for (size_t i = 0; ok && i < group->entry_count; i++) {
        const Entry *entry = &group->entries[i];
        if (group->sweep) {
            snprintf(name, sizeof name, "%s", entry->name);
        } else {
            unique_name(name, sizeof name, used, entry->directory);
        }
        ok = write_run(&entry->history, place, name, error);
    }
    return ok && (!group->winner || write_run(&group->winner->history, place, "winner", error));
}

bool report_write_tensorboard(const Report *report, const char *directory, Error *error) {
    Names used = {0};
    bool ok = true;
    for (size_t g = 0; ok && g < report->count; g++) { ok = write_group(&report->groups[g], directory, &used, error); }
    for (size_t i = 0; i < used.count; i++) { free(used.names[i]); }
    free(used.names);
    return ok;
}
