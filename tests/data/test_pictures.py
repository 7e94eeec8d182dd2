"""Pictures of every kind look in RGB as a viewer shows them."""

import io
import logging

import numpy as np
import pytest
from PIL import Image, ImageCms

from workbench.data import pictures
from workbench.data.pictures import as_seen, problem, read_picture
from workbench.errors import UserError
from workbench.runs import log

RAMP = np.arange(0, 256, 16, dtype=np.uint8)[None].repeat(4, axis=0)  # (4, 16)


def grey(image):
    return np.asarray(image.convert("L")).astype(int)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV"])
def test_opaque_pictures_of_every_mode_look_the_same(mode):
    plain = Image.fromarray(RAMP)
    image = (
        plain.convert("RGB").quantize(32) if mode == "P" else plain.convert("1" if mode == "1" else "RGB").convert(mode)
    )
    seen = as_seen(image)
    assert seen.mode == "RGB" and seen.size == (16, 4)
    if mode != "1":
        assert np.abs(grey(seen) - RAMP).max() <= 6


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i4"])
def test_sixteen_bits_are_not_cut_to_white(tmp_path, dtype):
    """Pillow itself clips them: all but the darkest pixels would be white."""
    image = Image.fromarray((RAMP.astype(np.int64) * 257).astype(dtype))
    image.save(tmp_path / "p.tiff")
    assert np.abs(grey(read_picture(tmp_path / "p.tiff")) - RAMP).max() <= 1
    assert np.abs(grey(as_seen(Image.fromarray(RAMP.astype("<i4")))) - RAMP).max() <= 1  # 8 bits in 32


def test_floating_point_numbers_are_refused(tmp_path):
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "p.tiff")
    with pytest.raises(UserError, match=r"p\.tiff holds floating-point numbers"):
        read_picture(tmp_path / "p.tiff")


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_what_is_transparent_lies_on_white(alpha):
    red = Image.new("RGBA", (4, 4), (200, 0, 0, alpha))
    expected = np.round(np.array([200, 0, 0]) * alpha / 255 + 255 * (1 - alpha / 255))
    assert np.abs(np.asarray(as_seen(red))[0, 0] - expected).max() <= 1


def test_a_colour_profile_is_applied_and_a_broken_one_is_not(tmp_path):
    """In a profile whose red and green are exchanged, red is green; sRGB's own changes nothing."""
    image = Image.new("RGB", (4, 4), (200, 80, 80))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    other = srgb.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))
    other = other.replace(b"rXYZ", b"----").replace(b"gXYZ", b"rXYZ").replace(b"----", b"gXYZ")
    colours = {}
    for name, profile in (("srgb", srgb), ("other", other), ("broken", b"no profile")):
        image.save(tmp_path / f"{name}.png", icc_profile=profile)
        colours[name] = read_picture(tmp_path / f"{name}.png").getpixel((0, 0))
    assert colours["srgb"] == colours["broken"] == (200, 80, 80)
    assert colours["other"][1] > 150 > colours["other"][0]


def test_orientation_is_kept_and_damaged_exif_data_do_not_matter(tmp_path):
    image, exif = Image.new("RGB", (20, 10), "red"), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").size == (10, 20)
    image.save(tmp_path / "damaged.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage")
    assert read_picture(tmp_path / "damaged.jpg").size == (20, 10)


def test_of_an_animation_the_first_frame_is_seen_and_that_is_said_once(tmp_path, caplog):
    pictures._say_animated.cache_clear()
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "b.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
    with caplog.at_level(logging.WARNING, logger=log.name):
        seen = [read_picture(tmp_path / name).getpixel((0, 0)) for name in ("a.gif", "b.webp")]
    assert all(red > 200 and blue < 50 for red, _, blue in seen)
    assert len([line for line in caplog.messages if "animated" in line]) == 1


def test_what_is_wrong_with_a_file(tmp_path):
    good, cut, empty = (tmp_path / f"{name}.png" for name in ("good", "cut", "empty"))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.save(good)
    cut.write_bytes(good.read_bytes()[:3000])
    empty.write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    names = ("good", "cut", "empty", "text", "gone")
    assert [problem(tmp_path / f"{name}.png") for name in names] == ["", *["unreadable"] * 3, "missing"]
    with io.BytesIO(good.read_bytes()) as file:
        assert read_picture(file, "upload").size == (64, 64)
