// A small YAML file as a tree that remembers its lines: mappings, lists and scalars; no anchors, aliases or tags, no
// key twice, UTF-8 only, of bounded size and depth. What a value means is for the reader to say.
#ifndef BERTUNE_YAML_H
#define BERTUNE_YAML_H

#include "kernels/check.h"

typedef enum { YAML_SCALAR, YAML_LIST, YAML_MAPPING } YamlKind;

typedef struct YamlNode {
    YamlKind kind;
    int line;                       // 1-based
    char *key;                      // of an entry of a mapping, else NULL
    char *text;                     // of a scalar
    bool quoted;                    // the scalar was written in quotes or as a block
    struct YamlNode *first, *next;  // entries of a list or mapping, in the order of the file
} YamlNode;

enum { YAML_TEXT = 2048 };  // bytes of a scalar or key, with its NUL

// Reads path ("-": stdin); an empty file gives an empty mapping. EX_CONFIG with file and line, EX_NOINPUT when it is
// missing, EX_IOERR. Release with yaml_free.
YamlNode *yaml_load(const char *path, Error *error);
void yaml_free(YamlNode *node);

// The entry of a mapping, or NULL.
const YamlNode *yaml_find(const YamlNode *mapping, const char *key);

// "scalar", "list" or "mapping".
const char *yaml_kind_name(const YamlNode *node);

#endif
