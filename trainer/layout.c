// See layout.h.
#include "trainer/layout.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

size_t layout_add(Layout *layout, int64_t rows, int64_t columns, bool decay, const char *name_format, ...) {
    layout->tensors = check_realloc(layout->tensors, (size_t)layout->count + 1, sizeof *layout->tensors);
    Tensor *tensor = &layout->tensors[layout->count++];
    *tensor = (Tensor){.rows = rows,
                       .columns = columns,
                       .offset = layout->total,
                       .count = (size_t)rows * (size_t)(columns ? columns : 1),
                       .decay = decay};
    va_list arguments;
    va_start(arguments, name_format);
    vsnprintf(tensor->name, sizeof tensor->name, name_format, arguments);
    va_end(arguments);
    layout->total += tensor->count;
    return tensor->offset;
}

void layout_free(Layout *layout) {
    free(layout->tensors);
    *layout = (Layout){0};
}
