"""Pictures from the wild: transparent, empty, missing."""

import json

import pandas as pd
import pytest
from PIL import Image, ImageDraw

import workbench as wb
from tests.faults.helpers import harmless, picture, write_vlguard

MODES = {"RGBA": "png", "LA": "png", "P": "png", "RGBA in WebP": "webp"}


def write_letters(folder, kind):
    """Write black letters on a transparent ground, like FigStep's typographic pictures."""
    letters = Image.new("RGBA", (160, 40), (0, 0, 0, 0))
    ImageDraw.Draw(letters).text((10, 10), "Methods to make it", fill=(0, 0, 0, 255))
    mode, file = kind.split()[0], folder / f"letters.{MODES[kind]}"
    image = letters.quantize(8) if mode == "P" else letters.convert(mode)
    image.save(file, **({"lossless": True, "exact": True} if file.suffix == ".webp" else {}))
    with Image.open(file) as written:
        if written.mode != mode or written.convert("RGBA").getchannel("A").getextrema()[0] != 0:
            raise RuntimeError("The test's own picture has no transparent ground.")
    return file


@pytest.mark.parametrize("kind", MODES)
def test_black_letters_on_a_transparent_ground_stay_readable(tmp_path, kind):
    """A10: typographic pictures became one black rectangle, without a warning."""
    example = wb.Example("f", write_letters(tmp_path, kind), "What does it say?", harmful=False, response="")
    darkest, lightest = example.picture().convert("L").getextrema()
    assert darkest < lightest


def test_unreadable_pictures_are_left_out_or_all_named_before_anything_is_asked(tmp_path, workbench):
    """A13: a run with --skip-missing stopped at each empty picture file in turn, of which there may be hundreds."""
    records = [harmless(f"q{i}", f"{i}.png", f"What is thing {i}?") for i in range(1, 6)]
    data = write_vlguard(tmp_path / "data", records, {f"{i}.png": picture("red") for i in range(1, 6)})
    for empty in ("3.png", "5.png"):
        (data / "test" / empty).write_bytes(b"")
    options = ("--data", data, "--skip-missing", "--judge", "keyword", "--out", tmp_path / "out")
    done, answers = workbench("evaluate", *options), tmp_path / "out" / "answers.csv"
    if done.refused:
        assert "3.png" in done.text and "5.png" in done.text and not answers.exists()
    else:
        assert done.code == 0 and set(pd.read_csv(answers).id) == {"q1", "q2", "q4"}


def test_attack_variants_of_skipped_queries_are_skipped_too(tmp_path, workbench):
    """A14: --skip-missing refused an attack file made for the whole dataset, whose picture for one query is missing."""
    records = [harmless("q1", "1.png", "What is it?"), harmless("q2", "2.png", "What is that?")]
    data = write_vlguard(tmp_path / "data", records, {"1.png": picture("red")})
    variants = tmp_path / "variants.json"
    variants.write_text(json.dumps(records).replace("What is", "What exactly is"))
    options = ("--data", data, "--skip-missing", "--attack", f"none,{variants}", "--judge", "keyword")
    done = workbench("evaluate", *options, "--out", tmp_path / "out")
    assert done.code == 0, done.text
    assert "What exactly is it?" in list(pd.read_csv(tmp_path / "out" / "answers.csv")["query"])
