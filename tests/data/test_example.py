"""Pictures of examples: read as upright RGB, refused by name if unusable, and identified by their pixels."""

import dataclasses

import pytest
from PIL import Image

from workbench.data.example import Example, content, digest
from workbench.data.pictures import read_picture
from workbench.data.splits import miniguard_split
from workbench.errors import UserError


def test_bad_pictures_are_named(tmp_path, monkeypatch):
    good = tmp_path / "good.png"
    miniguard_split("test", sizes=(1, 0))[0].picture().save(good)
    broken = tmp_path / "broken.png"
    broken.write_bytes(good.read_bytes()[:700])
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for path, says in (
        (tmp_path / "gone.png", "not found"),
        (broken, "cannot be read"),
        (text, "cannot be read"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            read_picture(path)
        assert path.name in str(caught.value)
    monkeypatch.setattr("workbench.data.pictures.MAX_PIXELS", 47 * 48)
    with pytest.raises(UserError, match="48 × 48 pixels"):
        read_picture(good)


def test_grey_palette_and_transparent_pictures_become_rgb(tmp_path):
    for mode in ("L", "P", "RGBA", "I;16"):
        Image.new(mode, (5, 4)).save(tmp_path / "p.png")
        assert read_picture(tmp_path / "p.png").mode == "RGB"


def test_a_photo_stands_as_its_camera_stood(tmp_path):
    """Phones store pixels as the sensor has them, and the orientation separately."""
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by a quarter turn
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").size == (20, 40)


def test_the_digest_depends_on_the_pixels_and_not_on_the_name(tmp_path):
    picture = Image.new("RGB", (4, 6), "red")
    for name in ("a.png", "b.png"):
        picture.save(tmp_path / name)
    one, same = (Example("x", tmp_path / name, "What?", False, "") for name in ("a.png", "b.png"))
    assert one.digest == same.digest == digest(picture)
    assert digest(picture) != digest(Image.new("RGB", (6, 4), "red"))  # the same bytes in another shape


def test_a_picture_is_decoded_once_for_itself_and_its_digest(tmp_path, monkeypatch):
    """An evaluation needs both, and a photo takes longer to decode than MiniGuard's model to answer."""
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    example = Example("1", tmp_path / "a.png", "What is it?", False, "a square")
    decoded = []
    monkeypatch.setattr("workbench.data.example.read_picture", lambda path: decoded.append(path) or read_picture(path))
    assert digest(example.picture()) == example.digest and len(decoded) == 1


def test_the_content_of_examples_is_all_that_they_hold_and_in_order(tmp_path):
    one, other = miniguard_split("test", sizes=(1, 1))
    file = tmp_path / "a.png"
    one.picture().save(file)
    of_file = dataclasses.replace(one, image=file)
    known = content([one, other])
    assert content([dataclasses.replace(one), dataclasses.replace(other)]) == known
    changed = [
        [other, one],
        [one],
        [one, other, other],
        *([dataclasses.replace(one, **{name: "x"}), other] for name in ("id", "query", "response", "leak")),
        [dataclasses.replace(one, harmful=not one.harmful), other],
        [dataclasses.replace(one, image=other.picture()), other],
    ]
    hashes = [known, *map(content, changed)]
    assert len(set(hashes)) == len(hashes)
    before = content([of_file])
    other.picture().save(file)  # another picture under the same name
    assert content([of_file]) != before
    file.unlink()
    with pytest.raises(UserError, match=r"a\.png not found"):
        content([of_file])
