"""Pictures: in RGB and of the size that was saved, or one sentence; never more pixels than are admitted."""

import io
import resource
import struct
import sys
import zlib
from functools import partial

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from tests.fuzz.cases import assert_found, assert_one_sentence, cases, right_or_one_sentence
from workbench.data.pictures import MAX_PIXELS, read_picture
from workbench.errors import UserError

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F", "LAB", "PA", "RGBX")
KINDS = (
    "PNG",
    "JPEG",
    "GIF",
    "BMP",
    "TIFF",
    "WEBP",
    "PPM",
    "TGA",
    "ICO",
    "JPEG2000",
    "PCX",
    "SGI",
    "DDS",
    "IM",
    "AVIF",
)
KINDS += ("MPO", "QOI", "ICNS", "XBM", "EPS")
MOST_MEMORY = 1500 * 2**20  # bytes that reading one file may add to the process


class Saved(io.BytesIO):
    """A picture's file. image: what was saved."""

    image: Image.Image
    kind: str


@st.composite
def saved(draw, kinds=KINDS, modes=MODES):
    """A picture of random pixels, saved in one of the formats that know its mode."""
    kind, size = draw(st.sampled_from(kinds)), (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    seed = draw(st.integers(0, 99))
    for mode in draw(st.permutations(modes)):
        try:
            plain = Image.new(mode, size)
            pixels = np.random.default_rng(seed).bytes(len(plain.tobytes()))
            file = Saved()
            file.image, file.kind = Image.frombytes(mode, size, pixels), kind
            file.image.save(file, kind)
            return file
        except (OSError, ValueError, KeyError):  # this format does not know this mode
            continue
    raise AssertionError(f"no mode can be saved as {kind}")


LOSSLESS = saved(("PNG", "TIFF"), ("1", "L", "LA", "RGB", "RGBA"))


def shows(read, file):
    """The property: each pixel is that of the picture, laid on white."""
    rgba = np.asarray(file.image.convert("RGBA")).astype(float)  # (height, width, 4), 0 to 255
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    file.seek(0)
    seen = read(file, "the picture")
    assert (seen.mode, seen.size) == ("RGB", file.image.size)
    assert np.abs(np.asarray(seen).astype(float) - expected).max() <= 1.01


@cases(LOSSLESS)
def test_a_whole_picture_shows_its_pixels_on_white(case):
    shows(read_picture, case)


def _without_alpha(file, name):
    return Image.open(file).convert("RGB")


def _on_black(file, name):
    rgba = Image.open(file).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba).convert("RGB")


def _turned(file, name):
    return read_picture(file, name).transpose(Image.Transpose.ROTATE_90)


@pytest.mark.parametrize("planted", [_without_alpha, _on_black, _turned])
def test_an_error_planted_in_the_reader_of_pictures_is_found(planted):
    assert_found(partial(shows, planted), LOSSLESS)


SIZED = saved(tuple(kind for kind in KINDS if kind not in ("ICO", "ICNS", "EPS")))


def has_its_size(read, file):
    """The property: whatever the format and mode, RGB of the size that was saved; floats are refused."""
    file.seek(0)
    try:
        seen = read(file, "the picture")
    except UserError as error:
        assert_one_sentence(str(error))
        assert file.image.mode == "F"
    else:
        assert (seen.mode, seen.size) == ("RGB", file.image.size)


@cases(SIZED)
def test_every_format_and_mode_gives_rgb_of_its_size(case):
    has_its_size(read_picture, case)


def test_a_reader_that_refuses_what_it_need_not_is_found():
    def planted(file, name):
        if file.image.mode in ("CMYK", "P", "I;16"):
            raise UserError("The picture has an unusual mode.")
        return read_picture(file, name)

    assert_found(partial(has_its_size, planted), SIZED)


@st.composite
def broken(draw):
    """Such a file, cut or with changed bytes, most of them where its header is; or any bytes."""
    file = draw(saved())
    content = bytearray(file.getvalue())
    how = draw(st.sampled_from(["cut", "changed", "changed", "any"]))
    if how == "cut":
        del content[draw(st.integers(0, len(content))) :]
    elif how == "changed":
        for _ in range(draw(st.integers(1, 8))):
            last = min(len(content), draw(st.sampled_from([30, 200, 10**6]))) - 1
            content[draw(st.integers(0, last))] = draw(st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255))
    else:
        content = draw(st.binary(max_size=100))
    return bytes(content)


def memory():
    """The most memory that this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def survives(read, content):
    """The property: an RGB picture of at most MAX_PIXELS, or one sentence, in bounded memory."""
    before = memory()
    with right_or_one_sentence():
        seen = read(io.BytesIO(content), "the picture")
        assert seen.mode == "RGB" and seen.width * seen.height <= MAX_PIXELS
    assert memory() - before < MOST_MEMORY


@cases(broken(), share=3)
def test_a_broken_picture_is_a_sentence_or_a_picture(case):
    survives(read_picture, case)


def test_a_reader_that_shows_a_broken_picture_as_it_is_is_found():
    def planted(file, name):
        try:
            return Image.open(file)
        except OSError as error:
            raise UserError("The picture cannot be read.") from error

    assert_found(partial(survives, planted), broken())


def _png(width, height):
    """A PNG of this size that holds nothing, in a hundred bytes."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _icon(png):
    """An icon that says 16 × 16 and holds this picture."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(png), 22) + png


BOMBS = st.tuples(st.integers(8_000, 60_000), st.integers(8_000, 60_000), st.booleans())


def refuses_bombs(read, case):
    """The property: a small file that says that it is huge is refused, before its pixels take memory."""
    width, height, in_an_icon = case
    png = _png(width, height)
    before = memory()
    with pytest.raises(UserError) as refused:
        read(io.BytesIO(_icon(png) if in_an_icon else png), "the picture")
    assert_one_sentence(str(refused.value))
    assert memory() - before < MOST_MEMORY


@cases(BOMBS, share=0.5)
def test_a_decompression_bomb_is_refused(case):
    refuses_bombs(read_picture, case)


def test_a_reader_that_admits_bombs_is_found():
    def planted(file, name):
        return Image.new("RGB", Image.open(file).size if file.getbuffer()[0] else (1, 1))

    assert_found(partial(refuses_bombs, planted), BOMBS.filter(lambda case: case[2]))


def test_postscript_is_not_run():
    """Pillow would start Ghostscript for it."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "EPS")
    with pytest.raises(UserError, match="is PostScript, which is a program and is not run"):
        read_picture(file, "the picture")
