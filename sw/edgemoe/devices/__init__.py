"""Where a bundle can run: ``reference``, ``sim``, ``pynq``. Import the device's own module; each needs other packages."""

from edgemoe.devices.base import Device, DeviceError, Result

__all__ = ["Device", "DeviceError", "Result"]
