#!/usr/bin/env python3
"""Checks what `bertune report` made, with nothing but Python's standard library.

report_check.py html FILE RUN...       well-formed, self-contained, both languages, the runs' numbers; prints the command
report_check.py sweep FILE DIR         the page of a sweep directory: order, winner, counts, share of busy time
report_check.py csv FILE RUN...        one record for each run, with its last numbers, best first
report_check.py events FILE RUN        framing, CRCs and messages of an event file against metrics.jsonl
report_check.py tensorboard DIR RUN    the same through TensorBoard's own reader; exit code 77 where it is missing
"""
import csv
import glob
import html.parser
import json
import math
import os
import re
import struct
import sys
import xml.etree.ElementTree as tree

XHTML, SVG = "{http://www.w3.org/1999/xhtml}", "{http://www.w3.org/2000/svg}"


def lines_of(run):
    with open(os.path.join(run, "metrics.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def last_epoch(run):
    return [line for line in lines_of(run) if line["event"] == "epoch"][-1]


def check(condition, *what):
    if not condition:
        sys.exit("report_check: " + " ".join(map(str, what)))


class Strict(html.parser.HTMLParser):
    """What a browser would act on: elements and attributes."""

    allowed = set("html head meta title style body input label main section h1 h2 h3 p span strong data div table thead "
                  "tbody tr th td figure figcaption svg g path polygon circle text tspan pre details summary ul li a".split())

    def handle_starttag(self, tag, attributes):
        check(tag in self.allowed, "element", tag)
        for name, value in attributes:
            check(not name.startswith("on") and name not in ("src", "xlink:href"), "attribute", tag, name, value)
            check(name != "href" or re.fullmatch(r"#g\d+", value), "link", tag, value)
            check("url(" not in (value or ""), "link", tag, value)


def page(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    Strict().feed(text)
    for address in re.findall(r"\w+://[^\"' ]*", text):
        check(address in (XHTML[1:-1], SVG[1:-1]), "address", address)
    root = tree.fromstring(text)
    identifiers = [e.get("id") for e in root.iter() if e.get("id")]
    check(len(identifiers) == len(set(identifiers)), "identifiers twice")
    spoken = {language: [e for e in root.iter() if e.get("lang") == language and e.tag != XHTML + "html"]
              for language in ("en", "zh")}
    check(len(spoken["zh"]) == len(spoken["en"]) + 1 > 20, "languages", {k: len(v) for k, v in spoken.items()})
    for e in spoken["en"]:
        check("".join(e.itertext()).isascii(), "not English:", "".join(e.itertext()))
    check(any(re.search("[\u4e00-\u9fff]", "".join(e.itertext())) for e in spoken["zh"]), "no Chinese")
    for picture in root.iter(SVG + "svg"):
        check(picture.get("viewBox") and not picture.get("width") and picture.get("aria-label"), "svg", picture.attrib)
        check(not any(re.fullmatch(r"\s*@\d+@x*", t) for t in picture.itertext()), "a token is left")
        check(sum(1 for e in picture.iter() if e.tag in (SVG + "path", SVG + "polygon") and e.get("d", e.get("points")))
              > 3, "nothing is drawn")
    return root


def rows_of(root):
    """Lists of cells: the text in English, or the value of a number."""
    def cell(td):
        number = td.find(XHTML + "data")
        return number.get("value") if number is not None else "".join(
            t for e in td.iter() if e.get("lang") != "zh" for t in [e.text or ""]).replace("★ ", "")
    for table in root.iter(XHTML + "table"):
        if table.get("class") == "trials":
            return [[cell(td) for td in tr.iter(XHTML + "td")] for tr in table.iter(XHTML + "tr")][1:]
    sys.exit("report_check: no table")


def check_html(path, *runs):
    root = page(path)
    rows = rows_of(root)
    check(sorted(row[0] for row in rows) == sorted(runs), "runs", [row[0] for row in rows])
    metrics = [float(row[3]) for row in rows]
    check(metrics == sorted(metrics, reverse=True), "order", metrics)
    for row in rows:
        epoch = last_epoch(row[0])
        check(float(row[3]) == epoch["validation_accuracy"], row, epoch)
        check([float(x) for x in row[-5:-2]] == [epoch["validation_loss"], epoch["accuracy"], epoch["f1"]], row, epoch)
    confusion = [[int(td.text) for td in tr.iter(XHTML + "td") if td.text] for table in root.iter(XHTML + "table")
                 if table.get("class") == "confusion" for tr in table.iter(XHTML + "tr")][1:]
    check(confusion == last_epoch(rows[0][0])["confusion"], "confusion", confusion)
    check(len(list(root.iter(SVG + "svg"))) == 4, "pictures")
    print(next(e.text for e in root.iter(XHTML + "pre")))


def check_sweep(path, directory):
    root = page(path)
    results = [json.load(open(name, encoding="utf-8"))
               for name in sorted(glob.glob(glob.escape(directory) + "/results/*.json"))]
    winner = results.pop()
    last = {r["trial"]: r for r in results}
    rows = rows_of(root)
    check(rows[0][0] == "winner" and float(rows[0][3]) == winner["metric"], rows[0])
    check([int(row[0]) for row in rows[1:]] ==
          sorted(last, key=lambda t: (last[t]["metric"] is None, -(last[t]["metric"] or 0))), "order")
    names = {"paused": "stopped"}
    for row in rows[1:]:
        result = last[int(row[0])]
        check(row[1] == names.get(result["status"], result["status"]) and int(row[2]) == result["epochs"], row, result)
    text = "".join(root.itertext())
    work = results + [winner]
    claims = [json.load(open(name, encoding="utf-8")) for name in glob.glob(glob.escape(directory) + "/claims/*")]
    begin, over = min(c["begin"] for c in claims + work), max(r["end"] for r in results)
    workers = {r["worker"] for r in claims + work}
    tried = {r["worker"] for r in results} | {c["worker"] for c in claims if c["worker"] != winner["worker"]}
    busy = 100 * sum(r["end"] - r["begin"] for r in results) / len(tried) / (over - begin)
    wanted = f"{busy:.1f} % of {len(tried)} workers x {over - begin:.1f} s."
    check(f"Busy until the last trial ended: {wanted}" in text, "busy", wanted)
    best = next(tr for tr in root.iter(XHTML + "tr") if tr.get("class") == "best")
    check(int("".join(best[0].itertext())[2:]) == winner["trial"], "best", winner)
    pictures = list(root.iter(SVG + "svg"))
    check(len(pictures) == 7, "pictures", len(pictures))
    labels = ["".join(e.itertext()) for e in pictures[6].iter(SVG + "text")]
    check("W" in labels and "0" in labels and all(w[:20] in "".join(labels) for w in workers), "Gantt", labels)
    boxes = [e for e in pictures[6].iter(SVG + "polygon")]
    check(len(boxes) == len(work), "boxes", len(boxes), len(work))
    heights = [max(ys) - min(ys) for ys in ([float(p.split(",")[1]) for p in b.get("points").split()] for b in boxes)]
    check(min(heights) > 10, "flat boxes", min(heights))
    shares = [e.text[:-2] for e in pictures[4].iter(SVG + "text") if re.fullmatch(r"\d+ %", e.text or "")]
    check(len(shares) == 4 and int(shares[0]) == correlation_ratio(directory, results), "importance", shares)


def correlation_ratio(directory, results):
    """Of the learning rate, which matters most, for the accuracy after epoch 1; rounded to percent."""
    plan = json.load(open(directory + "/sweep.json", encoding="utf-8"))["trials"]
    first = {r["trial"]: r["metric"] for r in results if r["epoch"] == 1 and r["metric"] is not None}
    mean, groups = sum(first.values()) / len(first), {}
    for trial, value in first.items():
        groups.setdefault(plan[trial]["parameters"]["train.learning_rate"], []).append(value - mean)
    between = sum(sum(g) ** 2 / len(g) for g in groups.values())
    return round(100 * between / sum((v - mean) ** 2 for v in first.values()))


def check_csv(path, *runs):
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    check(text.count("\r\n") >= len(runs) + 1 and "\n" not in text.replace("\r\n", ""), "line ends")
    records = list(csv.DictReader(text.splitlines(True), strict=True))
    check(sorted(r["directory"] for r in records) == sorted(runs), "runs", [r["directory"] for r in records])
    for record in records:
        epoch = last_epoch(record["directory"])
        check(None not in record and None not in record.values(), "fields", record)
        steps = [line for line in lines_of(record["directory"]) if line["event"] == "step"]
        check(int(record["epochs"]) == epoch["epoch"] and int(record["steps"]) == steps[-1]["step"], record)
        check(record["metric_name"] == "validation_accuracy" and float(record["metric"]) == epoch["validation_accuracy"]
              and float(record["validation_loss"]) == epoch["validation_loss"], record, epoch)
        check(float(record["accuracy"]) == epoch["accuracy"] and float(record["f1"]) == epoch["f1"], record, epoch)
        speed = sum(s["samples"] for s in steps) / sum(s["seconds"] for s in steps)
        check(math.isclose(float(record["samples_per_second"]), speed), record, speed)
    metrics = [float(r["metric"]) for r in records]
    check(metrics == sorted(metrics, reverse=True), "order", metrics)


def masked_crc(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def fields(message):
    """Fields of a message of protocol buffers as a dictionary of number to value."""
    found, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    while at < len(message):
        key = varint()
        if key & 7 == 0:
            found[key >> 3] = varint()
        else:
            size = {1: 8, 5: 4}.get(key & 7) or varint()
            check(key & 7 in (1, 2, 5) and at + size <= len(message), "wire type", key)
            found[key >> 3] = message[at:at + size]
            at += size
    return found


def scalars_of(path):
    check(masked_crc(b"123456789") == (((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF), "own CRC")
    with open(path, "rb") as file:
        data = file.read()
    at, events = 0, []
    while at < len(data):
        size, crc = struct.unpack_from("<QI", data, at)
        check(crc == masked_crc(data[at:at + 8]), "CRC of a length at", at)
        body = data[at + 12:at + 12 + size]
        check(struct.unpack_from("<I", data, at + 12 + size)[0] == masked_crc(body), "CRC of a record at", at)
        events.append(fields(body))
        at += 16 + size
    check(at == len(data) and events[0][3] == b"brain.Event:2", "first event", events[0])
    scalars = {}
    for event in events[1:]:
        value = fields(fields(event[5])[1])
        scalars.setdefault(value[1].decode(), []).append(
            (struct.unpack("<d", event[1])[0], event[2], struct.unpack("<f", value[2])[0]))
    return scalars


def single(value):
    return math.nan if value is None else struct.unpack("<f", struct.pack("<f", value))[0]


def check_scalars(scalars, run):
    lines = lines_of(run)
    steps = [line for line in lines if line["event"] == "step"]
    epochs = [(max(s["step"] for s in steps if s["epoch"] <= line["epoch"]), line)
              for line in lines if line["event"] == "epoch"]
    wanted = {tag: [(s["step"], single(s[key])) for s in steps] for tag, key in
              [("train/loss", "loss"), ("train/learning_rate", "learning_rate"), ("train/grad_norm", "grad_norm")]}
    wanted |= {tag: [(step, single(line[key])) for step, line in epochs] for tag, key in
               [("eval/loss", "validation_loss"), ("eval/accuracy", "accuracy"), ("eval/f1", "f1")]}
    check(set(scalars) == set(wanted), "tags", set(scalars))
    for tag, points in wanted.items():
        check(repr([(s, v) for _, s, v in scalars[tag]]) == repr(points), tag, scalars[tag][:3], points[:3])
    times = [t for t, _, _ in scalars["train/loss"]]
    changed = os.stat(os.path.join(run, "metrics.jsonl")).st_mtime
    check(times == sorted(times) and abs(times[-1] - changed) < 1e-3, "times", times[-1], changed)
    lasted = sum(s["seconds"] for s in steps[1:])
    check(abs(times[-1] - times[0] - lasted) < 1e-3, "seconds", times[-1] - times[0], lasted)


def check_tensorboard(directory, run):
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        sys.exit(77)
    events = EventAccumulator(directory, size_guidance={"scalars": 0})
    events.Reload()
    check_scalars({tag: [(e.wall_time, e.step, e.value) for e in events.Scalars(tag)]
                   for tag in events.Tags()["scalars"]}, run)


what, arguments = sys.argv[1], sys.argv[2:]
if what == "events":
    check_scalars(scalars_of(arguments[0]), arguments[1])
else:
    {"html": check_html, "sweep": check_sweep, "csv": check_csv, "tensorboard": check_tensorboard}[what](*arguments)
