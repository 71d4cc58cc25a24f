"""Where a bundle can run: ``reference`` or ``sim``. Import the device's own module: each needs others."""

from edgemoe.devices.base import Device, DeviceError, Result

__all__ = ["Device", "DeviceError", "Result"]
