"""Text of m3vit-tiny-camvid's card and of the page about its failures, from the figures of ``tools/photos_card.py``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgemoe_models.datasets import camvid
from edgemoe_models.storage.json_text import read_json

__all__ = ["card", "failures", "random_weights"]

_ACCELERATOR = Path(__file__).resolve().parents[1] / "docs" / "measurements" / "accelerator.json"

_MARK = "<!-- Written by `python tools/photos_card.py`; change tools/photos_pages.py instead. -->"
_CARD = """# Model card: m3vit-tiny-camvid

{mark}

Edge-MoE's network (M³ViT, 12 blocks of 192, 16 experts, top 2; 256 × 128 pixels), trained for real: first on generated
scenes, then on CamVid's photographs of streets. From one picture it gives 11 classes, or the borders between them.

**For research use only**: trained on CamVid (Brostow, Fauqueur, Cipolla 2009), whose pictures and labels are for
research. The weights' own licence gives no right to those pictures; none of them is in this project.

## Files

In `models/edgemoe_models/weights` of the repository; too large for the wheel and the source distribution. By name they
are found in a checkout; elsewhere give the file as `--model`.

| file | |
|---|---|
| `m3vit-tiny-camvid-00001-of-00002.safetensors` | float weights as bfloat16, with `…-00002-of-00002…` |
| `m3vit-tiny-camvid.graph.safetensors` | integer graph, PTQ W8A8, calibrated on 16 training pictures |
| `m3vit-tiny-camvid-w8a8.graph.safetensors`, `…-w4a8…` | integer graphs of quantization-aware training |

```
edgemoe compile --model m3vit-tiny-camvid --config pynq-z2 --out build/camvid.emoe
edgemoe run build/camvid.emoe PICTURE --resize crop
```

## Training

{training}

The variant and its checkpoint were chosen on the 101 validation pictures; the 233 test pictures were measured once,
after that. Labels of validation had the picture's size (256 × 128), those of the test have CamVid's reduced one
(256 × 192).

| variant | | steps | validation mIoU % |
|---|---|---:|---:|
{variants}

```
python tools/pack_photos.py --data-root data/camvid
OUT=build/photos python tools/train_photos.py             # on the GPU's machine
python tools/train_photos.py --unpack build/photos --out build/weights
python tools/publish_photos.py build/weights/photos.safetensors
edgemoe quantize models/edgemoe_models/weights/m3vit-tiny-camvid-00001-of-00002.safetensors \\
    --images data/camvid/train --out models/edgemoe_models/weights/m3vit-tiny-camvid.graph.safetensors
```

{qat}

## Accuracy

233 test pictures, float weights, outputs upsampled to 256 × 192; void does not count.

| mIoU % | class accuracy % | pixel accuracy % | boundary F1 % | edges F1 % |
|---:|---:|---:|---:|---:|
{test}

| class | {names} |
|---|{rule}|
| IoU % | {ious} |

```
edgemoe train --preset m3vit-tiny --data camvid --data-root data/camvid --tasks segmentation,edges \\
    --evaluate models/edgemoe_models/weights/m3vit-tiny-camvid-00001-of-00002.safetensors \\
    --split test --val-scenes 233 --label-size 192x256 --details
```

{accuracy}

{measured}## Intended use

To show and to measure the accelerator with gates and weights that have learnt something real. **Not for** driving, nor
any decision about people: small or rare things are mostly missed ([where it fails](../camvid_failures.md)).

## Limits

- 367 pictures of one city, 4 minutes of training, 256 × 128 pixels: published networks have larger pictures, and do
  better ([models](../models.md#camvid)).
- Cycles are simulated; milliseconds would be at an assumed clock. Nothing has run on a board.
"""


def _percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f}"


def card(figures: dict[str, Any]) -> str:
    """The model's card.

    Args:
        figures: what ``photos_card.collect`` put together; all but ``accuracy``, ``cycles`` and ``expert_load`` must be
            there
    """
    training, test = figures["training"], figures["test"]
    found = test["segmentation"]
    names = camvid.CLASSES
    row = [found[key] for key in ("miou", "class_accuracy", "pixel_accuracy", "boundary_f1")] + [test["edges"]["f1"]]
    return _CARD.format(
        mark=_MARK,
        training=_training(training),
        variants="\n".join(_variants(training)),
        qat=_quantization_aware(figures["qat"], figures["qat_cpu"]),
        test=f"| {' | '.join(_percent(value) for value in row)} |",
        names=" | ".join(names),
        rule="|".join(["---:"] * len(names)),
        ious=" | ".join(_percent(found[f"iou_{index}"]) for index in range(len(names))),
        accuracy=_accuracy(figures.get("accuracy", [])),
        measured="".join([*_cycles(figures.get("cycles", {})), *_experts(figures.get("expert_load"))]),
    )


def _training(training: dict[str, Any]) -> str:
    machine, scenes = training["machine"], training["steps"]["scenes"]
    chosen = training["chosen"]["photos"]
    photos = training["steps"][chosen["step"]]
    lines = (
        f"One run of {training['seconds']:.0f} seconds on one {machine['card']} ({machine['cpus']} cores, PyTorch "
        f"{machine['torch']}), seed {photos['options']['seed']}, products in bfloat16:",
        "",
        f"- scenes, four tasks: {scenes['steps']} steps of {scenes['options']['batch']} in {scenes['seconds']:.0f} "
        f"seconds, {_percent(scenes['miou'])} % validation mIoU;",
        f"- CamVid, five variants side by side on the same GPU, `{chosen['step']}` was chosen: {photos['steps']}",
        f"  steps of {photos['options']['batch']} in {photos['seconds']:.0f} seconds, {_percent(photos['miou'])} % "
        "validation mIoU.",
    )
    return "\n".join(lines)


def _variants(training: dict[str, Any]) -> Iterable[str]:
    for name, step in training["steps"].items():
        if name in ("scenes", "check"):
            continue
        options = step["options"]
        head = f"hidden {options['head_hidden']}" if options["head_hidden"] else "linear"
        start = "after scenes" if options["init"] else "from random weights"
        what = (
            f"{head}, {options['cells']} × {options['cells']} cells a patch, rate {options['learning_rate']:g}, "
            f"layer decay {options['layer_decay']:g}, {start}"
        )
        yield f"| `{name}` | {what} | {step['steps']} | {_percent(step['miou'])} |"


_QAT = """Quantization-aware training went on from there: {count} variants side by side on one {card}
({cpus} cores, PyTorch {torch}), {seconds:.0f} seconds with calibration and validation, {batch} pictures a task in
a step. *Distilled*: that share of the loss compares with the float model's outputs, the rest with the labels. Of each
precision the validation pictures chose one, by the sum of mIoU and F1 (integer reference), and only these two were
measured on the test pictures:

| variant | experts' bits | distilled | rate | steps | validation mIoU % | edges F1 % | |
|---|---:|---:|---:|---:|---:|---:|---|
{rows}

```
OUT=build/qat-photos python tools/qat_photos.py                        # on the GPU's machine
OUT=build/qat-latent python tools/qat_photos.py --latent w8-most       # there too: for the row of Brevitas
python tools/qat_photos.py --unpack build/qat-photos --out models/edgemoe_models/weights
```

Without a GPU, on one core of a shared machine ({cpu_minutes:.0f} minutes each), {cpu_steps} steps of {cpu_batch}
pictures a task, W8A8, whose graphs were not kept:

| distilled | rate | validation mIoU % | test mIoU % | test edges F1 % |
|---:|---:|---:|---:|---:|
{cpu_rows}

```
edgemoe qat --model m3vit-tiny-camvid --expert-bits 8 --data camvid --data-root data/camvid --augment strong \\
    --mix 0.5 --class-balance 0.5 --batch {cpu_batch} --steps {cpu_steps} --learning-rate 1e-5 --distill 0.5 \\
    --ema 0.99 --val-scenes 101 --threads 1
```

Four shorter runs without distillation had been measured on the test pictures before (136 to 162 steps, rates of 5e-6
to 5e-5): they were 0.5 to 1.3 points below float. Post-training quantization loses no mIoU here: it is what to use."""


def _quantization_aware(report: dict[str, Any], on_cpu: list[dict[str, Any]]) -> str:
    rows = []
    done = {name: told for name, told in report["variants"].items() if told["metrics"]}
    for name, told in done.items():
        options, metrics = told["options"], told["metrics"]
        cells = [f"`{name}`", options["expert_bits"], options["distill"], f"{options['learning_rate']:g}"]
        cells += [metrics["steps"], _percent(metrics["segmentation"]["miou"]), _percent(metrics["edges"]["f1"])]
        cells.append("chosen" if name in report["chosen"].values() else "")
        rows.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    cpu_rows = []
    for run in on_cpu:
        cells = [run["distill"], f"{run['learning_rate']:g}", _percent(run["val"]["segmentation"]["miou"])]
        cells += [_percent(run["test"]["segmentation"]["miou"]), _percent(run["test"]["edges"]["f1"])]
        cpu_rows.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return _QAT.format(
        **report["machine"],
        count=len(done),
        seconds=report["seconds"],
        batch=next(iter(done.values()))["options"]["batch"],
        rows="\n".join(rows),
        cpu_minutes=sum(run["minutes"] for run in on_cpu) / len(on_cpu),
        cpu_steps=on_cpu[0]["steps"],
        cpu_batch=on_cpu[0]["batch"],
        cpu_rows="\n".join(cpu_rows),
    )


def _accuracy(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "What quantization costs has not been measured yet: `make accuracy` does it."
    lines = [
        "In brackets the drop against float on the same pictures, in points; positive is worse. Of two pictures it",
        "says little: a class that neither has counts as soon as one pixel is taken for it.",
        "",
        "| precision | executor | pictures | mIoU % | class % | pixel % | boundary F1 % | edges F1 % | exact |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        seg, drop = row["metrics"]["segmentation"], row["drop"]
        cells = [f"{_percent(seg['miou'], 2)} ({drop['segmentation']:+.2f})"]
        cells += [_percent(seg[key]) for key in ("class_accuracy", "pixel_accuracy", "boundary_f1")]
        cells += [f"{_percent(row['metrics']['edges']['f1'], 2)} ({drop['edges']:+.2f})"]
        equal = "" if "equal" not in row else "yes" if row["equal"] else "**no**"
        lines.append(f"| {row['precision']} | {row['executor']} | {row['images']} | {' | '.join(cells)} | {equal} |")
    return "\n".join([*lines, "", "```", "make accuracy", "```"])


def _cycles(reports: dict[str, dict[str, Any]]) -> Iterable[str]:
    """A table of each configuration's report."""
    if not reports:
        return
    yield "## Cycles of real gates\n\n"
    yield "Test pictures on the simulated accelerator (`edgemoe run BUNDLE PICTURE --device sim --resize squeeze`). "
    yield "Edge-MoE's\nshape with random weights has linear heads, whose cycles are included "
    yield "([benchmarks](../benchmarks.md#accelerator)).\n\n"
    for config, report in reports.items():
        exact = "every tensor equal to the reference's" if report["bit_exact"] else "**not equal to the reference**"
        yield f"`{config}`: {report['tensors_compared']:,} tensors, {exact}; random weights: "
        yield f"{random_weights(config):,} cycles.\n\n"
        clock = report["assumed_clock_mhz"]
        yield f"| task | picture | cycles | without the head | ms at an assumed {clock:g} MHz | "
        yield "bytes fetched in vain |\n"
        yield "|---|---|---:|---:|---:|---:|\n"
        for run in report["per_inference"]:
            yield f"| {run['task']} | `{run['image']}` | {run['cycles']:,} | {run['backbone_cycles']:,} | "
            yield f"{run['cycles'] / clock / 1000:.2f} | {run['wasted_bytes']:,} |\n"
        yield "\n"


def random_weights(config: str) -> int:
    """Cycles of m3vit-tiny with random weights, as they were measured."""
    rows = read_json(_ACCELERATOR)["rows"]
    same = {"model": "m3vit-tiny", "expert_bits": 8, "config": config, "dram_model": "plain"}
    cycles: int = next(row["cycles"] for row in rows if all(row[name] == value for name, value in same.items()))
    return cycles


def _experts(loads: dict[str, Any] | None) -> Iterable[str]:
    if loads is None:
        return
    yield "## Experts\n\n"
    yield f"Share of the visits that each expert gets, {loads['images']} test pictures, {loads['precision']} "
    yield "(`edgemoe expert-load --images FOLDER`).\n\n"
    yield "![Expert loads by block and task](m3vit-tiny-camvid-expert-load.png)\n\n"
    yield "| block | task | busiest / mean | entropy, bits | unused in all pictures | unused in one |\n"
    yield "|---:|---|---:|---:|---:|---:|\n"
    for block in loads["blocks"]:
        for task, load in block["tasks"].items():
            yield (
                f"| {block['block']} | {task} | {load['busiest_over_mean']:.2f} | {load['entropy_bits']:.2f} | "
                f"{len(load['unused'])} | {load['image_unused']:.2f} |\n"
            )
    yield "\n"


_FAILURES = """# Where m3vit-tiny-camvid fails

{mark}

The worst of CamVid's 233 test pictures for [m3vit-tiny-camvid](model_cards/m3vit-tiny-camvid.md): float weights,
outputs upsampled to 256 × 192. File names and numbers only, since CamVid's pictures are for research and are in no file
of this project. See them with the data set at hand:

```
python tools/photo_failures.py models/edgemoe_models/weights/m3vit-tiny-camvid-00001-of-00002.safetensors \\
    --data-root data/camvid --label-size 192x256
edgemoe run build/camvid.emoe data/camvid/test/NAME.png --resize squeeze --task segmentation
```

## By class

Of each class the three pictures of lowest IoU, among those where it has 0.5 % of the labelled pixels or more. *Seen
as*: the class that most of its pixels get there. *Mistaken for*: over all pictures, the wrong classes that its pixels
most often get, with their share of its pixels.

| class | IoU % | pictures | mistaken for | picture | share % | IoU % | seen as |
|---|---:|---:|---|---|---:|---:|---|
{classes}

## By picture

Mean IoU over the classes judged in a picture; its median is {median} %.

| | picture | mean IoU % |
|---|---|---:|
{pictures}

## Why

- **Thin and small things** (poles, signs, pedestrians): a patch has 16 × 16 pixels, and CamVid's 960 × 720 are reduced
  to 256 × 128, where a pole is one or two pixels wide. Networks that do better have pictures of 480 × 360 and more.
- **Rare things** (fences, bicyclists): few of 367 training pictures have them.
- **Validation is easier than the test**: its mIoU was {gap} points higher, with labels of the picture's size.
"""


def failures(found: dict[str, Any], gap: str = "13") -> str:
    """The page of the worst pictures.

    Args:
        found: what ``photo_failures.worst`` gave
        gap: points between validation and test
    """
    rows = []
    for name, values in found["classes"].items():
        wrong = ", ".join(f"{other} {_percent(share, 0)} %" for other, share in values["mistaken_for"])
        first = f"| {name} | {_percent(values['iou'])} | {values['judged']} | {wrong} "
        for number, one in enumerate(values["worst"]):
            cells = f"| `{one['file']}` | {_percent(one['share'])} | {_percent(one['iou'])} | {one['seen_as']} |"
            rows.append((first if not number else "| | | | ") + cells)
    pictures = [f"| worst | `{one['file']}` | {_percent(one['miou'])} |" for one in found["pictures"]]
    pictures += [f"| best | `{one['file']}` | {_percent(one['miou'])} |" for one in found["best"]]
    return _FAILURES.format(
        mark=_MARK,
        classes="\n".join(rows),
        pictures="\n".join(pictures),
        median=_percent(found["median_miou"]),
        gap=gap,
    )
