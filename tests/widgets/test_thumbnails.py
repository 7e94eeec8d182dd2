"""The row of thumbnails holds the pictures around the one that is shown, and no others."""

import base64
import dataclasses
import io

from PIL import Image

from workbench.widgets.thumbnails import PAGE, Thumbnails


def test_a_row_is_read_when_it_is_shown(few):
    read = []

    class Noted(type(few[0])):
        def picture(self):
            read.append(self.id)
            return Image.new("RGB", (300, 200), "red")

    examples = [Noted(**(dataclasses.asdict(few[0]) | {"id": str(i)})) for i in range(PAGE + 3)]
    row = Thumbnails(examples)
    row.show(2)
    assert read == [str(i) for i in range(PAGE)] and row.place == 2 and row.first == 0
    row.show(5, chosen=False)
    assert len(read) == PAGE and row.place == -1
    row.show(PAGE + 1)
    assert read[PAGE:] == [str(i) for i in range(PAGE, PAGE + 3)] and len(row.pictures) == 3 and row.first == PAGE
    picture = Image.open(io.BytesIO(base64.b64decode(row.pictures[0]["src"].partition("base64,")[2])))
    assert max(picture.size) < 100


def test_a_picture_that_cannot_be_read_says_so(few, tmp_path):
    row = Thumbnails([dataclasses.replace(few[0], image=tmp_path / "gone.png"), few[1]])
    row.show(0)
    assert row.pictures[0]["src"] == "" and "cannot be read" in row.pictures[0]["alt"] and row.pictures[1]["src"]
