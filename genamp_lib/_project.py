"""Where the project's files are and how they are written: never half, never silently wrong.

Not for anything that knows physics, networks or notebooks: this is the lowest layer.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

PRESET_VARIABLE = "GENAMP_PRESET"  # tells a chapter which preset it runs at


class GenampError(Exception):
    """Something the user can mend; the message is one line: what, requirement, got, remedy."""

    exit_code = 2  # of the command line


# Modules whose package has another name.
_PACKAGES = {"yaml": "pyyaml", "sklearn": "scikit-learn", "dask": "distributed"}


def extras() -> dict[str, list[str]]:
    """Return the requirements of each extra; those of the base stand under an empty name."""
    found: dict[str, list[str]] = {"": []}
    for line in metadata.requires("genamp") or []:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra == .(\w+)", marker)
        found.setdefault(extra[1] if extra else "", []).append(requirement.strip())
    return found


def install_hint(extra: str, requirement: str = "") -> str:
    """Say which command installs an extra; it works as written, in any folder.

    Of the book, whose extra is long, it is the clone's; outside of a clone, one `requirement`.
    """
    wanted = extras()[extra]
    if extra == "book":
        try:
            return f"run `pip install -e '{project_root()}[book]'`"
        except GenampError:
            wanted = [requirement]
    return "run `pip install " + " ".join(f"'{one}'" for one in wanted) + "`"


def missing_module(error: ModuleNotFoundError) -> GenampError | None:
    """Return the one line for a module that an extra brings; None if no extra does."""
    module = (error.name or "").partition(".")[0]
    name = _PACKAGES.get(module, module).replace("_", "-").lower()
    for extra, requirements in extras().items():
        for one in requirements:
            if re.split("[^\\w-]", one.lower())[0] == name:
                hint = install_hint(extra, one)
                return GenampError(
                    f"`{module}` is not installed, the extra `{extra}` needs it; {hint}"
                )
    return None


def project_root(start: Path | None = None) -> Path:
    """Return the folder that holds `book`, `notebooks` and `data`.

    Args:
        start: Folder from which to look upwards; the working folder when None. When nothing is
            found there, the checkout that this package was installed from is used.

    Raises:
        GenampError: There is no project above `start` nor around the package.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents, Path(__file__).resolve().parents[1]):
        if (folder / "notebooks").is_dir() and (folder / "book").is_dir():
            return folder
    raise GenampError(
        f"project folder: no folder with `book` and `notebooks` at or above {start}; "
        "change into a clone of the project"
    )


@contextmanager
def replace_file(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block succeeds.

    A reader sees the old file or the whole new one, also after a kill; on an exception the
    temporary file is removed and `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix, delete=False
    ) as handle:
        temporary = Path(handle.name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_folder(new: Path, target: Path) -> None:
    """Put the folder `new` in the place of `target`; call `recover_folder` before reading it.

    Two renames: a kill between them leaves the previous folder beside `target`.
    """
    previous = _previous(target)
    recover_folder(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        os.replace(target, previous)
    os.replace(new, target)
    shutil.rmtree(previous, ignore_errors=True)


def recover_folder(target: Path) -> None:
    """Finish what a killed `replace_folder` left: `target` is whole afterwards, or absent."""
    previous = _previous(target)
    if previous.exists() and not target.exists():
        os.replace(previous, target)
    shutil.rmtree(previous, ignore_errors=True)


def _previous(target: Path) -> Path:
    return target.with_name(f".{target.name}.previous")


def write_json(path: Path | str, content: Any) -> None:
    """Write `content` as indented JSON, atomically. NaN is refused, infinity too."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """Read a JSON file; a damaged one is a `GenampError` that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise GenampError(f"{path}: must be JSON, got {error}; remove the file") from error


def sha256_of_file(path: Path | str) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_of_text(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8 as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
