"""Self-test of a device: ``edgemoe selftest``, and on a board without a command line this module.

Runs every program of a bundle on fixed images and compares each output with the integer reference, which is computed
beside it. Boards get only what the runtime needs (``make flash``: no typer, no rich), so there ``selftest.sh`` starts
the same test as ``python3 -m edgemoe.runtime.selftest --device pynq --bundle FILE --bitstream FILE``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import Bundle, BundleError, Joined
from edgemoe.errors import DeviceError
from edgemoe.packaged_bundles import find_bundle
from edgemoe.runtime.accelerator import Accelerator
from edgemoe.runtime.opening import DEVICES
from edgemoe.runtime.opening import open as open_device
from edgemoe.runtime.surroundings import versions_line

__all__ = ["main", "selftest", "verdict"]

_INTERRUPTED = 130  # exit code, as a shell has it


def selftest(device: str, bundle: Bundle, images: int = 2, **options: Any) -> list[dict[str, Any]]:
    """One row a task, and one for each program of several tasks or images.

    A row has ``task`` (of several, how messages call them), ``images``, ``mismatches`` (values that differ) and
    ``milliseconds`` (median an image, all in).

    Args:
        device: name, as ``edgemoe.open`` takes it; ``options`` go there too
        images: for each task, and at least so many for each other program

    Raises:
        ValueError: there would be nothing to compare, or an option is wrong
        BundleError, DeviceError: as ``edgemoe.open`` and ``Accelerator.run``
    """
    if images < 1:
        raise ValueError(f"images must be at least 1, not {images}")
    size = (bundle.model.image_height, bundle.model.image_width, 3)
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, size, dtype=np.uint8) for _ in range(images)]
    rows = []
    with open_device("reference", bundle) as reference, open_device(device, bundle, **options) as accelerator:
        for task in bundle.tasks:
            mismatches, times = 0, []
            for picture in pictures:
                begin = time.perf_counter()
                found = accelerator.run(picture, task).raw
                times.append(1e3 * (time.perf_counter() - begin))
                mismatches += int(np.count_nonzero(found != reference.run(picture, task).raw))
            rows.append(_row(task, images, mismatches, times))
        for joint in bundle.joint:
            rows.append(_run_joint(accelerator, reference, joint.joined, pictures))
    return rows


def _run_joint(
    accelerator: Accelerator, reference: Accelerator, joined: Joined, pictures: list[npt.NDArray[np.uint8]]
) -> dict[str, Any]:
    """A program of several tasks or images, whether or not ``run`` would choose it."""
    rounds = -(-len(pictures) // joined.images)
    mismatches, times = 0, []
    for number in range(rounds):
        chosen = [pictures[(number * joined.images + place) % len(pictures)] for place in range(joined.images)]
        begin = time.perf_counter()
        found = accelerator.run_program(joined, chosen)
        times.append(1e3 * (time.perf_counter() - begin) / joined.images)
        for picture, of_image in zip(chosen, found, strict=True):
            for task, prediction in of_image.items():
                mismatches += int(np.count_nonzero(prediction.raw != reference.run(picture, task).raw))
    return _row(str(joined), rounds * joined.images, mismatches, times)


def _row(task: str, images: int, mismatches: int, times: list[float]) -> dict[str, Any]:
    return {"task": task, "images": images, "mismatches": mismatches, "milliseconds": float(np.median(times))}


def verdict(row: dict[str, Any]) -> str:
    """A row of ``selftest`` as a line."""
    found = f"{row['mismatches']} values DIFFER from" if row["mismatches"] else "equal"
    return (
        f"{row['task']}: {row['images']} images, {found} the integer reference; {row['milliseconds']:.2f} ms an image"
    )


def _explain(error: Exception) -> str:
    """An error in one line: our own say what to do, of any other the kind says more than its text."""
    text = " ".join(str(error).split())
    if isinstance(error, (BundleError, DeviceError, ValueError, OSError, ImportError)) and text:
        return text
    return f"the self-test failed through {type(error).__name__}: {text or 'no text'} (EDGEMOE_DEBUG=1 shows where)"


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit code is 0 only if every value is equal. Versions come first, and no error is a traceback:
    what is printed is what somebody sends who has a board that nobody else has."""
    parser = argparse.ArgumentParser(prog="python -m edgemoe.runtime.selftest", description="Self-test of a device.")
    parser.add_argument("--device", default="pynq", help=", ".join(DEVICES))
    parser.add_argument("--bundle", type=Path, required=True, help="bundle (.emoe)")
    parser.add_argument("--bitstream", type=Path, help="bitstream to load (pynq)")
    parser.add_argument("--port", help="serial port of the board (serial)")
    parser.add_argument("--images", type=int, default=2, help="images a task")
    chosen = parser.parse_args(arguments)
    options = {name: value for name in ("bitstream", "port") if (value := getattr(chosen, name)) is not None}
    sys.stdout.write(f"{versions_line()}\n")
    sys.stdout.flush()  # before whatever comes: a crash or a frozen board leaves it
    try:
        rows = selftest(chosen.device, Bundle.load(find_bundle(chosen.bundle)), chosen.images, **options)
    except KeyboardInterrupt:
        sys.stderr.write("edgemoe: interrupted\n")
        return _INTERRUPTED
    except Exception as error:  # a foreign pynq, kernel or driver raises what it likes
        if os.environ.get("EDGEMOE_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        sys.stderr.write(f"edgemoe: {_explain(error)}\n")
        return 1
    for row in rows:
        sys.stdout.write(f"{verdict(row)}\n")
    failed = any(row["mismatches"] for row in rows)
    sys.stdout.write("self-test FAILED\n" if failed else "self-test passed\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
