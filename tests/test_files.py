"""Writing: a file or folder is replaced whole or not at all, and a place that cannot be written is named."""

import pytest

from workbench.errors import UserError
from workbench.files import atomic_write, data_dir, ensure_parent, make_folder, write_text


def test_what_ships_is_found():
    assert (data_dir() / "vlguard_first_words.csv").is_file()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "deep" / "a.txt"
    write_text(file, "old")
    with pytest.raises(ZeroDivisionError), atomic_write(file) as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    assert file.read_text() == "old" and list(file.parent.iterdir()) == [file]
    write_text(file, "new")
    assert file.read_text() == "new"


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "out"
    for name in ("first", "second"):
        with atomic_write(folder) as temporary:
            temporary.mkdir()
            (temporary / name).write_text("")
    assert [path.name for path in folder.iterdir()] == ["second"] and list(tmp_path.iterdir()) == [folder]


def test_a_file_does_not_replace_a_folder(tmp_path):
    folder = make_folder(tmp_path / "out")
    with pytest.raises(UserError, match="out is a folder"), atomic_write(folder) as temporary:
        temporary.write_text("")
    with pytest.raises(UserError, match="out is a folder"):
        ensure_parent(folder)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match=r"file/folder cannot be written .*--out"):
        make_folder(file / "folder")
