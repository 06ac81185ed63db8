"""Files and folders are replaced whole or not at all."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from genamp_lib._project import (
    GenampError,
    project_root,
    read_json,
    recover_folder,
    replace_file,
    replace_folder,
    write_json,
)


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(UnicodeEncodeError), replace_file(path) as temporary:
        temporary.write_text("half, and then \udc00", encoding="utf-8")
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_nan_is_refused_before_the_file_is_touched(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", math.nan)
    assert not list(tmp_path.iterdir())


def test_damaged_json_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(GenampError, match=r"a\.json: must be JSON, got .*; remove the file"):
        read_json(tmp_path / "a.json")


def test_replace_folder_puts_the_new_one_in_place(tmp_path: Path) -> None:
    for name in ("new", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    replace_folder(tmp_path / "new", tmp_path / "target")
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "new"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    # What is on disk at that moment: the old folder under its spare name, no target.
    (tmp_path / ".target.previous").mkdir()
    (tmp_path / ".target.previous" / "old").touch()
    recover_folder(tmp_path / "target")
    assert (tmp_path / "target" / "old").exists()
    assert not (tmp_path / ".target.previous").exists()


def test_project_root_is_found_from_below(tiny_project: Path) -> None:
    assert project_root(tiny_project / "notebooks" / "presets") == tiny_project.resolve()
