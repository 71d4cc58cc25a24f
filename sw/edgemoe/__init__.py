"""edgemoe: deploy multi-task Mixture-of-Experts Vision Transformers on an open FPGA accelerator.

import edgemoe

with edgemoe.open("sim", "model.emoe") as accelerator:
    print(accelerator.run("scene.png", "depth").metres)
    for frame in accelerator.stream("video.mp4", ["segmentation", "depth"]):
        print(frame.number, frame["segmentation"].labels)
"""

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
