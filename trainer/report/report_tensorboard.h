// Event files of TensorBoard, written by hand: records with masked CRC-32C around Event messages of protocol buffers.
#ifndef BERTUNE_REPORT_TENSORBOARD_H
#define BERTUNE_REPORT_TENSORBOARD_H

#include "trainer/report/report.h"

// Writes DIRECTORY/<run>/events.out.tfevents.bertune for every run, trial and winner that took a step: train/loss,
// train/learning_rate and train/grad_norm of steps, eval/loss, eval/accuracy and eval/f1 of epochs. Wall times count
// back from the last change of metrics.jsonl by the seconds that steps took, so that the same files give the same
// bytes. EX_CANTCREAT, EX_IOERR.
bool report_write_tensorboard(const Report *report, const char *directory, Error *error);

#endif
