"""``edgemoe.open``: finds the device. All but the reference are imported only when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from edgemoe.bundle import Bundle
from edgemoe.errors import DeviceError, DeviceInUse
from edgemoe.extras import PYNQ_PINS, install_command
from edgemoe.packaged_bundles import find_bundle
from edgemoe.runtime.accelerator import Accelerator
from edgemoe.runtime.driver import Driver
from edgemoe.runtime.options import (
    DriverOptions,
    PynqOptions,
    ReferenceOptions,
    RemoteOptions,
    SerialOptions,
    SimOptions,
    check_options,
)
from edgemoe.runtime.platforms.base import Platform
from edgemoe.runtime.reference import ReferenceExecutor
from edgemoe_models.pictures import Notes, check_resize

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["DEVICES", "open"]

#: Devices with a platform: its module, whose ``open_platform(bundle, *, ...)`` makes it, and what it needs.
_PLATFORMS: dict[str, tuple[str, Callable[[], str]]] = {
    "sim": ("edgemoe.runtime.platforms.sim", lambda: f"the simulator; install it with: {install_command('sim')}"),
    "pynq": ("edgemoe.runtime.platforms.pynq", lambda: "a PYNQ board; install there: pip install pynq"),
    "serial": ("edgemoe.runtime.platforms.serial", lambda: "a board at a serial port"),
}
_OPTIONS: dict[str, type] = {
    "reference": ReferenceOptions,
    "sim": SimOptions,
    "pynq": PynqOptions,
    "serial": SerialOptions,
    "remote": RemoteOptions,
}
DEVICES = tuple(_OPTIONS)


@overload
def open(device: Literal["sim"], bundle: Bundle | Path | str, **options: Unpack[SimOptions]) -> Accelerator: ...
@overload
def open(device: Literal["pynq"], bundle: Bundle | Path | str, **options: Unpack[PynqOptions]) -> Accelerator: ...
@overload
def open(device: Literal["serial"], bundle: Bundle | Path | str, **options: Unpack[SerialOptions]) -> Accelerator: ...
@overload
def open(
    device: Literal["remote"], bundle: Bundle | Path | str | None = None, **options: Unpack[RemoteOptions]
) -> Accelerator: ...
@overload
def open(device: Platform, bundle: Bundle | Path | str, **options: Unpack[DriverOptions]) -> Accelerator: ...
@overload
def open(device: str, bundle: Bundle | Path | str, **options: Unpack[ReferenceOptions]) -> Accelerator: ...


def open(device: str | Platform, bundle: Bundle | Path | str | None = None, **options: Any) -> Accelerator:
    """Open a device and load a bundle into it.

    Args:
        device: ``reference``, ``sim``, ``pynq``, ``serial``, ``remote``, or a Platform of one's own, which the
            accelerator then closes
        bundle: an ``.emoe`` file, the name of a packaged bundle, or what ``Bundle.load`` made of it; ``remote`` alone
            may be opened without one, and then fetches the server's
        options: of the device: see ``ReferenceOptions``, ``SimOptions``,
            ``PynqOptions``, ``SerialOptions``, ``RemoteOptions`` and, for a Platform,
            ``DriverOptions``

    Returns:
        The opened accelerator, a context manager: the end of its ``with`` frees everything

    Raises:
        BundleError: the file is no bundle, or for another device
        DeviceInUse: another driver has the accelerator, here or in another process
        DeviceError: something that the device needs is missing, or it does not work
        ValueError: there is no such device, or an option is wrong
    """
    name = _name(device)
    check_options(name, options, _OPTIONS.get(name, DriverOptions) if isinstance(device, str) else DriverOptions)
    resize, notes = options.pop("resize", None), options.pop("notes", None)
    check_resize(resize)
    told = Notes() if notes is None else Notes(notes)
    if bundle is None and device != "remote":
        raise ValueError(f"device {name} needs a bundle: an .emoe file, or the name of a packaged one")
    loaded = bundle if bundle is None or isinstance(bundle, Bundle) else Bundle.load(find_bundle(bundle))
    if loaded is None or device == "remote":
        from edgemoe.runtime.remote import open_executor

        return Accelerator(open_executor(loaded, **options), resize, told)
    if device == "reference":
        return Accelerator(ReferenceExecutor(loaded, **options), resize, told)
    platform_options = {key: options.pop(key) for key in list(options) if key not in DriverOptions.__annotations__}
    platform = _open_platform(device, loaded, platform_options) if isinstance(device, str) else device
    try:
        return Accelerator(Driver(platform, loaded, **options), resize, told)
    except BaseException as error:
        if isinstance(device, str) or not isinstance(error, DeviceInUse):  # else it is another driver's
            platform.close()
        raise


def _name(device: str | Platform) -> str:
    """What messages call it; ValueError unless it is a device."""
    if isinstance(device, str):
        if device not in DEVICES:
            raise ValueError(f"device must be one of {', '.join(DEVICES)}, not {device!r}")
        return device
    if missing := [member for member in ("allocate", "lock", "name") if not hasattr(device, member)]:
        raise ValueError(
            f"device must be a name ({', '.join(DEVICES)}) or a Platform (edgemoe.Platform), not {device!r}, which has "
            f"no {missing[0]}"
        )
    return device.name


def _open_platform(device: str, bundle: Bundle, options: Mapping[str, Any]) -> Platform:
    module, needs = _PLATFORMS[device]
    try:
        opener = importlib.import_module(module).open_platform
    except ImportError as error:
        pins = f"; where pynq is installed: {PYNQ_PINS}" if device == "pynq" and error.name != "pynq" else ""
        raise DeviceError(f"device {device} needs {needs()} ({error}){pins}") from None
    platform: Platform = opener(bundle, **options)
    return platform
