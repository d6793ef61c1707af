#!/usr/bin/env python3
"""Lists the GPU code in an ELF file: cuda_code.py PROGRAM prints `sm_80 elf`, `compute_90 ptx`, ... sorted, once each.

Reads the fat binaries in section .nv_fatbin, whose format NVIDIA's cuobjdump shows but no page describes: a header
(magic 0xBA55ED50, version, header size, size) and entries (kind 1 for PTX and 2 for machine code, header size, size,
architecture)."""

import struct
import sys

FAT_MAGIC = 0xBA55ED50


def section(data, name):
    """The bytes of a section of a 64-bit little-endian ELF file."""
    headers, = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    fields = [struct.unpack_from("<IIQQQQ", data, headers + i * size) for i in range(count)]
    text = fields[names][4]
    for field in fields:
        begin = text + field[0]
        if data[begin:data.index(b"\0", begin)] == name:
            return data[field[4]:field[4] + field[5]]
    return b""


def codes(fat):
    at = 0
    while at + 16 <= len(fat):
        magic, _, header, size = struct.unpack_from("<IHHQ", fat, at)
        if magic != FAT_MAGIC:
            at += 8
            continue
        entry, end = at + header, at + header + size
        while entry + 32 <= end:
            kind, _, entry_header, entry_size = struct.unpack_from("<HHIQ", fat, entry)
            arch, = struct.unpack_from("<I", fat, entry + 28)
            yield f"compute_{arch} ptx" if kind == 1 else f"sm_{arch} elf"
            entry += entry_header + entry_size
        at = end


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as program:
        found = sorted(set(codes(section(program.read(), b".nv_fatbin"))))
    print("\n".join(found))
    sys.exit(0 if found else 1)
