"""What PYNQ itself says of a board: device, clocks and rails, as JSON. Asking may end a process: it has one of its own.

Reads only; nothing is loaded, and no register of an overlay is touched.
"""

from __future__ import annotations

import functools
import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

__all__ = ["main", "probe"]

_CLOCKS = ("fclk0_mhz", "fclk1_mhz", "fclk2_mhz", "fclk3_mhz", "cpu_mhz")


def probe() -> dict[str, Any]:
    """``version``, ``device``, ``clocks`` and ``rails``; where PYNQ raises, ``error`` has what, and the rest is left
    out."""
    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import pynq

            found["version"] = pynq.__version__
            device = pynq.Device.active_device
            found["device"] = {"class": type(device).__name__, "name": str(device.name)}
            found["overlay"] = _try(lambda: device.bitfile_name or None)
            found["clocks"] = {name: _try(functools.partial(getattr, pynq.Clocks, name)) for name in _CLOCKS}
            found["rails"] = _try(lambda: sorted(pynq.get_rails()))
        except Exception as error:  # PYNQ raises many kinds, from its imports to the kernel's
            found["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return found


def _try(read: Callable[[], Any]) -> Any:
    """What ``read`` returns, or its error as a text."""
    try:
        return read()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main() -> int:
    """Print ``probe`` as the last line; PYNQ may print more before it."""
    sys.stdout.write(f"\n{json.dumps(probe())}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
