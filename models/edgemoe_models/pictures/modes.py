"""Pictures of every mode as red, green and blue of 8 bits; each rule is stated by the note that it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.pictures.fitting import load_pillow

__all__ = ["depth_notes", "to_rgb"]

Array = npt.NDArray[Any]
Say = Callable[[str], None]

_GREY = "grey pictures get equal red, green and blue"
_PALETTE = "colours of a palette are replaced by their red, green and blue"
_TRANSPARENT = "what is transparent lies on white"
_CMYK = "CMYK is converted without regard to its colour profile"
_YCBCR = "YCbCr is converted to RGB"
_LAB = "CIE L*a*b* (D50) is converted to sRGB"
_GREY_16 = "grey of 16 bits is scaled to 8: its largest possible value is white"
_COLOUR_16 = "colours of 16 bits are scaled to 8"
_WIDE = "numbers of 32 bits are scaled to 8: white is 1, 255 or 65535, the first that none exceeds, else the largest"

_OPAQUE = {"1": _GREY, "L": _GREY, "P": _PALETTE, "CMYK": _CMYK, "YCbCr": _YCBCR}
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_BAND = 1 << 20  # pixels that are converted at a time, which bounds the memory beyond the picture and its result


def to_rgb(image: Any, say: Say) -> Any:
    """A loaded Pillow image as one of mode RGB.

    Args:
        image: of any mode that the formats of this room have
        say: told each rule that was used

    Raises:
        ValueError: a mode without a rule
    """
    mode = image.mode
    if mode in _ALPHA or (mode in ("1", "L", "P", "RGB") and _is_transparent(image)):
        if mode in ("LA", "La") or mode in ("1", "L"):
            say(_GREY)
        elif mode in ("P", "PA"):
            say(_PALETTE)
        say(_TRANSPARENT)
        return _by_bands(image, _on_white)
    if mode == "RGB":
        return image
    if mode in _OPAQUE:
        say(_OPAQUE[mode])
        return _by_bands(image, lambda band: band.convert("RGB"))
    if mode == "LAB":
        say(_LAB)
        return _by_bands(image, lambda band: _from_array(_lab_to_rgb(np.asarray(band))))
    scaled = _scaled(image, say)
    return _by_bands(image, lambda band: _from_array(np.repeat(scaled(np.asarray(band))[..., None], 3, -1)))


def depth_notes(image: Any) -> list[str]:
    """Of a picture that is not loaded yet: Pillow takes the upper bytes of 16-bit colours, and then does not tell."""
    raw = [tile[3] if isinstance(tile[3], str) else tile[3][0] for tile in image.tile if tile[3]]
    is_deep = image.mode in ("RGB", "RGBA") and any(";16" in str(mode) for mode in raw)
    return [_COLOUR_16] if is_deep else []


def _is_transparent(image: Any) -> bool:
    palette = image.palette if image.mode == "P" else None
    return "transparency" in image.info or (palette is not None and palette.mode.endswith("A"))


def _by_bands(image: Any, convert: Callable[[Any], Any]) -> Any:
    result = load_pillow("reading pictures").new("RGB", image.size)
    for top, band in _bands(image):
        result.paste(convert(band), (0, top))
    return result


def _bands(image: Any) -> Iterator[tuple[int, Any]]:
    """The image in horizontal pieces, each with its first row."""
    rows = max(_BAND // image.width, 1)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _on_white(band: Any) -> Any:
    white = load_pillow("reading pictures").new("RGBA", band.size, "white")
    white.alpha_composite(band.convert("RGBA"))
    return white.convert("RGB")


def _from_array(pixels: Array) -> Any:
    return load_pillow("reading pictures").fromarray(pixels)


def _scaled(image: Any, say: Say) -> Callable[[Array], Array]:
    """How the numbers of a picture of one wide channel become bytes."""
    tags = getattr(image, "tag_v2", {})
    bits = int((tags.get(258) or (16,))[0])  # BitsPerSample
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        say(_GREY_16)
        low, high = 0.0, float(2 ** min(bits, 16) - 1)
    elif image.mode in ("I", "F"):
        say(_WIDE)
        low, high = _range(image)
    else:
        raise ValueError(f"no rule for its mode {image.mode}")
    is_inverted = tags.get(262) == 0 and image.mode != "I"  # WhiteIsZero, which Pillow obeys below 16 bits
    unsigned, transparent = _is_unsigned(image), image.info.get("transparency")  # the latter of a PNG, one number
    if transparent is not None:
        say(_TRANSPARENT)

    def scale(values: Array) -> Array:
        values = values.view(np.uint32) if unsigned else values
        with np.errstate(all="ignore"):  # a file may hold anything that has 32 bits
            share = np.nan_to_num((values.astype(np.float64) - low) / ((high - low) or 1.0), nan=0.0).clip(0, 1)
        scaled = np.rint(255 * (1 - share if is_inverted else share)).astype(np.uint8)
        return np.asarray(scaled if transparent is None else np.where(values == transparent, np.uint8(255), scaled))

    return scale


def _is_unsigned(image: Any) -> bool:
    """Whether Pillow shows unsigned integers of 32 bits as signed ones."""
    tags = getattr(image, "tag_v2", {})
    return bool(image.mode == "I" and tags.get(258) == (32,) and tags.get(339, (1,)) == (1,))


def _range(image: Any) -> tuple[float, float]:
    """What becomes black and white; numbers that are not finite do not count.

    Black is 0, and white the first of 1 (of fractions only), 255 and 65535 that none exceeds. Where there is none, or
    some are negative, they are the smallest and the largest number.
    """
    unsigned = _is_unsigned(image)
    low, high = np.inf, -np.inf
    for _, band in _bands(image):
        values = np.asarray(band).view(np.uint32) if unsigned else np.asarray(band)
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        return 0.0, 1.0
    whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    white = next((white for white in whites if high <= white), None)
    return (0.0, white) if low >= 0 and white is not None else (low, high)


#: CIE XYZ at D50, the white of L*a*b* in files, to linear sRGB: Bradford's adaptation to D65, then IEC 61966-2-1.
_XYZ_TO_RGB = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
)
_WHITE_D50 = np.array([0.96422, 1.0, 0.82521])


def _lab_to_rgb(lab: Array) -> Array:
    """Bytes of L* (0..255 for 0..100) and of a* and b* (two's complement) [h, w, 3] as sRGB."""
    y = (lab[..., 0] * (100 / 255) + 16) / 116
    red, blue = (lab[..., channel].astype(np.int8).astype(np.float64) for channel in (1, 2))
    f = np.stack([y + red / 500, y, y - blue / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * _WHITE_D50
    linear = (xyz @ _XYZ_TO_RGB.T).clip(0, 1)
    rgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * rgb).astype(np.uint8))
