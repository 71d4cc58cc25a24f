"""edgemoe: deploy multi-task Mixture-of-Experts Vision Transformers on an open FPGA accelerator.

import edgemoe

with edgemoe.open("sim", "model.emoe") as accelerator:
    print(accelerator.run("scene.png", "depth").metres)
    for frame in accelerator.stream("video.mp4", ["segmentation", "depth"]):
        print(frame.number, frame["segmentation"].labels)
"""

import sys

# `make flash` copies this file to boards, whatever Python they have.
if sys.version_info < (3, 10):  # noqa: UP036
    raise ImportError(
        "edgemoe needs Python 3.10 or newer, and this is {}.{} (PYNQ has 3.10 from its image 3.0 on)".format(
            *sys.version_info
        ),
        name="edgemoe",
    )

from edgemoe.bundle import Bundle, BundleError
from edgemoe.errors import DeviceError
from edgemoe.runtime.accelerator import Accelerator
from edgemoe.runtime.frames import frames
from edgemoe.runtime.opening import open
from edgemoe.runtime.predictions import (
    Classification,
    Depth,
    Edges,
    Normals,
    Prediction,
    Segmentation,
)
from edgemoe.runtime.stream import Frame, FrameError, Stream

__version__ = "0.2.0"

__all__ = [
    "Accelerator",
    "Bundle",
    "BundleError",
    "Classification",
    "Depth",
    "DeviceError",
    "Edges",
    "Frame",
    "FrameError",
    "Normals",
    "Prediction",
    "Segmentation",
    "Stream",
    "frames",
    "open",
]
