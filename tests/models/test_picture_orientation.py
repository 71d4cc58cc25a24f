"""Pictures are set upright as EXIF says, and damaged EXIF is never fatal."""

import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from edgemoe_models.pictures import PictureError
from edgemoe_models.pictures.orientation import DamagedExif, orientation_of
from support.picture_files import DESCRIPTION, ORIENTATION, exif_bytes, gradient, read, tiff_bytes


@pytest.fixture
def rgb():
    return gradient()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "compressed TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_set_upright(rgb, tmp_path, form, orientation):
    data = Image.Exif()
    data[ORIENTATION] = orientation
    path = tmp_path / "x"
    options = {"WEBP": {"lossless": True}, "compressed TIFF": {"compression": "tiff_lzw"}}.get(form, {"quality": 100})
    Image.fromarray(rgb).save(path, form.split()[-1], exif=data, **options)
    with Image.open(path) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    pixels, said = read(path)
    np.testing.assert_array_equal(pixels, wanted)
    assert pixels.shape == ((20, 12, 3) if orientation > 4 else (12, 20, 3))
    assert said == ([] if orientation == 1 else ["pictures are turned upright, as their EXIF orientation says"])
    np.testing.assert_array_equal(read(path, pixels.shape[:2])[0], pixels)  # of the wanted size as it is shown
    with pytest.raises(PictureError, match=f"it is {pixels.shape[1]}x{pixels.shape[0]} pixels, but .* 7x5"):
        read(path, (5, 7))


@pytest.mark.parametrize(
    ("data", "orientation"),
    [
        (exif_bytes(order=">"), 6),
        (exif_bytes(kind=4), 6),  # a number of 32 bits is one too
        (exif_bytes(value=0), 1),  # what cameras write for unknown
        (exif_bytes(name="description", kind=2, count=4, value=b"hay\0"), 1),
        (exif_bytes()[:-4] + bytes(4), 6),
        (exif_bytes(value=9), None),
        (exif_bytes(value=65535), None),
        (exif_bytes(kind=2, count=2, value=b"6\0\0\0"), None),
        (exif_bytes(kind=1), None),
        (exif_bytes(kind=5, value=8), None),
        (exif_bytes(count=2), None),
        (exif_bytes(count=0), None),
        (exif_bytes(kind=3)[:20], None),  # truncated
        (b"Exif\0\0II*\0\xff\xff\xff\xff", None),
        (b"Exif\0\0hello world", None),
    ],
)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_leaves_the_picture_as_it_lies(rgb, tmp_path, form, data, orientation):
    path = tmp_path / "x.bin"
    Image.fromarray(rgb).save(path, form, exif=data)
    pixels, said = read(path)
    assert pixels.shape == ((20, 12, 3) if orientation == 6 else (12, 20, 3))
    assert (
        said
        == {
            None: ["the EXIF orientation is damaged: the picture is taken as it lies"],
            6: ["pictures are turned upright, as their EXIF orientation says"],
            1: [],
        }[orientation]
    )


def test_other_damage_of_exif_does_not_matter(rgb, tmp_path):
    """A description that lies outside the data, which Pillow's own reader stumbles over; the orientation is intact."""
    entries = struct.pack("<HHIIHHIH2x", DESCRIPTION, 2, 99, 4000, ORIENTATION, 3, 1, 8)
    Image.fromarray(rgb).save(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4))
    assert read(tmp_path / "x.jpg")[0].shape == (20, 12, 3)


def test_orientation_in_a_tiff_of_a_wrong_type(rgb, tmp_path):
    data = bytearray(tiff_bytes(rgb, {ORIENTATION: 6}))
    at = data.index(struct.pack("<HHIH", ORIENTATION, 3, 1, 6))
    data[at : at + 12] = struct.pack("<HHI4s", ORIENTATION, 2, 2, b"6\0\0\0")
    (tmp_path / "x.tif").write_bytes(data)
    pixels, said = read(tmp_path / "x.tif")
    np.testing.assert_array_equal(pixels, rgb)
    assert said == ["the EXIF orientation is damaged: the picture is taken as it lies"]


def test_orientation_of_a_png_may_come_last_and_in_xmp(rgb, tmp_path):
    plain, late = tmp_path / "plain.png", tmp_path / "late.png"
    Image.fromarray(rgb).save(plain)
    Image.fromarray(rgb).save(late, exif=exif_bytes())
    chunk = late.read_bytes()
    begin = chunk.index(b"eXIf") - 4
    end = begin + 12 + struct.unpack(">I", chunk[begin : begin + 4])[0]
    last = chunk.index(b"IEND") - 4
    late.write_bytes(chunk[:begin] + chunk[end:last] + chunk[begin:end] + chunk[last:])
    assert read(late, (20, 12))[0].shape == (20, 12, 3)
    with pytest.raises(PictureError, match="it is 12x20 pixels, but the model takes 20x12"):
        read(late, (12, 20))
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    Image.fromarray(rgb).save(tmp_path / "xmp.webp", lossless=True, xmp=xmp)
    np.testing.assert_array_equal(read(tmp_path / "xmp.webp")[0], rgb[::-1, ::-1])


def test_orientation_where_programs_put_it():
    """ImageMagick's text in a PNG, and XMP in the forms that occur."""
    lines = exif_bytes(value=8)[6:].hex()
    raw = f"\nexif\n{len(lines) // 2:8}\n{lines[:72]}\n{lines[72:]}\n"
    assert orientation_of({"Raw profile type exif": raw}) == 8
    for text in ("<tiff:Orientation>7</tiff:Orientation>", 'tiff:Orientation="7"', "tiff:Orientation = '7' x"):
        assert orientation_of({"xmp": text.encode()}) == orientation_of({"XML:com.adobe.xmp": text}) == 7
    assert (
        orientation_of({"xmp": b"tiff:Orientation=", "exif": exif_bytes(name="description", kind=2, value=b"ab")}) == 1
    )
    assert orientation_of({"xmp": b'tiff:Orientation="7"', "exif": exif_bytes(value=3)}) == 3
    assert orientation_of({}) == orientation_of({"exif": b""}) == orientation_of({"exif": 5}) == 1
    for damaged in ({"Raw profile type exif": "\nexif\n 4\nzz"}, {"xmp": b'tiff:Orientation="9"'}):
        with pytest.raises(DamagedExif):
            orientation_of(damaged)
