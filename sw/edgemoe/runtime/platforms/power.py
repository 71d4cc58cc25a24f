"""Power as a board's own sensors measure it; nothing is estimated."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from edgemoe.errors import DeviceError

__all__ = ["PowerMeter", "Rails", "hwmon_rails", "pynq_rails"]

#: By name of a supply rail, a function that reads its watts.
Rails = dict[str, Callable[[], float]]

_HWMON = Path("/sys/class/hwmon")  # the kernel's sensors: power<n>_input has microwatts (its hwmon/sysfs-interface)
_NO_ANSWER = (DeviceError, OSError, ValueError)  # of a sensor, for now: that sample does not count
_INTERVAL = 0.1  # seconds between two samples; sensors on I2C average over some milliseconds


def pynq_rails(get_rails: Callable[[], Mapping[str, Any]]) -> Rails:
    """Rails of ``pynq.get_rails`` that measure power, or voltage and current."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that libsensors is not installed
        found = get_rails()
    rails: Rails = {}
    for name, rail in found.items():
        if rail.power is not None:
            rails[name] = partial(_value, rail.power)
        elif rail.voltage is not None and rail.current is not None:
            rails[name] = partial(_product, rail.voltage, rail.current)
    return rails


def _value(sensor: Any) -> float:
    return float(sensor.value)


def _product(voltage: Any, current: Any) -> float:
    return _value(voltage) * _value(current)


def hwmon_rails(root: Path = _HWMON) -> Rails:
    """Rails that the kernel measures, by label, or else by chip and number; where several chips would have the same
    name (boards have regulators of one type), with the sensor's folder too."""
    names: dict[Path, str] = {}
    for path in sorted(root.glob("hwmon*/power*_input")):
        label = path.with_name(path.name.replace("_input", "_label"))
        chip, number = path.with_name("name"), path.name.removesuffix("_input")
        names[path] = label.read_text().strip() if label.exists() else f"{chip.read_text().strip()} {number}"
    count = Counter(names.values())
    return {
        name if count[name] == 1 else f"{name} ({path.parent.name} {path.name.removesuffix('_input')})": partial(
            _watts, path
        )
        for path, name in names.items()
    }


def _watts(path: Path) -> float:
    return int(path.read_text()) * 1e-6


class PowerMeter:
    """Mean power from its creation until ``close``, sampled in a thread; no thread where nothing measures.

    Args:
        read: watts by rail, empty where nothing measures
    """

    def __init__(self, read: Callable[[], Mapping[str, float]]) -> None:
        self._read, self._sum, self._count = read, 0.0, 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if self._is_measured():
            self._thread = threading.Thread(target=self._sample, name="edgemoe power", daemon=True)
            self._thread.start()

    def _is_measured(self) -> bool:
        try:
            return bool(self._read())
        except _NO_ANSWER:
            return True  # perhaps the next time

    @property
    def watts(self) -> float | None:
        """Mean of all rails' sum; None: not measured."""
        return self._sum / self._count if self._count else None

    def close(self) -> None:
        """End the thread; a second call does nothing."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _sample(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(*_NO_ANSWER):
                self._sum += sum(self._read().values())
                self._count += 1
            self._stop.wait(_INTERVAL)
