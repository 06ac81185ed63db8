"""What must hold of every page, as functions that list what does not.

Used on the site, where they must list nothing, and on damaged copies, where they must.
"""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import jupytext
from axe_playwright_python.base import AXE_SCRIPT
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page

from genamp_lib.book.results import read_results


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """A file server that does not write to the terminal."""

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine and yield its address."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def pages_of(site: Path) -> list[str]:
    """Return the paths of all pages that a reader can reach."""
    left_out = ("genindex.html", "search.html", "py-modindex.html")
    paths = (path.relative_to(site).as_posix() for path in sorted(site.rglob("*.html")))
    return [path for path in paths if not path.startswith("_static") and path not in left_out]


def problems_in_browser(browser: Browser, address: str, path: str) -> list[str]:
    """Open a page, scroll through it, and list what went wrong in the browser."""
    problems: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 900})

    def on_request(request) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            problems.append(f"external request: {request.url}")

    page.on("request", on_request)
    page.on("requestfailed", lambda request: problems.append(f"failed load: {request.url}"))
    page.on(
        "response",
        lambda response: (
            problems.append(f"status {response.status}: {response.url}")
            if response.status >= 400
            else None
        ),
    )
    page.on(
        "console",
        lambda message: (
            problems.append(f"console: {message.text}")
            if message.type in ("error", "warning")
            else None
        ),
    )
    page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
    page.goto(f"{address}/{path}", wait_until="load")
    scroll_through(page)
    problems += page.evaluate(_PROBLEMS_OF_DOCUMENT)
    page.close()
    return [f"{path}: {problem}" for problem in dict.fromkeys(problems)]


def scroll_through(page: Page) -> None:
    """Scroll to the end, so that what loads lazily does load, and wait for the formulas."""
    height = page.evaluate("document.documentElement.scrollHeight")
    for position in range(0, height, 700):
        page.evaluate(f"window.scrollTo(0, {position})")
        page.wait_for_timeout(30)
    page.evaluate("async () => { if (window.MathJax) await MathJax.startup.promise; }")
    page.wait_for_load_state("networkidle")


_PROBLEMS_OF_DOCUMENT = r"""
() => {
  const problems = [];
  for (const math of document.querySelectorAll(".math")) {
    if (!math.querySelector("mjx-container") && !math.closest("mjx-container"))
      problems.push("formula not typeset: " + math.textContent.slice(0, 60));
    if (math.querySelector("mjx-merror"))
      problems.push("formula with an error: " + math.textContent.slice(0, 60));
  }
  for (const image of document.querySelectorAll("article img")) {
    const name = image.getAttribute("src").slice(-40);
    if (!(image.alt || "").trim() || image.alt === image.getAttribute("src"))
      problems.push("figure without alt text: " + name);
    if (image.naturalWidth === 0) problems.push("figure not loaded: " + name);
    const box = image.getBoundingClientRect();
    if (box.width < 20 || box.height < 20) problems.push("figure not visible: " + name);
  }
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 1) problems.push("page is wider than the window by " + wide);
  return problems;
}
"""


def problems_of_fit(page: Page) -> list[str]:
    """List what is cut off or has to be scrolled on a screen, on a phone and on paper."""
    problems = []
    for width, media in ((1280, "screen"), (390, "screen"), (680, "print")):
        page.emulate_media(media=media)
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function(_DRAWN_AGAIN, timeout=10_000)
        found = page.evaluate(_PROBLEMS_OF_FIT)
        problems += [f"{page.url}, {media} of {width} pixels: {problem}" for problem in found]
    return problems


# Plotly draws its figures anew a moment after the window has changed.
_DRAWN_AGAIN = """
() => [...document.querySelectorAll(".js-plotly-plot")].every(plot =>
  plot.querySelector("svg").getBoundingClientRect().width <= plot.clientWidth + 1)
"""
_PROBLEMS_OF_FIT = r"""
() => {
  const kinds = "table, figure img, svg, pre, mjx-container[display]";
  const clips = element => getComputedStyle(element).overflowX !== "visible";
  const problems = [];
  for (const element of document.querySelectorAll("article :is(" + kinds + ")")) {
    if (!element.checkVisibility()) continue;
    let room = element.parentElement;
    while (!room.matches("article") && !clips(room)) room = room.parentElement;
    const end = room.getBoundingClientRect().left + room.clientLeft + room.clientWidth;
    const beyond = element.getBoundingClientRect().right - end;
    const inside = clips(element) ? element.scrollWidth - element.clientWidth : 0;
    const over = Math.max(beyond, inside);
    if (over > 1) problems.push(`${element.tagName} is ${Math.round(over)} pixels too wide: `
      + (element.alt || element.textContent).trim().replace(/\s+/g, " ").slice(0, 60));
  }
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 1) problems.push("the page is too wide by " + wide);
  return problems;
}
"""


def problems_of_access(page: Page) -> list[str]:
    """List what keeps people from reading a page, as axe-core finds it, and formulas in the way."""
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    problems = [
        f"{page.url}: {one['id']}, {one['impact']}: {one['nodes'][0]['html'][:120]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    stops = page.locator("article mjx-container[tabindex='0']").count()
    return problems + ([f"{page.url}: {stops} formulas are tab stops"] if stops else [])


def problems_of_links(site: Path, path: str) -> list[str]:
    """List the links of a page whose target, file or anchor, does not exist in the site."""
    problems = []
    for tag, attribute in (("a", "href"), ("img", "src"), ("script", "src"), ("link", "href")):
        for element in _soup(site / path).find_all(tag, **{attribute: True}):
            link = urlsplit(element[attribute])
            if tag == "a" and link.scheme in ("http", "https", "mailto"):
                continue  # a reader may follow it; the page itself does not load it
            if link.scheme == "data" or "onclick" in element.attrs:
                continue
            if link.scheme or link.netloc:
                problems.append(f"{path}: loads from elsewhere: {element[attribute]}")
                continue
            target = (site / path).parent / unquote(link.path) if link.path else site / path
            if not target.exists():
                problems.append(f"{path}: dead link: {element[attribute]}")
            elif link.fragment and target.suffix == ".html" and link.fragment != "top":
                anchors = _anchors(target)
                if unquote(link.fragment) not in anchors:
                    problems.append(f"{path}: dead anchor: {element[attribute]}")
    return problems


def problems_of_numbers(site: Path, path: str, runs: Path) -> list[str]:
    """List the numbers of a page that are not those of the chapters' results.json."""
    problems = []
    for span in _soup(site / path).select(".genamp-result"):
        results = read_results(runs / span["data-chapter"] / "results.json")
        result = results.get(span["data-result"])
        if result is None:
            problems.append(f"{path}: quotes {span['data-result']}, which no result file holds")
        elif span.get_text() != result.text:
            problems.append(f"{path}: {result.name} is {result.text}, the page says {span.text}")
    return problems


def problems_of_figures(site: Path, notebook: Path) -> list[str]:
    """List the figures of a notebook that its page does not show."""
    path = f"chapters/{notebook.stem}.html"
    soup = _soup(site / path)
    shown = {
        figure.get("id")
        for figure in soup.find_all("figure")
        if figure.find("img") and figure.find("figcaption")
    }
    wanted = [
        cell.metadata["mystnb"]["figure"]["name"]
        for cell in jupytext.read(notebook).cells
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    return [f"{path}: figure {name} is not shown" for name in wanted if name not in shown]


def _soup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def _anchors(path: Path) -> frozenset[str]:
    return _anchors_at(path.resolve(), path.stat().st_mtime_ns)


@functools.cache  # pages link to one another hundreds of times
def _anchors_at(path: Path, changed: int) -> frozenset[str]:
    return frozenset(element["id"] for element in _soup(path).find_all(id=True))
