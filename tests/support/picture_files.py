"""Files of pictures made byte by byte where Pillow writes none, and what is said of them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from edgemoe_models.pictures import Notes, read_picture

ORIENTATION, DESCRIPTION = 0x112, 0x10E  # tags of EXIF and TIFF


def gradient():
    """20 x 12 pixels, all different: uint8 [12, 20, 3]."""
    y, x = np.mgrid[:12, :20]
    return np.stack([12 * x, 20 * y, 5 * x + 9 * y], -1).astype(np.uint8)


def read(path, *arguments, **options):
    """The pixels, and what was said of them without the file's name."""
    said = []
    pixels = read_picture(path, *arguments, notes=Notes(said.append), **options)
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
    assert all(text.endswith(f" ({path}, and others like it)") for text in said)
    return pixels, [text.removesuffix(f" ({path}, and others like it)") for text in said]


def exif_bytes(kind=3, count=1, value=6, order="<", name="orientation"):
    """EXIF data with one entry of any form."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]
    code = {1: "B3x", 2: "4s", 3: "H2x", 4: "I", 5: "I"}[kind]
    tag = ORIENTATION if name == "orientation" else DESCRIPTION
    return b"Exif\0\0" + head + struct.pack(f"{order}IHHHI{code}I", 8, 1, tag, kind, count, value, 0)


def tiff_bytes(array, tags=None, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "TIFF", tiffinfo=tags or {}, **options)
    return file.getvalue()


def big_endian_tiff(values):
    """A TIFF of grey of 16 bits, which Pillow writes in the machine's order only."""
    height, width = values.shape
    entries = [(256, width), (257, height), (258, 16), (259, 1), (262, 1), (273, 200), (277, 1), (278, height)]
    entries.append((279, 2 * values.size))
    body = struct.pack(">H", len(entries)) + b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in entries)
    return (b"MM\0*" + struct.pack(">I", 8) + body).ljust(200, b"\0") + values.astype(">u2").tobytes()


def png_bytes(width, height, bits, colour, rows, *more):
    """A PNG of rows that begin with their filter, 0; ``more`` are chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", header), *more, png_chunk(b"IDAT", zlib.compress(rows, 9)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
