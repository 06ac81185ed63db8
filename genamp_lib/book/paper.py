"""The built site on paper: one page, or all as a book. Printed by Chromium with book.css."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment

from genamp_lib._project import GenampError, replace_file
from genamp_lib.book.site import site_folder

if TYPE_CHECKING:
    from pypdf import PageObject, PdfWriter

BROWSERS = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)


def print_chapter(root: Path, preset: str, name: str, target: Path) -> None:
    """Print a chapter's page of the site to `target`.

    Raises:
        GenampError: There is no page to print, or no browser that could.
    """
    with replace_file(target) as temporary:
        _print(_page(root, preset, f"chapters/{name}"), temporary)


def print_book(
    root: Path, preset: str, target: Path, *, printed: Callable[[str], None] = lambda title: None
) -> None:
    """Print all pages of the site to `target`: one table of contents, one count of pages.

    Args:
        root: Folder of the project, whose book/_toc.yml has the order of the pages.
        preset: Preset of the site.
        target: PDF file to be written.
        printed: Function that is told the title of each page once it is printed.

    Raises:
        GenampError: A page is not there, or there is no browser that could print it.
    """
    toc = yaml.safe_load((root / "book" / "_toc.yml").read_text(encoding="utf-8"))
    parts = [("", [toc["root"]])]
    parts += [(part.get("caption", ""), list(_files(part["chapters"]))) for part in toc["parts"]]
    pages = {name: _page(root, preset, name) for _, names in parts for name in names}
    titles = {name: _title(page) for name, page in pages.items()}
    from pypdf import PdfReader, PdfWriter  # not needed for a chapter

    writer, starts, readers = PdfWriter(), {}, {}
    with TemporaryDirectory() as folder:
        for name, page in pages.items():
            path = Path(folder) / f"{len(readers)}.pdf"
            _print(page, path)
            starts[name] = 1 + sum(len(reader.pages) for reader in readers.values())
            readers[name] = PdfReader(path)
            printed(titles[name])
        contents = [
            (caption, [(titles[name], pages[name].as_uri(), starts[name]) for name in names])
            for caption, names in parts
        ]
        title = titles[toc["root"]]
        before = _sheets(Path(folder) / "contents.html", title=title, parts=contents)
        origins = [(name, page) for name, reader in readers.items() for page in reader.pages]
        n_before, n_pages = len(before), len(origins)
        numbers = _sheets(Path(folder) / "numbers.html", title=title, n=n_pages)
        origins = [*(("", page) for page in before), *origins]
        for _, page in origins:
            writer.add_page(page)
        for page, number in zip(writer.pages[n_before:], numbers, strict=True):
            page.merge_page(number)
            page.compress_content_streams()
        for caption, names in parts:
            first = n_before - 1 + starts[names[0]]
            above = caption and writer.add_outline_item(title=caption, page_number=first)
            for name in names:
                number = n_before - 1 + starts[name]
                writer.add_outline_item(
                    title=titles[name], page_number=number, parent=above or None
                )
        for style, start, n in (("/r", 0, n_before), ("/D", n_before, n_pages)):
            writer.set_page_label(page_index_from=start, page_index_to=start + n - 1, style=style)
        places = {}
        for name, reader in readers.items():
            first, uri = n_before - 1 + starts[name], pages[name].as_uri()
            places[uri] = (first, None)
            for label, place in reader.named_destinations.items():
                number = first + reader.get_destination_page_number(place)
                places[f"{uri}#{label.removeprefix('/')}"] = (number, place.top)
        for (name, _), page in zip(origins, writer.pages, strict=True):
            _link(writer, page, pages[name].as_uri() if name else "", places)
        with replace_file(target) as temporary:
            writer.write(temporary)


def _sheets(path: Path, **fields: Any) -> list[PageObject]:
    """Return the pages before the first one, or sheets with nothing but a number."""
    from pypdf import PdfReader

    template = Path(__file__).with_name("paper.html").read_text(encoding="utf-8")
    text = Environment(autoescape=True).from_string(template).render(fields)
    path.write_text(text, encoding="utf-8")
    _print(path, path.with_suffix(".pdf"))
    return list(PdfReader(path.with_suffix(".pdf")).pages)


def _link(
    writer: PdfWriter, page: PageObject, uri: str, places: dict[str, tuple[int, Any]]
) -> None:
    """Let the links of a page lead to pages of the same file; drop those to other files."""
    from pypdf.generic import ArrayObject, NameObject, NullObject, NumberObject

    kept = ArrayObject()
    for reference in page.get("/Annots", ()):
        link = reference.get_object()
        goal = link.get("/A", {}).get("/URI") or f"{uri}#{str(link.get('/Dest')).removeprefix('/')}"
        number, top = places.get(goal) or places.get(goal.partition("#")[0], (None, None))
        if number is not None:
            link.pop("/A", None)
            where = [NumberObject(0), top or NumberObject(10_000), NullObject()]
            goal_page = writer.pages[number].indirect_reference
            link[NameObject("/Dest")] = ArrayObject([goal_page, NameObject("/XYZ"), *where])
        elif goal.startswith("file:"):
            continue
        kept.append(reference)
    page[NameObject("/Annots")] = kept


def _files(entries: list[dict[str, Any]]) -> Iterator[str]:
    for entry in entries:
        yield entry["file"]
        yield from _files(entry.get("sections", []))


def _title(page: Path) -> str:
    """Return the title of a page, with its number if it has one."""
    text = page.read_text(encoding="utf-8")
    heading = re.search(r"<article.*?<h1[^>]*>(.*?)</h1>", text, re.DOTALL)[1]
    return unescape(re.sub(r"<a class=\"headerlink.*?</a>|<[^>]*>", "", heading)).strip()


def _page(root: Path, preset: str, name: str) -> Path:
    page = (site_folder(root, preset) / f"{name}.html").resolve()
    if not page.is_file():
        build = f"genamp build --preset {preset}"
        raise GenampError(f"{page}: there is no page to print; run `{build}` first")
    return page


def _print(page: Path, target: Path) -> None:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise GenampError(
            f"no Chromium or Chrome on the PATH; install one, as with `apt install chromium`, or "
            f"print {page} from another browser"
        )
    # Root may not use the sandbox; the page is our own. #print: draw what waits to be scrolled to.
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    command += ["--window-size=720,900", "--virtual-time-budget=20000"]
    command += [f"--print-to-pdf={target}", f"{page.as_uri()}#print"]
    done = subprocess.run(command, capture_output=True, text=True)
    if not (target.is_file() and target.read_bytes().startswith(b"%PDF")):
        why = " ".join(done.stderr.split()[-30:])
        raise GenampError(f"{browser} printed nothing: {why}; print {page} by hand")
