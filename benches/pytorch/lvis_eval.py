#!/usr/bin/env python3
"""Measures detections by LVIS's rules, with `richsem eval` and with lvis-api, each in a process of its
own, on generated files of the size of LVIS v1's validation set: 19,809 images, 1,203 classes, some
244,000 boxes, 300 detections an image. Prints seconds and peak resident memory of each, and the
largest difference between their metrics.

    benches/pytorch/lvis_eval.py --richsem target/release/richsem               everything, 5.9 M detections
    benches/pytorch/lvis_eval.py --richsem target/release/richsem --images 2000 a tenth

lvis-api wants some 20 GiB for everything; where it is refused (--limit-gib), ours is measured alone.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

from common import (command_line, fail, need, number, processor, ratio, save, table)

IMAGES = 19_809
# Classes by training images: as many frequent, common and rare ones as LVIS v1 has.
GROUPS = [("f", 405), ("c", 461), ("r", 337)]
DETECTIONS = 300


def generate(folder, images, np):
    """Annotations and detections; the same for the same number of images."""
    annotations, detections = folder / f"annotations-{images}.json", folder / f"detections-{images}.json"
    if annotations.exists() and detections.exists():
        return annotations, detections
    random = np.random.default_rng(0)
    frequency = [letter for letter, count in GROUPS for _ in range(count)]
    classes = len(frequency)
    # Training images of each class: 1,900 for the most frequent, a hundred at the border to the
    # common ones, ten at the border to the rare ones.
    anchors = [0, GROUPS[0][1], GROUPS[0][1] + GROUPS[1][1], classes - 1]
    trained = np.exp(np.interp(np.arange(classes), anchors, np.log([30_000, 100, 10, 1])))
    share = np.sqrt(trained * trained.clip(None, 2000))  # boxes: a few classes have most of them
    share /= share.sum()
    ids = random.permutation(classes) + 1  # a class's id says nothing of its frequency
    write = lambda file, rows: file.write(",\n".join(rows))
    temporary = [path.with_suffix(".part") for path in (annotations, detections)]
    with open(temporary[0], "w") as truth, open(temporary[1], "w") as found:
        image_rows, next_id = [], 1
        truth.write('{"annotations": [\n')
        found.write("[\n")
        for image in range(1, images + 1):
            width, height = (640, int(random.integers(360, 641)))
            if random.random() < 0.25:
                width, height = height, width
            present = np.unique(random.choice(classes, 1 + random.poisson(3.4), p=share))
            labels = np.repeat(present, random.geometric(0.352, len(present)))
            count = len(labels)
            sides = np.exp(random.normal(-1.9, 0.9, (count, 2))).clip(0.01, 0.98) * [width, height]
            corners = random.random((count, 2)) * ([width, height] - sides)
            boxes = np.round(np.concatenate([corners, sides], 1), 2)
            rows = []
            for label, (x, y, w, h) in zip(labels, boxes.tolist()):
                outline = [x, y + h / 2, x + w / 4, y, x + w / 2, y, x + w, y + h / 4, x + w, y + h / 2,
                           x + w * 3 / 4, y + h, x + w / 2, y + h, x, y + h * 3 / 4]
                rows.append(json.dumps({
                    "id": next_id, "image_id": image, "category_id": int(ids[label]),
                    "bbox": [x, y, w, h], "area": round(w * h * 0.75, 2),
                    "segmentation": [[round(v, 2) for v in outline]]}))
                next_id += 1
            if rows:
                truth.write(",\n" if next_id > len(rows) + 1 else "")
                write(truth, rows)
            absent = np.setdiff1d(random.choice(classes, random.poisson(8)), present)
            partly = present[random.random(len(present)) < 0.1]
            image_rows.append(json.dumps({
                "id": image, "width": width, "height": height, "file_name": f"{image:012}.jpg",
                "neg_category_ids": ids[absent].tolist(),
                "not_exhaustive_category_ids": ids[partly].tolist()}))
            # Detections: each box about twice, mostly by its own class, and noise.
            hits = random.integers(0, count, min(2 * count, DETECTIONS // 2))
            moved = boxes[hits] + random.normal(0, 0.12, (len(hits), 4)) * np.tile(boxes[hits, 2:], 2)
            right = random.random(len(hits)) < 0.7
            of_hits = np.where(right, labels[hits], random.choice(classes, len(hits), p=share))
            noise = DETECTIONS - len(hits)
            noise_sides = np.exp(random.normal(-1.9, 0.9, (noise, 2))).clip(0.01, 0.98) * [width, height]
            noise_boxes = np.concatenate([random.random((noise, 2)) * ([width, height] - noise_sides),
                                          noise_sides], 1)
            here = np.concatenate([present, absent])
            of_noise = np.where(random.random(noise) < 0.5, here[random.integers(0, len(here), noise)],
                                random.choice(classes, noise, p=share))
            boxes = np.concatenate([moved, noise_boxes])
            boxes[:, 2:] = boxes[:, 2:].clip(1)
            scores = np.concatenate([random.beta(4, 3, len(hits)), random.beta(1, 8, noise)])
            of_all = ids[np.concatenate([of_hits, of_noise])]
            found.write(",\n" if image > 1 else "")
            write(found, ('{"image_id": %d, "category_id": %d, "bbox": [%.2f, %.2f, %.2f, %.2f], "score": %.6f}'
                          % (image, label, *box, score)
                          for label, box, score in zip(of_all.tolist(), boxes.tolist(), scores.tolist())))
        found.write("\n]\n")
        categories = [{"id": int(ids[k]), "name": f"class {k}", "frequency": frequency[k],
                       "image_count": int(trained[k]), "instance_count": int(2 * trained[k])}
                      for k in range(classes)]
        truth.write('\n], "images": [\n')
        write(truth, image_rows)
        truth.write('\n], "categories": ' + json.dumps(sorted(categories, key=lambda c: c["id"])) + "}\n")
    temporary[0].replace(annotations)
    temporary[1].replace(detections)
    return annotations, detections


def import_lvis():
    """lvis-api 0.5.3 on today's numpy, and without what it draws images with."""
    np = need("numpy")
    need("pycocotools")
    np.float = float  # removed in numpy 1.24
    vis = types.ModuleType("lvis.vis")
    vis.LVISVis = None
    sys.modules["lvis.vis"] = vis
    return need("lvis")


def lvis_api(annotations, detections, output):
    """What the second process does."""
    lvis = import_lvis()
    truth = lvis.LVIS(annotations)
    evaluation = lvis.LVISEval(truth, lvis.LVISResults(truth, detections), "bbox")
    evaluation.run()
    Path(output).write_text(json.dumps(evaluation.get_results()))


def measured(command, limit=None):
    """Runs a process; seconds, peak resident MiB, and how it ended."""
    print("+ " + " ".join(map(str, command)), file=sys.stderr, flush=True)
    bound = (lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))) if limit else None
    start = time.perf_counter()
    try:
        process = subprocess.Popen([str(part) for part in command], stdout=sys.stderr, preexec_fn=bound)
    except OSError as error:
        fail(f"{command[0]}: {error.strerror}", "build it: cargo build --release, and name it")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {"seconds": time.perf_counter() - start, "peak_mib": usage.ru_maxrss / 1024,
            "cpu_seconds": usage.ru_utime + usage.ru_stime, "ended": process.returncode}


def available():
    for line in open("/proc/meminfo"):
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) / 2**20
    return None


def main():
    if sys.argv[1:2] == ["--lvis-api"]:
        return lvis_api(*sys.argv[2:])
    parser = command_line(__doc__)
    add = parser.add_argument
    add("--richsem", required=True, help="our program")
    add("--images", type=int, default=IMAGES, help="fewer for less time and memory")
    add("--folder", help="keeps the generated files there, or takes them from there")
    add("--limit-gib", type=float, help="address space lvis-api may take; 2 GiB below what is "
                                        "available, unless given")
    add("--ours-alone", action="store_true", help="without lvis-api")
    add("--json", help="writes all numbers to this file")
    args = parser.parse_args()
    if args.images < 1:
        fail(f"--images: expected at least 1, got {args.images}")
    np = need("numpy")
    if not args.ours_alone:
        import_lvis()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        annotations, detections = generate(folder, args.images, np)
        outputs = [Path(temporary) / "ours.json", Path(temporary) / "theirs.json"]
        ours = measured([args.richsem, "eval", "--annotations", annotations, "--detections", detections,
                         "--protocol", "lvis", "--device", "cpu", "--json", outputs[0]])
        if ours["ended"] != 0:
            fail(f"{args.richsem} ended with {ours['ended']}; what it said is above")
        summary = json.loads(outputs[0].read_text())
        theirs, difference, worst = None, None, None
        if not args.ours_alone:
            limit = args.limit_gib or max(1, (available() or 16) - 2)
            theirs = measured([sys.executable, __file__, "--lvis-api", annotations, detections,
                               outputs[1]], int(limit * 2**30))
            if theirs["ended"] == 0:
                expected = json.loads(outputs[1].read_text())
                differences = {name: abs((summary["metrics"][name] if summary["metrics"][name]
                                          is not None else -1) - value)
                               for name, value in expected.items()}
                worst = max(differences, key=differences.get)
                difference = differences[worst]
    print(f"{processor()}; {summary['images']} images, {summary['boxes']} boxes, "
          f"{summary['detections']} detections\n")
    done = theirs and theirs["ended"] == 0
    cell = lambda key: number(theirs[key]) if done else "–"
    table(["<evaluation", "lvis-api", "ours", "lvis-api / ours"],
          [["seconds", cell("seconds"), number(ours["seconds"]),
            ratio(theirs["seconds"] if done else None, ours["seconds"])],
           ["CPU seconds", cell("cpu_seconds"), number(ours["cpu_seconds"]),
            ratio(theirs["cpu_seconds"] if done else None, ours["cpu_seconds"])],
           ["peak resident memory, MiB", cell("peak_mib"), number(ours["peak_mib"]),
            ratio(theirs["peak_mib"] if done else None, ours["peak_mib"])]])
    if done:
        print(f"largest difference of {len(expected)} metrics: {difference:.1e} ({worst}); "
              + ", ".join(f"{name} {summary['metrics'][name]:.6f}" for name in ("AP", "APr", "APc", "APf")))
    elif theirs:
        print(f"lvis-api ended with {theirs['ended']} after {theirs['seconds']:.0f} s at "
              f"{theirs['peak_mib']:.0f} MiB; it was allowed {limit:.1f} GiB of address space "
              "(--limit-gib); fewer --images need less")
    save({"hardware": processor(), "images": summary["images"], "boxes": summary["boxes"],
          "detections": summary["detections"], "richsem": ours, "lvis_api": theirs,
          "largest_difference": difference, "metric": worst, "metrics": summary["metrics"]}, args.json)
    # Different metrics are a fault, wherever this is run.
    return 1 if done and difference > 1e-9 else 0


sys.exit(main())
