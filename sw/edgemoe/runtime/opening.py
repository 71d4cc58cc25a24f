"""``edgemoe.open``: finds the device. Simulator and board are imported only when they are asked for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgemoe.bundle import Bundle
from edgemoe.errors import DeviceError
from edgemoe.extras import install_command
from edgemoe.runtime.accelerator import Accelerator
from edgemoe.runtime.driver import Driver
from edgemoe.runtime.platforms.base import Platform
from edgemoe.runtime.reference import ReferenceExecutor
from edgemoe_models.pictures import Notes, Resize, check_resize

__all__ = ["DEVICES", "open"]

#: Devices with a platform: its module, whose ``open_platform(bundle, *, ...)`` makes it, and what it needs.
_PLATFORMS: dict[str, tuple[str, Callable[[], str]]] = {
    "sim": ("edgemoe.runtime.platforms.sim", lambda: f"the simulator; install it with: {install_command('sim')}"),
    "pynq": ("edgemoe.runtime.platforms.pynq", lambda: "a PYNQ board; install there: pip install pynq"),
    "serial": ("edgemoe.runtime.platforms.serial", lambda: "a board at a serial port"),
}
#: Without these the package is there and cannot be imported: newer ones lack what it uses.
PYNQ_PINS = "pip install 'pycparser<3' 'setuptools<82'"
DEVICES = ("reference", *_PLATFORMS)


def open(
    device: str | Platform,
    bundle: Bundle | Path | str,
    *,
    resize: Resize | None = None,
    notes: Callable[[str], None] | None = None,
    **options: Any,
) -> Accelerator:
    """Open a device and load a bundle into it.

    Args:
        device: ``reference``, ``sim``, ``pynq``, ``serial``, or a Platform of one's own, which the accelerator then
            closes
        bundle: an ``.emoe`` file, or what ``Bundle.load`` made of it
        resize: what to do with images of other sizes: ``crop`` (scale the largest window in the middle that has the
            model's aspect ratio) or ``squeeze`` (scale height and width each by itself); None: refuse them
        notes: told once for each kind of thing that is done to files of pictures, such as a conversion from grey;
            default: Python warnings (``edgemoe_models.pictures.PictureWarning``)
        options: ``depth`` (slots for frames, 2); of the driver ``timeout``, ``watchdog``, ``retries``, ``interrupt``
            (see ``Driver``); the others are the platform's: of the simulation ``config``, ``dram_bytes``, ``stall``,
            ``seed``, ``quiet`` (see ``SimPlatform``), of a PYNQ board ``bitstream``, ``download``, ``rails`` (see
            ``pynq_platform``), of one at a serial line ``port``, ``baud``, ``clock_mhz`` (see ``serial_platform``)

    Raises:
        BundleError: the file is no bundle, or for another device
        DeviceError: something that the device needs is missing, or it does not work
        ValueError: there is no such device, or an option is wrong
    """
    check_resize(resize)
    loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    if isinstance(device, str) and device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, not {device!r}")
    if not isinstance(device, str) and not hasattr(device, "allocate"):
        raise ValueError(f"device must be a name ({', '.join(DEVICES)}) or a Platform, not {device!r}")
    told = Notes() if notes is None else Notes(notes)
    if device == "reference":
        _check_options(device, options, _options_of(ReferenceExecutor))
        return Accelerator(ReferenceExecutor(loaded, **options), resize, told)
    driver_options = {name: options.pop(name) for name in _options_of(Driver) if name in options}
    if isinstance(device, str):
        platform = _open_platform(device, loaded, options)
    else:
        platform = device
        _check_options(platform.name, options, _options_of(Driver))
    try:
        return Accelerator(Driver(platform, loaded, **driver_options), resize, told)
    except BaseException:
        platform.close()
        raise


def _open_platform(device: str, bundle: Bundle, options: dict[str, Any]) -> Platform:
    module, needs = _PLATFORMS[device]
    try:
        opener = importlib.import_module(module).open_platform
    except ImportError as error:
        pins = f"; where pynq is installed: {PYNQ_PINS}" if device == "pynq" and error.name != "pynq" else ""
        raise DeviceError(f"device {device} needs {needs()} ({error}){pins}") from None
    _check_options(device, options, _options_of(Driver) + _options_of(opener))
    platform: Platform = opener(bundle, **options)
    return platform


def _options_of(function: Callable[..., Any]) -> list[str]:
    """Names of what follows the bundle."""
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]


def _check_options(device: str, options: dict[str, Any], known: list[str]) -> None:
    if unknown := sorted(set(options) - set(known)):
        has = ", ".join(["resize", "notes", *known])
        raise ValueError(f"device {device} has no option {', '.join(unknown)}; it has {has}")
