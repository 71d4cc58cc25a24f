"""edgemoe: deploy multi-task Mixture-of-Experts Vision Transformers on an open FPGA accelerator.

Example:
    From a float checkpoint to predictions::

        import edgemoe

        bundle = edgemoe.compile(edgemoe.quantize("model.safetensors", "pictures"), "pynq-z2")
        with edgemoe.open("sim", bundle) as accelerator:
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
from edgemoe.deploy import compile, quantize
from edgemoe.errors import DeviceError, DeviceInUse
from edgemoe.packaged_bundles import bundle_names, find_bundle
from edgemoe.runtime.accelerator import Accelerator
from edgemoe.runtime.executor import DeviceTimeout, ProgramStopped
from edgemoe.runtime.frames import frames
from edgemoe.runtime.opening import DEVICES, open
from edgemoe.runtime.options import (
    DriverOptions,
    PynqOptions,
    ReferenceOptions,
    RemoteOptions,
    SerialOptions,
    SimOptions,
)
from edgemoe.runtime.platforms.base import Buffer, Platform
from edgemoe.runtime.platforms.lock import AcceleratorLock
from edgemoe.runtime.predictions import (
    Classification,
    ClassScore,
    Depth,
    Edges,
    Features,
    Normals,
    Prediction,
    Segmentation,
)
from edgemoe.runtime.stream import Frame, FrameError, Stream
from edgemoe.version import __version__
from edgemoe_hw.spec.config import PRESETS as CONFIGS
from edgemoe_hw.spec.config import AcceleratorConfig

__all__ = [
    "CONFIGS",
    "DEVICES",
    "Accelerator",
    "AcceleratorConfig",
    "AcceleratorLock",
    "Buffer",
    "Bundle",
    "BundleError",
    "ClassScore",
    "Classification",
    "Depth",
    "DeviceError",
    "DeviceInUse",
    "DeviceTimeout",
    "DriverOptions",
    "Edges",
    "Features",
    "Frame",
    "FrameError",
    "Normals",
    "Platform",
    "Prediction",
    "ProgramStopped",
    "PynqOptions",
    "ReferenceOptions",
    "RemoteOptions",
    "Segmentation",
    "SerialOptions",
    "SimOptions",
    "Stream",
    "__version__",
    "bundle_names",
    "compile",
    "find_bundle",
    "frames",
    "open",
    "quantize",
]
