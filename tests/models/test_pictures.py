"""The one reader of pictures: modes, frames, sizes, and what it says of them."""

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from edgemoe_models.pictures import Notes, PictureError, PictureWarning, fit, kind_of, picture_files, read_picture
from edgemoe_models.pictures.modes import to_rgb
from support.picture_files import big_endian_tiff, gradient, png_bytes, png_chunk, read, tiff_bytes


@pytest.fixture
def rgb():
    return gradient()


# Modes

GREY = "grey pictures get equal red, green and blue"
PALETTE = "colours of a palette are replaced by their red, green and blue"
WHITE = "what is transparent lies on white"
DEEP = "grey of 16 bits is scaled to 8: its largest possible value is white"
WIDE = "numbers of 32 bits are scaled to 8: white is 1, 255 or 65535, the first that none exceeds, else the largest"


def test_modes_of_8_bits(rgb, tmp_path):
    picture, grey = Image.fromarray(rgb), Image.fromarray(rgb).convert("L")
    alpha = Image.fromarray(np.repeat(np.array([[0, 128, 255, 255]], np.uint8), 3, 0).repeat(4, 0).repeat(5, 1))
    share = (np.asarray(alpha) / 255.0)[..., None]
    with_alpha, grey_alpha = picture.copy(), Image.merge("LA", (grey, alpha))
    with_alpha.putalpha(alpha)
    three = np.repeat(np.asarray(grey)[..., None], 3, -1)
    for name, image, wanted, notes in (
        ("rgb.png", picture, rgb, []),
        ("rgb.ppm", picture, rgb, []),
        ("rgb.bmp", picture, rgb, []),
        ("grey.png", grey, three, [GREY]),
        ("grey.tif", grey, three, [GREY]),
        ("grey.bmp", grey, three, [PALETTE]),  # how a BMP holds grey does not matter to the pixels
        ("one.png", grey.convert("1"), None, [GREY]),
        ("one.pbm", grey.convert("1"), None, [GREY]),
        ("palette.png", picture.convert("P"), None, [PALETTE]),
        ("palette.gif", picture.convert("P"), None, [PALETTE]),
        ("rgba.png", with_alpha, rgb * share + 255 * (1 - share), [WHITE]),
        ("rgba.tif", with_alpha, rgb * share + 255 * (1 - share), [WHITE]),
        ("grey-alpha.png", grey_alpha, three * share + 255 * (1 - share), [GREY, WHITE]),
        ("cmyk.tif", picture.convert("CMYK"), rgb, ["CMYK is converted without regard to its colour profile"]),
        ("ycbcr.tif", picture.convert("YCbCr"), rgb, []),  # libtiff converts it
    ):
        image.save(tmp_path / name, compression="tiff_lzw")  # which other formats do not look at
        wanted = image.convert("RGB") if wanted is None else wanted
        pixels, said = read(tmp_path / name)
        assert np.abs(pixels - np.asarray(wanted, float)).max() <= (3 if "ycbcr" in name else 1), name
        assert said == notes or (name == "grey.bmp" and said == [GREY]), name


def test_ycbcr(rgb):
    """As later versions of Pillow give it where a TIFF is not compressed."""
    said = []
    pixels = np.asarray(to_rgb(Image.fromarray(rgb).convert("YCbCr"), said.append), int)
    assert np.abs(pixels - rgb).max() <= 3 and said == ["YCbCr is converted to RGB"]


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / "x.jpg", quality=100)
    pixels, said = read(tmp_path / "x.jpg")
    assert np.abs(pixels[0, 0].astype(int) - (0, 255, 255)).max() <= 2 and "CMYK" in said[0]


def test_transparent_colours(rgb, tmp_path):
    """Of a palette, and the one colour that a PNG without alpha may name."""
    indices = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) % 3, "P")
    indices.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    indices.save(tmp_path / "one.png", transparency=1)
    indices.save(tmp_path / "each.png", transparency=bytes([255, 0, 128]))
    indices.save(tmp_path / "one.gif", transparency=1)
    for name, last in (("one.png", (70, 80, 90)), ("each.png", (162, 167, 172)), ("one.gif", (70, 80, 90))):
        pixels, said = read(tmp_path / name)
        assert said == [PALETTE, WHITE]
        assert [tuple(pixel) for pixel in pixels[0].astype(int)] == [(10, 20, 30), (255, 255, 255), last]
    Image.fromarray(rgb).save(tmp_path / "key.png", transparency=tuple(int(value) for value in rgb[3, 4]))
    pixels, said = read(tmp_path / "key.png")
    assert said == [WHITE] and tuple(pixels[3, 4]) == (255, 255, 255)
    np.testing.assert_array_equal(pixels[4:], rgb[4:])


def test_lab(rgb, tmp_path):
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    ImageCms.applyTransform(Image.fromarray(rgb), ImageCms.buildTransform(srgb, lab, "RGB", "LAB")).save(
        tmp_path / "x.tif"
    )
    pixels, said = read(tmp_path / "x.tif")
    assert np.abs(pixels.astype(int) - rgb).mean() < 2 and said == ["CIE L*a*b* (D50) is converted to sRGB"]


def test_16_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 128, 256, 257, 65535 - 257, 65535]], np.uint16)
    wanted = np.rint(values / 257).astype(np.uint8)
    for name in ("x.png", "x.tif", "x.pgm"):
        Image.fromarray(values).save(tmp_path / name)
        pixels, said = read(tmp_path / name)
        assert said == [DEEP]
        np.testing.assert_array_equal(pixels, np.repeat(wanted[..., None], 3, -1))
    (tmp_path / "white.tif").write_bytes(tiff_bytes(values, {262: 0}))  # 0 is white
    np.testing.assert_array_equal(read(tmp_path / "white.tif")[0][..., 0], 255 - wanted)
    (tmp_path / "big.tif").write_bytes(big_endian_tiff(values))
    np.testing.assert_array_equal(read(tmp_path / "big.tif")[0][..., 0], wanted)


def test_a_transparent_grey_of_16_bits(tmp_path):
    rows = b"\0" + np.array([0, 1000, 65535], ">u2").tobytes()
    (tmp_path / "x.png").write_bytes(png_bytes(3, 1, 16, 0, rows, png_chunk(b"tRNS", struct.pack(">H", 1000))))
    pixels, said = read(tmp_path / "x.png")
    assert said == [DEEP, WHITE] and list(pixels[0, :, 0]) == [0, 255, 255]


def test_colours_of_16_bits(tmp_path):
    """PNG and PPM of three channels, which Pillow cannot write."""
    values = np.array([[[0, 256, 65535], [32768, 511, 65280]]], np.uint16)
    (tmp_path / "x.ppm").write_bytes(b"P6 2 1 65535\n" + values.astype(">u2").tobytes())
    np.testing.assert_array_equal(read(tmp_path / "x.ppm")[0], np.rint(values / 257))
    (tmp_path / "x.png").write_bytes(png_bytes(2, 1, 16, 2, b"\0" + values.astype(">u2").tobytes()))
    pixels, said = read(tmp_path / "x.png")
    np.testing.assert_array_equal(pixels, values >> 8)
    assert said == ["colours of 16 bits are scaled to 8"]


def test_32_bits(tmp_path):
    """Numbers have no stated range there; what is not finite does not count, and is black or clipped."""
    for values, wanted in (
        (np.array([[0, 0.25, 1]], np.float32), [0, 64, 255]),
        (np.array([[0, 100, 255]], np.float32), [0, 100, 255]),
        (np.array([[0, 32768, 65535]], np.float32), [0, 128, 255]),
        (np.array([[0, 1e6, 2e6]], np.float32), [0, 128, 255]),
        (np.array([[-1, 0, 1]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, -np.inf, np.inf, 0.5]], np.float32), [0, 0, 255, 128]),
        (np.array([[np.nan, np.nan]], np.float32), [0, 0]),
        (np.array([[2e38, -1e38, 3e38]], np.float32), [191, 0, 255]),
        (np.array([[0, 1, 255]], np.int32), [0, 1, 255]),
        (np.array([[0, 257, 65535]], np.int32), [0, 1, 255]),
        (np.array([[-10, 0, 10]], np.int32), [0, 128, 255]),
        (np.array([[70000, 70000]], np.int32), [0, 0]),
    ):
        (tmp_path / "x.tif").write_bytes(tiff_bytes(values))
        pixels, said = read(tmp_path / "x.tif")
        assert said == [WIDE]
        np.testing.assert_array_equal(pixels[0], np.repeat(np.array(wanted)[:, None], 3, -1), err_msg=str(values))
    unsigned = bytearray(tiff_bytes(np.array([[0, 2**31 - 1, -1]], np.int32)))
    at = unsigned.index(struct.pack("<HHIH", 339, 3, 1, 2))
    unsigned[at : at + 10] = struct.pack("<HHIH", 339, 3, 1, 1)
    (tmp_path / "x.tif").write_bytes(unsigned)
    np.testing.assert_array_equal(read(tmp_path / "x.tif")[0][0, :, 0], [0, 127, 255])


# Frames, sizes, notes


def test_of_several_frames_the_first(rgb, tmp_path):
    first, second = Image.fromarray(rgb), Image.fromarray(255 - rgb)
    for form, exact in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("GIF", {})):
        first.save(tmp_path / "x", form, save_all=True, append_images=[second, first], **exact)
        pixels, said = read(tmp_path / "x")
        assert np.abs(pixels.astype(int) - rgb).mean() < (20 if form == "GIF" else 1e-9), form
        assert said[0] == "of several pictures or frames in a file the first is taken", form
        first.save(tmp_path / "x", form, **exact)
        assert not any("several" in text for text in read(tmp_path / "x")[1])


def test_damage_in_a_later_frame_does_not_matter(rgb, tmp_path):
    Image.fromarray(rgb).save(tmp_path / "x.tif", save_all=True, append_images=[Image.fromarray(rgb)] * 2)
    data = (tmp_path / "x.tif").read_bytes()
    (tmp_path / "x.tif").write_bytes(data[: len(data) * 2 // 5])
    np.testing.assert_array_equal(read(tmp_path / "x.tif")[0], rgb)


def test_content_decides_not_the_suffix(rgb, tmp_path):
    image = Image.fromarray(rgb)
    for form, name in (("PNG", "x.jpg"), ("BMP", "x.npy"), ("PPM", "x"), ("TIFF", "x.png"), ("WEBP", "x.txt")):
        image.save(tmp_path / name, form, **({"lossless": True} if form == "WEBP" else {}))
        assert kind_of(tmp_path / name) == "picture"
        np.testing.assert_array_equal(read(tmp_path / name)[0], rgb)
    with (tmp_path / "y.png").open("wb") as file:
        np.save(file, rgb)
    assert kind_of(tmp_path / "y.png") == "array"
    np.testing.assert_array_equal(read(tmp_path / "y.png", (12, 20))[0], rgb)


def test_a_kind_is_said_once(rgb, tmp_path):
    said = []
    notes = Notes(said.append)
    Image.fromarray(rgb).convert("L").save(tmp_path / "grey.png")
    Image.fromarray(rgb).convert("LA").save(tmp_path / "other.png")
    for name in ["grey.png"] * 1000 + ["other.png"] * 1000:
        read_picture(tmp_path / name, notes=notes)
    assert len(said) == 2 and said[0].startswith(f"{GREY} ({tmp_path}/grey.png, ") and WHITE in said[1]
    with pytest.warns(PictureWarning, match="grey pictures get equal") as caught:
        read_picture(tmp_path / "grey.png")
    assert len(caught) == 1


def test_crop_and_squeeze(rgb, tmp_path):
    wide, size = np.repeat(rgb, 3, 1), (6, 10)  # 60 x 12 to 10 x 6
    Image.fromarray(wide).save(tmp_path / "x.png")
    for source in (wide, tmp_path / "x.png"):
        crop, squeeze = (
            fit(source, size, resize) if source is wide else read(source, size, resize)[0]
            for resize in ("crop", "squeeze")
        )
        scaled = Image.fromarray(wide).resize((30, 6), Image.Resampling.BILINEAR)  # the shorter side, then the middle
        np.testing.assert_array_equal(crop, scaled.crop((10, 0, 20, 6)))
        whole = Image.fromarray(wide).resize((10, 6), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(squeeze, whole)
    tall = np.ascontiguousarray(wide.swapaxes(0, 1))
    turned = fit(wide, size, "crop").swapaxes(0, 1)
    np.testing.assert_allclose(fit(tall, (10, 6), "crop"), turned, atol=1)  # the axes are scaled in one order
    assert fit(rgb, (12, 20), "crop") is rgb
    for shape in ((1, 5000), (5000, 1), (1, 1)):  # both larger and smaller, at any aspect ratio
        for resize in ("crop", "squeeze"):
            level = fit(np.full((*shape, 3), 77, np.uint8), (31, 17), resize)
            assert level.shape == (31, 17, 3) and (level == 77).all()
    for wrong in (True, "middle", 1, ""):
        with pytest.raises(ValueError, match="resize must be 'crop'.*, 'squeeze'.* or None, not "):
            fit(wide, size, wrong)
    with pytest.raises(PictureError, match=r"x.png: it is 60x12 pixels, but the model takes 10x6 .*--resize"):
        read(tmp_path / "x.png", size)


def test_files_of_a_folder(rgb, tmp_path):
    image = Image.fromarray(rgb)
    (tmp_path / "b.png").mkdir()
    for name in ("c.PNG", "a.jpeg", "b.png/d.tiff", "e.webp", ".hidden.png", "notes.md", "b.png/x.PgM"):
        image.convert("L" if name.endswith("PgM") else "RGB").save(tmp_path / name, "PPM" if "PgM" in name else "PNG")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("nothing")
    (tmp_path / "link.png").symlink_to("c.PNG")
    names = [str(path.relative_to(tmp_path)) for path in picture_files(tmp_path)]
    assert names == ["a.jpeg", "c.PNG", "e.webp", "link.png"]
    names = [str(path.relative_to(tmp_path)) for path in picture_files(tmp_path, recursive=True)]
    assert names == ["a.jpeg", "b.png/d.tiff", "b.png/x.PgM", "c.PNG", "e.webp", "link.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(PictureError, match="empty: no pictures in this folder; known are .bmp, "):
        picture_files(tmp_path / "empty")
    with pytest.raises(PictureError, match="none: No such file"):
        picture_files(tmp_path / "none")
