"""Options of ``edgemoe.open``, device by device: for editors and type checkers, and checked when a device is opened."""

from __future__ import annotations

import numbers
import types
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypedDict, Union, get_args, get_origin, get_type_hints

import numpy as np

from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.pictures import Resize

__all__ = [
    "DriverOptions",
    "PynqOptions",
    "ReferenceOptions",
    "RemoteOptions",
    "SerialOptions",
    "SimOptions",
    "check_options",
]


class ReferenceOptions(TypedDict, total=False):
    """Options of every device.

    Attributes:
        resize: what to do with images of other sizes: ``crop`` (scale the largest window in the middle that has the
            model's aspect ratio) or ``squeeze`` (scale height and width each by itself); None, the default: refuse them
        notes: told once for each kind of thing that is done to files of pictures, such as a conversion from grey;
            default: Python warnings (``edgemoe_models.pictures.PictureWarning``)
        depth: slots for frames; 2, the default, let the host work while the accelerator does
    """

    resize: Resize | None
    notes: Callable[[str], None] | None
    depth: int


class DriverOptions(ReferenceOptions, total=False):
    """Options of every accelerator.

    Attributes:
        timeout: seconds on the device's clock after which a program is given up; default: 1, and 20 times its estimate
        watchdog: cycles without progress after which the accelerator stops a program itself; 0: never; default: 1e6
        retries: times that a program is started again after a bus error, a watchdog's stop or a timeout; default: 0
        interrupt: wait for the interrupt instead of polling; default: False
    """

    timeout: float | None
    watchdog: int
    retries: int
    interrupt: bool


class SimOptions(DriverOptions, total=False):
    """Options of the simulation.

    Attributes:
        config: the accelerator that is simulated; default: the bundle's
        dram_bytes: size of its memory; default: enough for the bundle
        dram_model: name of how its DRAM behaves: plain, axi3, refresh or worst; default: plain
        stall: probability that a channel of the bus pauses in a cycle; default: 0
        seed: of these pauses; default: 0
        trace: build it with waveforms; default: False
        quiet: no message when it has to be built; default: False
    """

    config: AcceleratorConfig | None
    dram_bytes: int | None
    dram_model: str
    stall: float
    seed: int
    trace: bool
    quiet: bool


class PynqOptions(DriverOptions, total=False):
    """Options of a PYNQ board.

    Attributes:
        bitstream: a ``.bit`` file, or a folder with overlays; default: where ``make flash`` copies them
        download: load the overlay; default: True. False only if it is loaded already
        rails: names of the supply rails whose power counts; default: all that are measured
    """

    bitstream: Path | str | None
    download: bool
    rails: Collection[str] | None


class SerialOptions(DriverOptions, total=False):
    """Options of a board at a serial port; the defaults are the ULX3S's.

    Attributes:
        port: its name, for example ``/dev/ttyUSB0``; default: the only one that this computer has
        baud: bits a second; default: 1e6
        clock_mhz: of the accelerator; default: 25
    """

    port: str | None
    baud: int
    clock_mhz: float


class RemoteOptions(ReferenceOptions, total=False):
    """Options of a bundle that ``edgemoe serve`` runs elsewhere.

    Attributes:
        url: the server's, for example ``http://board:8000``; default: the environment variable EDGEMOE_URL
        token: the server's; default: the environment variable EDGEMOE_TOKEN
        model: where no bundle is given and the server has several: its name, or ``name/version``
        request_timeout: seconds that an answer may take, with the wait for a busy server; default: 60
    """

    url: str | None
    token: str | None
    model: str | None
    request_timeout: float


#: Python's types of numbers are not NumPy's; the abstract ones have both.
_ABSTRACT: dict[Any, tuple[type, ...]] = {
    int: (numbers.Integral,),
    float: (numbers.Real,),
    bool: (bool, np.bool_),
    str: (str,),
    Path: (Path,),
    type(None): (type(None),),
}


def check_options(device: str, options: Mapping[str, Any], known: type) -> None:
    """Refuse options that a device does not have, and numbers and names that are none.

    Args:
        device: its name, for the message
        options: to check
        known: the device's class of options

    Raises:
        ValueError: an option is unknown, or of a wrong type; the message has those that there are
    """
    hints = get_type_hints(known)
    if unknown := [name for name in options if name not in hints]:
        raise ValueError(f"device {device} has no option {', '.join(unknown)}; it has {', '.join(hints)}")
    for name, value in options.items():
        kinds = get_args(hints[name]) if get_origin(hints[name]) in (Union, types.UnionType) else (hints[name],)
        if all(kind in _ABSTRACT for kind in kinds):
            allowed = tuple(kind for hint in kinds for kind in _ABSTRACT[hint])
            if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in kinds):
                wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
                raise ValueError(f"option {name} must be {wanted}, not {value!r}")
