"""Errors that more than one part of the package raises."""

__all__ = ["DeviceError", "MissingExtraError", "SynthesisError"]


class DeviceError(RuntimeError):
    """A device cannot run, or failed while it ran."""


class MissingExtraError(RuntimeError):
    """Something needs an optional part of the package that is not installed; the message says how to install it."""


class SynthesisError(RuntimeError):
    """A synthesis tool is missing, failed, or gave something that cannot be counted or that does not fit."""
