"""Errors that more than one part of the package raises."""

__all__ = ["DeviceError"]


class DeviceError(RuntimeError):
    """A device cannot run, or failed while it ran."""
