// See evaluation.h.
#include "trainer/evaluation.h"

#include <stdlib.h>

#include "trainer/batches.h"

void inference_open(Inference *inference, Device *device, const Bert *bert, int max_length) {
    // Tokens of a packed batch: on a CPU enough for full speed and few enough for the cache, on a GPU enough to fill
    // it.
    enum { PACK = 1024, PACK_GPU = 16384 };
    const int pack = device_kind(device) == DEVICE_CPU ? PACK : PACK_GPU;
    const int tokens = max_length > pack ? max_length : pack;
    *inference = (Inference){.bert = bert, .most_sequences = tokens / 2, .most_tokens = tokens};
    inference->state = bert_state_open(device, bert, inference->most_sequences, tokens, max_length, false);
    batch_alloc(&inference->batch, inference->most_sequences, tokens);
}

void inference_close(Inference *inference) {
    bert_state_close(inference->state);
    batch_free(&inference->batch);
    *inference = (Inference){0};
}

bool inference_run(Inference *inference, const float *parameters, const Reviews *reviews, const int32_t *word_row,
                   int64_t first, int64_t count, float *logits, float *losses) {
    int64_t *rows = check_calloc((size_t)inference->most_sequences, sizeof *rows);
    const int64_t end = first + count;
    bool going = true;
    for (int64_t row = first; row < end;) {
        int packed = 0;
        going = !inference->go_on || inference->go_on(inference->context);
        if (!going) { break; }
        const int64_t begin = reviews->offsets[row];
        while (row + packed < end && packed < inference->most_sequences &&
               reviews->offsets[row + packed + 1] - begin <= inference->most_tokens) {
            rows[packed] = row + packed;
            packed++;
        }
        CHECK(packed > 0);
        batch_fill(&inference->batch, reviews, word_row, rows, packed);
        const size_t at = (size_t)(row - first);
        bert_forward(inference->state, parameters, &inference->batch, (DropoutKey){0, 0},
                     logits ? logits + at * (size_t)inference->bert->C : NULL, losses ? losses + at : NULL);
        row += packed;
    }
    free(rows);
    return going;
}

static double ratio(int64_t part, int64_t whole) { return whole ? (double)part / (double)whole : 0.0; }

static void batch_means(Scores *scores, const float *losses, const int32_t *predictions, const int32_t *labels,
                        int64_t batch_size) {
    const int64_t batches = (scores->rows + batch_size - 1) / batch_size;
    for (int64_t begin = 0; begin < scores->rows; begin += batch_size) {
        const int64_t end = begin + batch_size < scores->rows ? begin + batch_size : scores->rows;
        double loss = 0.0;
        int64_t right = 0;
        for (int64_t i = begin; i < end; i++) {
            loss += losses[i];
            right += predictions[i] == labels[i];
        }
        scores->loss += loss / (double)(end - begin);
        scores->batch_accuracy += ratio(right, end - begin);
    }
    scores->loss /= (double)batches;
    scores->batch_accuracy /= (double)batches;
}

static void class_scores(Scores *scores, int c) {
    const size_t C = (size_t)scores->classes, at = (size_t)c;
    int64_t labelled = 0, predicted = 0;
    for (size_t other = 0; other < C; other++) {
        labelled += scores->confusion[at * C + other];
        predicted += scores->confusion[other * C + at];
    }
    const int64_t right = scores->confusion[at * C + at];
    scores->precision[at] = ratio(right, predicted);
    scores->recall[at] = ratio(right, labelled);
    scores->f1[at] = ratio(2 * right, predicted + labelled);
    scores->macro_f1 += scores->f1[at] / (double)scores->classes;
}

void scores_compute(Scores *scores, const float *losses, const int32_t *predictions, const int32_t *labels,
                    int64_t rows, int classes, int64_t batch_size) {
    const size_t C = (size_t)classes;
    *scores = (Scores){.rows = rows, .classes = classes};
    scores->confusion = check_calloc(C * C, sizeof *scores->confusion);
    scores->precision = check_calloc(C, sizeof *scores->precision);
    scores->recall = check_calloc(C, sizeof *scores->recall);
    scores->f1 = check_calloc(C, sizeof *scores->f1);
    int64_t right = 0;
    for (int64_t i = 0; i < rows; i++) {
        scores->confusion[(size_t)labels[i] * C + (size_t)predictions[i]]++;
        right += predictions[i] == labels[i];
    }
    scores->accuracy = ratio(right, rows);
    batch_means(scores, losses, predictions, labels, batch_size);
    for (int c = 0; c < classes; c++) { class_scores(scores, c); }
}

void scores_free(Scores *scores) {
    free(scores->confusion);
    free(scores->precision);
    free(scores->recall);
    free(scores->f1);
    *scores = (Scores){0};
}

double scores_f1(const Scores *scores) { return scores->classes == 2 ? scores->f1[1] : scores->macro_f1; }

void scores_print_confusion(const Scores *scores, FILE *out) {
    const size_t C = (size_t)scores->classes;
    fputc('[', out);
    for (size_t label = 0; label < C; label++) {
        fputs(label ? ", [" : "[", out);
        for (size_t c = 0; c < C; c++) {
            fprintf(out, "%s%lld", c ? ", " : "", (long long)scores->confusion[label * C + c]);
        }
        fputc(']', out);
    }
    fputc(']', out);
}
