#!/usr/bin/env python3
"""Draws the phases of a training step against the roofline of the machine, as SVG. Needs only the standard library.

  bertune bench CONFIG.yaml --format json | roofline.py >roofline.svg
  roofline.py BENCH.json -o roofline.svg

Above, each phase is a circle at its arithmetic intensity (flop/byte) and rate (GFLOP/s), its area the share of the step's time,
under the two roofs: copy bandwidth and FMA peak. Below, each phase is a bar; its dark part is the time that it would take at its
roof. Phases without flops are held against the copy bandwidth, in the bars only. What lies in caches can exceed the bandwidth.
"""

import argparse
import json
import math
import sys
from html import escape

WIDTH, MARGIN = 960, 30
LEFT, RIGHT, TOP, BOTTOM = 78, WIDTH - MARGIN, 92, 512  # of the plot
BAR_LEFT, BAR_RIGHT, ROW = 208, 560, 22
COLUMNS = (630, 700, 830, WIDTH - MARGIN)  # right edges: milliseconds, share of the step, rate, share of the roof
INK, FAINT, GRID, PAPER = "#1f2933", "#5f6c7b", "#e4e9ee", "#ffffff"
COLOURS = {"peak": "#2b6cb0", "bandwidth": "#c8691c", "no flops": "#6b7785"}


def text(x, y, words, anchor="start", size=11, colour=INK, extra=""):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}"{extra}>'
            f'{escape(words)}</text>')


def line(x1, y1, x2, y2, colour, width=1.0):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def rectangle(x, y, width, height, colour, extra=""):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"{extra}/>'


def width_of(words, size=11):
    """About the width of a text, rather too wide."""
    return 0.6 * size * len(words)


def measure(bench):
    """Adds to each phase its share of the step, intensity, rate, roof and what part of the roof it reaches."""
    ridge = bench["peak_gflops"] / bench["copy_gbs"]
    for phase in bench["phases"]:
        seconds, gflop, gbyte = phase["milliseconds"] / 1e3, phase["gflop"], phase["gbyte"]
        phase["share"] = phase["milliseconds"] / bench["step_milliseconds"]
        phase["intensity"] = gflop / gbyte if gbyte else math.inf
        phase["limit"] = "no flops" if not gflop else "peak" if phase["intensity"] >= ridge else "bandwidth"
        work, unit, roof = (gflop, "GFLOP/s", min(bench["peak_gflops"], phase["intensity"] * bench["copy_gbs"])) if gflop \
            else (gbyte, "GB/s", bench["copy_gbs"])
        phase["rate"] = work / seconds if seconds else 0.0
        phase["reached"] = phase["rate"] / roof
        phase["words"] = f"{phase['rate']:.3g} {unit}" if phase["rate"] else "-"


class Axis:
    """A logarithmic scale from values to pixels."""

    def __init__(self, values, start, end):
        self.low, self.high, self.start, self.end = min(values) / 1.7, max(values) * 1.7, start, end

    def __call__(self, value):
        return self.start + (self.end - self.start) * math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self):
        """1, 2 and 5 times the powers of ten in range."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)))
        return [digit * 10.0**power for power in powers for digit in (1, 2, 5) if self.low <= digit * 10.0**power <= self.high]


def draw_axes(x, y):
    parts = []
    for tick in x.ticks():
        parts += [line(x(tick), TOP, x(tick), BOTTOM, GRID), text(x(tick), BOTTOM + 16, f"{tick:g}", "middle", colour=FAINT)]
    for tick in y.ticks():
        parts += [line(LEFT, y(tick), RIGHT, y(tick), GRID), text(LEFT - 7, y(tick) + 4, f"{tick:g}", "end", colour=FAINT)]
    middle = (TOP + BOTTOM) / 2
    return parts + [text((LEFT + RIGHT) / 2, BOTTOM + 36, "arithmetic intensity, flop/byte", "middle", colour=FAINT),
                    text(34, middle, "GFLOP/s", "middle", colour=FAINT, extra=f' transform="rotate(-90 34 {middle})"')]


def draw_roof(bench, x, y):
    """The two roofs, their names, and the boxes that both take: (parts, parts, boxes)."""
    peak, copy = bench["peak_gflops"], bench["copy_gbs"]
    start = max(x.low, y.low / copy)
    foot, corner = (x(start), y(start * copy)), (x(peak / copy), y(peak))
    outline = [line(*foot, *corner, INK, 2), line(*corner, RIGHT, corner[1], INK, 2)]
    boxes = [(corner[0], corner[1] - 2, RIGHT, corner[1] + 2)]
    for at in range(100):
        px, py = (foot[axis] + (corner[axis] - foot[axis]) * at / 100 for axis in (0, 1))
        boxes.append((px - 2, py - 2, px + 5, py + 2))
    flat, slope = f"FMA peak {peak:.3g} GFLOP/s", f"copy {copy:.3g} GB/s"
    px, py = (foot[axis] + (corner[axis] - foot[axis]) * 0.75 for axis in (0, 1))
    names = [text(corner[0] + 4, corner[1] - 9, flat, "start", 12, extra=' font-weight="600"'),
             text(px - 10, py, slope, "end", 12, extra=' font-weight="600"')]
    boxes += [(corner[0], corner[1] - 23, corner[0] + 4 + width_of(flat, 12), corner[1]),
              (px - 10 - width_of(slope, 12), py - 14, px, py + 4)]
    return outline, names, boxes


def overlaps(box, other):
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def place_label(words, cx, cy, radius, taken):
    """The free box for a circle's name that is nearest to it, or None."""
    width, height = width_of(words), 14
    for gap in range(3, 200, 6):
        for turn in (0, 180, 45, -45, 135, -135, 90, -90, 22, -22, 158, -158, 67, -67, 113, -113):
            dx, dy = math.cos(math.radians(turn)), -math.sin(math.radians(turn))
            x = cx + dx * (radius + gap) + (dx - 1) * width / 2
            y = cy + dy * (radius + gap) + (dy - 1) * height / 2
            box = (x, y, x + width, y + height)
            inside = LEFT <= box[0] and box[2] <= RIGHT and TOP <= box[1] and box[3] <= BOTTOM
            if inside and not any(overlaps(box, other) for other in taken):
                return box
    return None


def draw_circles(phases, x, y, taken):
    """Circles, the largest first, then their names where they hide neither circles nor each other."""
    circles = [(phase, x(phase["intensity"]), y(phase["rate"]), max(3.0, 46 * math.sqrt(phase["share"]))) for phase in phases]
    circles.sort(key=lambda circle: -circle[3])
    taken = taken + [(cx - radius, cy - radius, cx + radius, cy + radius) for _, cx, cy, radius in circles]
    leaders, names, discs = [], [], []
    for phase, cx, cy, radius in circles:
        colour = COLOURS[phase["limit"]]
        hint = f"{phase['name']}: {phase['milliseconds']:.2f} ms, {phase['words']}, {phase['intensity']:.2g} flop/byte"
        discs.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{radius:.1f}" fill="{colour}" fill-opacity="0.55" '
                     f'stroke="{colour}" stroke-width="1.2"><title>{escape(hint)}</title></circle>')
        box = place_label(phase["name"], cx, cy, radius, taken)
        if box:
            taken.append(box)
            near = (min(max(cx, box[0]), box[2]), min(max(cy, box[1]), box[3]))
            if math.dist(near, (cx, cy)) > radius + 5:
                leaders.append(line(cx, cy, *near, FAINT, 0.7))
            names += [rectangle(box[0], box[1], box[2] - box[0], 14, PAPER, ' fill-opacity="0.8"'),
                      text((box[0] + box[2]) / 2, box[3] - 3.5, phase["name"], "middle")]
    return leaders + discs + names


def draw_roofline(bench):
    shown = [phase for phase in bench["phases"] if phase["rate"] and phase["limit"] != "no flops" and phase["gbyte"]]
    ridge = bench["peak_gflops"] / bench["copy_gbs"]
    x = Axis([ridge, *(phase["intensity"] for phase in shown)], LEFT, RIGHT)
    y = Axis([bench["peak_gflops"], *(phase["rate"] for phase in shown)], BOTTOM, TOP)
    roof, names, taken = draw_roof(bench, x, y)
    return draw_axes(x, y) + roof + draw_circles(shown, x, y, taken) + names


def draw_legend(y):
    parts, at = [], BAR_LEFT
    for limit, words in (("peak", "under the FMA peak"), ("bandwidth", "under the copy bandwidth"),
                         ("no flops", "no flops; dark: the time at the roof")):
        parts += [rectangle(at, y - 9, 10, 10, COLOURS[limit]), text(at + 15, y, words, colour=FAINT)]
        at += 30 + width_of(words)
    return parts


def draw_bars(bench, top):
    """One row per phase in the order of the step; the dark part of a bar is its time at the roof."""
    scale = (BAR_RIGHT - BAR_LEFT) / max(phase["milliseconds"] for phase in bench["phases"])
    heads = zip(COLUMNS, ("ms", "of the step", "rate", "of its roof"))
    parts = draw_legend(top - 24) + [text(column, top, words, "end", colour=FAINT) for column, words in heads]
    for number, phase in enumerate(bench["phases"]):
        y, length, colour = top + 12 + number * ROW, phase["milliseconds"] * scale, COLOURS[phase["limit"]]
        cells = (f"{phase['milliseconds']:.2f}", f"{phase['share']:.1%}", phase["words"],
                 f"{phase['reached']:.0%}" if phase["rate"] else "-")
        parts += [text(BAR_LEFT - 8, y + 14, phase["name"], "end"),
                  rectangle(BAR_LEFT, y + 3, length, ROW - 6, colour, ' fill-opacity="0.3" rx="2"'),
                  rectangle(BAR_LEFT, y + 3, length * min(1.0, phase["reached"]), ROW - 6, colour, ' rx="2"'),
                  *(text(column, y + 14, cell, "end") for column, cell in zip(COLUMNS, cells))]
    return parts


def draw(bench):
    """The whole picture."""
    measure(bench)
    step, plural = bench["step_milliseconds"] / 1e3, lambda count, word: f"{count} {word}{'s' * (count != 1)}"
    title = (f"bertune on {bench['device']}, {bench['precision']}, {plural(bench['world_size'], 'rank')} x "
             f"{plural(bench['threads'], 'thread')}")
    rate = bench["gflop"] / step
    summary = (f"{bench['step_milliseconds']:.1f} ms a step of {bench['tokens']:.0f} tokens: "
               f"{bench['tokens'] / step:,.0f} tokens/s, {rate:.3g} GFLOP/s, {rate / bench['peak_gflops']:.0%} of the FMA peak; "
               f"the phases cover {sum(phase['share'] for phase in bench['phases']):.0%} of the step")
    height = BOTTOM + 98 + ROW * len(bench["phases"]) + 32
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
             'role="img" aria-labelledby="title desc" font-family="Helvetica, Arial, sans-serif">',
             f'<title id="title">{escape(title)}: roofline</title>', f'<desc id="desc">{escape(summary)}</desc>',
             rectangle(0.5, 0.5, WIDTH - 1, height - 1, PAPER, f' rx="8" stroke="{GRID}"'),
             text(MARGIN, 42, title, size=20, extra=' font-weight="600"'), text(MARGIN, 66, summary, size=13, colour=FAINT),
             *draw_roofline(bench), *draw_bars(bench, BOTTOM + 98), "</svg>"]
    return "\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", nargs="?", type=argparse.FileType(encoding="utf-8"), default=sys.stdin, help="JSON (stdin)")
    parser.add_argument("-o", "--out", help="the SVG file (stdout)")
    args = parser.parse_args()
    picture = draw(json.load(args.bench))
    with open(args.out or sys.stdout.fileno(), "w", encoding="utf-8") as file:
        file.write(picture)


if __name__ == "__main__":
    main()
