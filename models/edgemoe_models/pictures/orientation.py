"""How a picture is to be turned: the orientation of its EXIF data, read from the bytes.

Pillow's own reader takes all of the EXIF data apart and fails where any part is damaged; this looks at one entry.
"""

from __future__ import annotations

import re
import struct
from typing import Any

__all__ = ["DamagedExif", "checked", "orientation_of", "turned", "turned_size"]

_TAG = 0x0112
_SHORT, _LONG = 3, 4
_XMP = re.compile(r"""tiff:Orientation(?:\s*=\s*["']|>)\s*(\d{1,3})\b""")
#: Names of Pillow's transpositions that set each orientation upright.
_METHODS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


class DamagedExif(ValueError):
    """The EXIF data have no readable orientation."""


def orientation_of(info: dict[Any, Any]) -> int:
    """1 to 8, from what Pillow keeps of a file; 1, which is upright, where nothing is said.

    Raises:
        DamagedExif: something is said that cannot be read or is no orientation
    """
    data = info.get("exif")
    if not data and isinstance(raw := info.get("Raw profile type exif"), str):  # as ImageMagick puts it into a PNG
        try:
            data = bytes.fromhex("".join(raw.split("\n")[3:]))
        except ValueError:
            raise DamagedExif("no hexadecimal digits") from None
    found = _in_exif(data) if isinstance(data, bytes) and data else None
    if found is None:
        found = _in_xmp(info.get("xmp") or info.get("XML:com.adobe.xmp"))
    return checked(1 if found is None else found)


def checked(value: object) -> int:
    """A number that was found, as an orientation; 0, which cameras write for unknown, is upright. Else DamagedExif."""
    if not isinstance(value, int) or not 0 <= value <= 8:
        raise DamagedExif(f"orientation {value!r}")
    return value or 1


def _in_exif(data: bytes) -> int | None:
    """The number in the first directory of EXIF data, None where there is no such entry."""
    while data.startswith(b"Exif\0\0"):
        data = data[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        raise DamagedExif("no header")
    try:
        (offset,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, offset)
        for number in range(count):
            tag, kind, values = struct.unpack_from(order + "HHI", data, place := offset + 2 + 12 * number)
            if tag == _TAG:
                if values != 1 or kind not in (_SHORT, _LONG):
                    raise DamagedExif(f"{values} values of type {kind}")
                return int(struct.unpack_from(order + ("H" if kind == _SHORT else "I"), data, place + 8)[0])
    except struct.error:
        raise DamagedExif("truncated") from None
    return None


def _in_xmp(data: object) -> int | None:
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    found = _XMP.search(text) if isinstance(text, str) else None
    return None if found is None else int(found[1])


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height when it is upright."""
    return size[::-1] if orientation >= 5 else size


def turned(image: Any, orientation: int) -> Any:
    """A loaded Pillow image of an orientation above 1, upright."""
    from PIL import Image

    return image.transpose(Image.Transpose[_METHODS[orientation]])
