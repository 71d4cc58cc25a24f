"""What a picture may cost: sizes are looked at before anything is decoded, and whatever is wrong is one line."""

import io
import logging
import os
import random
import resource
import struct
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from edgemoe_models.pictures import FORMATS, MAX_PIXELS, Notes, PictureError, kind_of, read_picture, read_values
from support.picture_files import png_bytes

HUGE = 12_000  # squared it is more than twice the limit


def saved(form, **options):
    file = io.BytesIO()
    Image.fromarray(np.arange(12 * 20 * 3, dtype=np.uint8).reshape(12, 20, 3)).save(file, form, **options)
    return bytearray(file.getvalue())


def jpeg_of(width, height):
    data = saved("JPEG")
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return data


def bmp_of(width, height):
    data = saved("BMP")
    data[18:26] = struct.pack("<ii", width, height)
    return data


def gif_of(width, height):
    """The canvas, and the frame on it."""
    data = saved("GIF")
    data[6:10] = struct.pack("<HH", width, height)
    at = data.index(b"\x2c\0\0\0\0")
    data[at + 5 : at + 9] = struct.pack("<HH", width, height)
    return data


def webp_of(width, height):
    """A lossless one of one colour: 12,000 x 12,000 pixels take some hundred bytes."""
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "WEBP", lossless=True, method=0, quality=0)
    return file.getvalue()


def tiff_of(width, height, tags=(), data=b"\0" * 64, bits=8):
    """One strip of grey, or what the tags say."""
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 200, 277: 1, 278: height, 279: len(data)}
    entries |= dict(tags)
    body = struct.pack("<H", len(entries))
    body += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()) if value != "-")
    return (b"II*\0" + struct.pack("<I", 8) + body).ljust(200, b"\0") + data


HEADERS = {
    "JPEG": jpeg_of(HUGE, HUGE),
    "PNG": png_bytes(HUGE, HUGE, 8, 2, b""),
    "BMP": bmp_of(HUGE, HUGE),
    "BMP from the top": bmp_of(HUGE, -HUGE),
    "GIF": gif_of(HUGE, HUGE),
    "PPM": b"P6 12000 12000 255\n",
    "PPM as text": b"P3 12000 12000 255\n1 2 3",
    "PBM": b"P4 12000 12000\n",
    "TIFF": tiff_of(HUGE, HUGE),
    "TIFF, one pixel wide": tiff_of(1, HUGE * HUGE),
    "TIFF of tiles": tiff_of(16, 16, {322: HUGE, 323: HUGE, 324: 200, 325: 64, 259: 5}),
    "TIFF of 16 bits": tiff_of(HUGE, HUGE, bits=16),
    "PNG of 2 gigapixels": png_bytes(2**31 - 1, 1, 8, 2, b""),
    "PNG beyond all": png_bytes(2**31 - 1, 2**31 - 1, 8, 2, b""),
    "BMP beyond all": bmp_of(2**31 - 1, 2**31 - 1),
    "PPM beyond all": b"P6 9999999999 9999999999 255\n",
    "TIFF beyond all": tiff_of(2**31, 2**31),
}
WITHIN = """
import resource, sys
import PIL.Image
from edgemoe_models.pictures import Notes, PictureError, read_picture
PIL.Image.init()
begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resize = None if sys.argv[1] == "None" else sys.argv[1]
for path in sys.argv[2:]:
    try:
        print(read_picture(path, (12, 20), resize, notes=Notes(len)).shape)
    except PictureError as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begin)
"""


def cost(*paths, resize="squeeze", memory=None):
    """What is said of them by a process of its own, and by how many MiB it has grown at most. Warnings end it.

    Args:
        memory: bytes of addresses that the process may have
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHIN, str(resize), *map(str, paths)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=None if memory is None else lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    *lines, grown = done.stdout.splitlines()
    return lines, int(grown) / 1024


def test_headers_of_too_many_pixels(tmp_path):
    """None takes memory, warns, or is told otherwise than by its name and what is wrong."""
    paths = []
    for name, data in {**HEADERS, "WebP": webp_of(HUGE, HUGE)}.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    lines, grown = cost(*paths)
    assert len(lines) == len(paths) and grown < 24
    for path, line in zip(paths, lines, strict=True):
        assert line.startswith(f"{path}: ")
        assert "pixels" in line or "beyond" in path.name, line


@pytest.fixture(scope="module")
def largest(tmp_path_factory):
    """A PNG of some kilobytes with as many pixels as are read."""
    side = 8192
    assert side * side == MAX_PIXELS
    path = tmp_path_factory.mktemp("largest") / "grey.png"
    path.write_bytes(png_bytes(side, side, 8, 0, bytes(side * side + side)))
    return path


def test_the_largest_pictures_have_a_bound(largest, tmp_path):
    """That is what few bytes may cost at most."""
    (tmp_path / "webp").write_bytes(webp_of(4096, 4096))
    for path in (largest, tmp_path / "webp"):
        said, grown = cost(path)
        assert said == ["(12, 20, 3)"] and grown < 450, (path, grown)
    (tmp_path / "webp").write_bytes(webp_of(4097, 4096))
    said, _ = cost(tmp_path / "webp")
    assert "it has 4097x4096 pixels, each of which counts 4 times, and up to 67,108,864 are read" in said[0]


def test_another_size_is_refused_before_it_is_decoded(largest):
    said, grown = cost(largest, resize=None)
    assert "it is 8192x8192 pixels, but the model takes 20x12" in said[0] and grown < 24


def test_too_little_memory_is_said(largest):
    said, _ = cost(largest, memory=400 * 2**20)
    assert said == [f"{largest}: not a readable image (there is not enough memory)"]


def test_the_limit_is_an_option(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_bytes(saved("PNG"))
    assert read_picture(path, max_pixels=240).shape == (12, 20, 3)
    for options, value in (({"max_pixels": 239}, ""), ({}, "239")):
        monkeypatch.setenv("EDGEMOE_MAX_PIXELS", value)
        for read in (read_picture, read_values):
            with pytest.raises(
                PictureError, match="x.png: it has 20x12 pixels, and up to 239 are read .EDGEMOE_MAX_PIXELS"
            ):
                read(path, **options)
    monkeypatch.setenv("EDGEMOE_MAX_PIXELS", "240")
    assert read_picture(path).shape == (12, 20, 3)
    for wrong in ("0", "-1", "many", "1e9", "9" * 30, "²"):
        monkeypatch.setenv("EDGEMOE_MAX_PIXELS", wrong)
        with pytest.raises(ValueError, match="EDGEMOE_MAX_PIXELS must be a number of pixels, at least 1, not"):
            read_picture(path)


def test_a_larger_limit_than_pillows(tmp_path, monkeypatch):
    """Its own limit stays what it was, and its warnings too."""
    path = tmp_path / "x.png"
    path.write_bytes(png_bytes(60, 50, 8, 2, bytes(50 * 181)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filters, level = list(warnings.filters), logging.getLogger("PIL").level
        assert read_picture(path).shape == (50, 60, 3)
        assert Image.MAX_IMAGE_PIXELS == 100 and warnings.filters == filters
        assert logging.getLogger("PIL").level == level


def test_a_long_file_of_few_pixels(tmp_path):
    path = tmp_path / "x.webp"
    path.write_bytes(saved("WEBP"))
    os.truncate(path, 10**7)
    with pytest.raises(
        PictureError, match="x.webp: its file has 10,000,000 bytes, more than its pixels need, and up to 1,000 are read"
    ):
        read_picture(path, max_pixels=1000)


# What is no picture


def test_one_line_names_the_file(tmp_path):
    good = saved("PNG")
    for name, data, reason in (
        ("empty.png", b"", "not a readable image .it is none of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP"),
        ("text.jpg", b"hello", "not a readable image .it is none of"),
        ("eps.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is none of"),
        ("pdf.png", b"%PDF-1.4\n", "it is none of"),
        ("svg.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it is none of"),
        ("cut.png", good[:60], "not a readable image"),
        ("no pixels.ppm", b"P6 0 5 255\n", "it has 0x5 pixels|not a readable image"),
        ("float.tif", tiff_of(2, 2, {277: 3, 258: 32, 339: 3, 262: 2}), "header is damaged, or .* form of pixels"),
        ("sum.png", good[:29] + b"\0\0" + good[31:], "header is damaged, or"),
        ("cut.jpg", saved("JPEG")[:-30], "not a readable image .image file is truncated"),
        ("cut.tif", saved("TIFF")[:-30], "not a readable image"),
        ("cut.bmp", saved("BMP")[:-30], "not a readable image .image file is truncated"),
        ("cut.webp", saved("WEBP")[:-30], "not a readable image"),
        ("cut.gif", saved("GIF")[:-30], "not a readable image"),
        ("cut.ppm", saved("PPM")[:-30], "not a readable image"),
        ("x.npy", b"no array", "not a readable array"),
        ("bad\n\x1b[31m\udcff.png", b"", "not a readable image"),
    ):
        path = tmp_path / name
        path.write_bytes(bytes(data))
        with pytest.raises(PictureError, match=reason) as caught:
            read_picture(path, (5, 5), "crop")
        text = str(caught.value)
        assert text.isprintable() and text.startswith(f"{tmp_path}/{name[:3]}")
    for other in ("ICO", "PCX", "TGA", "ICNS"):  # Pillow reads them, in ways that are not ours to answer for
        (tmp_path / "x").write_bytes(saved(other))
        with pytest.raises(PictureError, match="it is none of"):
            read_picture(tmp_path / "x")
    assert not {"EPS", "PS", "PDF", "WMF", "MPEG", "ICO"} & set(FORMATS)


def test_what_is_no_regular_file(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    for read in (read_picture, read_values, kind_of):
        begin = time.monotonic()
        for name, reason in (
            ("pipe.png", "pipe.png: not a regular file, no picture"),
            ("folder.png", "folder.png: a folder, no picture"),
            ("loop.png", "loop.png: Too many levels of symbolic links"),
            ("none.png", "none.png: there is no such file"),
            ("zero\0.png", "embedded null byte"),
        ):
            with pytest.raises(PictureError, match=reason):
                read(str(tmp_path / name))
        assert time.monotonic() - begin < 5  # nobody waited for the pipe's other end
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(PictureError, match="x.png: Permission denied"):
        read_picture(tmp_path / "x.png")


def test_any_damage_is_a_refusal_or_a_picture(tmp_path, caplog, capfd):
    """Bytes changed, cut and put in, in files of every format; warnings count as errors, and nothing is printed."""
    random.seed(5)
    seeds = [saved(form) for form in FORMATS] + [saved("PNG", save_all=True, append_images=[Image.new("RGB", (9, 9))])]
    for mode in ("1", "P", "LA", "I;16", "F", "CMYK"):
        file = io.BytesIO()
        source = Image.new("L" if mode == "I;16" else "RGB", (20, 12), 77)
        (Image.new(mode, (20, 12)) if mode == "I;16" else source.convert(mode)).save(file, "TIFF")
        seeds.append(bytearray(file.getvalue()))
    counts, path = {True: 0, False: 0}, tmp_path / "x"
    for number in range(1500):
        data = bytearray(seeds[number % len(seeds)])
        for _ in range(random.choice((1, 1, 3))):
            at = random.randrange(min(len(data), random.choice((40, 400, 10**6))))
            what = random.random()
            if what < 0.7:
                data[at] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))
            elif what < 0.85:
                del data[at : at + random.randrange(1, 9)]
            else:
                data[at:at] = random.randbytes(random.randrange(1, 9))
        path.write_bytes(bytes(data))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                pixels = read_picture(path, (6, 10), "crop", notes=Notes(len))
                assert pixels.shape == (6, 10, 3) and pixels.dtype == np.uint8
                counts[True] += 1
            except PictureError as error:
                assert str(error).startswith(f"{path}: ") and str(error).isprintable()
                counts[False] += 1
    assert min(counts.values()) > 200  # it was not all one or the other
    assert not caplog.records and capfd.readouterr() == ("", "")


def test_readers_in_threads(tmp_path):
    """Python's filters of warnings are the process's: each reader leaves them as they were."""
    (tmp_path / "good.png").write_bytes(saved("PNG"))
    (tmp_path / "odd.jpg").write_bytes(saved("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff"))
    filters, found = list(warnings.filters), []

    def work():
        for name in ["good.png", "odd.jpg"] * 40:
            found.append(read_picture(tmp_path / name, notes=Notes(len)).shape)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(12, 20, 3)] * 320 and warnings.filters == filters
