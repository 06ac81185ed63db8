"""The built site as a reader meets it, in a real browser; and the checks on damaged copies."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import unicodedata
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import site_checks as checks
import yaml
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page
from pypdf import PageObject, PdfReader
from site_checks import served
from tests_support import ROOT

from genamp_lib import _PUBLIC as PUBLIC
from genamp_lib.book.catalog import load_chapters
from genamp_lib.book.overview import paper_figures
from genamp_lib.book.paper import print_book
from genamp_lib.book.scoreboard import load_paper_numbers
from genamp_lib.plotting import verdict_explorer, weight_explorer

RUNS = ROOT / "_build" / "runs" / "default"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.md"))

EXPLORER_STATE = """() => ({
  text: document.querySelector(".genamp-explorer-values").textContent,
  curves: [...document.querySelectorAll(".genamp-explorer-plot path.js-line")]
            .map(path => path.getAttribute("d")).join(" ")
})"""


def test_every_page_loads_cleanly_and_from_this_machine_only(
    site: Path, address: str, browser: Browser
) -> None:
    problems = []
    for path in checks.pages_of(site):
        problems += checks.problems_in_browser(browser, address, path)
    assert not problems, "\n".join(problems)


def test_links_numbers_and_figures(site: Path) -> None:
    problems = []
    for path in checks.pages_of(site):
        problems += checks.problems_of_links(site, path)
        problems += checks.problems_of_numbers(site, path, RUNS)
    for notebook in NOTEBOOKS:
        problems += checks.problems_of_figures(site, notebook)
    assert not problems, "\n".join(problems)


def test_every_chapter_quotes_numbers_and_shows_figures(site: Path) -> None:
    for notebook in NOTEBOOKS:
        soup = checks._soup(site / "chapters" / f"{notebook.stem}.html")
        assert len(soup.select("article .genamp-result")) > 5
        assert len(soup.select("article figure")) > 2
        assert soup.find(id="provenance")


def test_every_chapter_folds_its_parameters_explains_terms_and_opens_figures(site: Path) -> None:
    for notebook in NOTEBOOKS:
        soup = checks._soup(site / "chapters" / f"{notebook.stem}.html")
        assert "Parameters" in soup.select_one(".tag_parameters details summary").text
        terms = soup.select("article a[href*='glossary.html#term-']")
        assert terms
        assert all(len(term["title"]) > 20 for term in terms)
        for image in soup.select("article figure:not(.genamp-first) img"):
            assert image.parent["href"] == image["src"]


def test_many_artefacts_are_folded_away(site: Path) -> None:
    soup = checks._soup(site / "chapters" / "11_top_pair_generators.html")
    folded = soup.select_one(".genamp-provenance details")
    counts = dict(re.findall(r"([a-z-]+): (\d+)", folded.summary.text))
    assert {"top-pair-generator", "top-pair-quality"} <= set(counts)
    for stage, number in counts.items():
        assert len(re.findall(f"{stage}-[0-9a-f]{{16}} ", folded.text)) == int(number)
    soup = checks._soup(site / "chapters" / "data_jets.html")
    assert soup.select_one(".genamp-provenance")
    assert not soup.select_one(".genamp-provenance details")


def damaged(site: Path, folder: Path, path: str, change: Callable[[BeautifulSoup], None]) -> Path:
    """Return a copy of the site in which one page was changed by hand."""
    shutil.copytree(site, folder / "site")
    page = folder / "site" / path
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    change(soup)
    page.write_text(str(soup), encoding="utf-8")
    return folder / "site"


def test_the_checks_see_a_removed_figure(site: Path, tmp_path: Path) -> None:
    notebook = NOTEBOOKS[0]
    path = f"chapters/{notebook.stem}.html"
    copy = damaged(site, tmp_path, path, lambda soup: soup.select_one("figure[id]").decompose())
    assert "is not shown" in checks.problems_of_figures(copy, notebook)[0]


def test_the_checks_see_an_edited_number(site: Path, tmp_path: Path) -> None:
    def edit(soup: BeautifulSoup) -> None:
        soup.select_one(".genamp-result").string = "71.000"

    path = f"chapters/{NOTEBOOKS[0].stem}.html"
    copy = damaged(site, tmp_path, path, edit)
    assert "the page says 71.000" in checks.problems_of_numbers(copy, path, RUNS)[0]


def test_the_checks_see_an_external_script(site: Path, tmp_path: Path, browser: Browser) -> None:
    def add(soup: BeautifulSoup) -> None:
        soup.head.append(soup.new_tag("script", src="https://example.invalid/x.js"))

    copy = damaged(site, tmp_path, "index.html", add)
    assert "loads from elsewhere" in checks.problems_of_links(copy, "index.html")[0]
    with served(copy) as address:
        problems = checks.problems_in_browser(browser, address, "index.html")
    assert any("external request" in problem for problem in problems)


def test_search_finds_a_word(address: str, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{address}/search.html?q=amplification")
    page.wait_for_selector("#search-results li")
    assert page.locator("#search-results li").count() >= 3
    page.close()


def test_the_explorer_follows_its_sliders(address: str, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{address}/chapters/01_gaussian_1d.html")
    checks.scroll_through(page)
    explorer = page.locator(".genamp-explorer")
    explorer.evaluate("element => element.scrollIntoView({behavior: 'instant'})")
    page.wait_for_selector(".genamp-explorer-plot .scatterlayer path.js-line")
    for parameter in ("lower", "upper", "n_train"):
        before = explorer_state(page)
        slider = explorer.locator(f"input[data-parameter='{parameter}']")
        slider.focus()
        slider.press("ArrowRight")
        page.wait_for_function(
            f"before => {{ const now = ({EXPLORER_STATE})(); "
            "return now.text !== before.text && now.curves !== before.curves; }",
            arg=before,
            timeout=10_000,
        )
    page.close()


def explorer_state(page: Page) -> dict:
    return page.evaluate(EXPLORER_STATE)


def test_the_cut_explorer_counts_and_draws_what_is_selected(browser: Browser) -> None:
    # Truth has one event at each weight, generated none at the largest.
    truth, generated = [0.6, 1.5, 3.0, 6.0], [0.6, 1.5, 3.0, 3.0]
    mass = {3.0: 0.2, 6.0: 0.9}
    values = [[mass.get(w, 0.5) for w in one] for one in (truth, generated)]
    case = (truth, generated), values, [0.0, 0.4, 0.8, 1.0]
    edges = [0.5, 1.0, 2.0, 4.0, 8.0]
    html = weight_explorer({"mass": case, "mass again": case}, weight_edges=edges, start=(4, 8))
    page = browser.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.set_content(f"<html lang='en'><title>-</title><article>{html.data}</article>")
    numbers = page.locator(".genamp-explorer-values")
    picture = page.locator("svg[data-observable]")
    assert "1 truth and 0 generated, truth / generated = ∞" in numbers.text_content()
    before = picture.inner_html()
    lower, upper = (page.locator(f"input[data-parameter='{name}']") for name in ("lower", "upper"))
    lower.press("ArrowLeft")
    assert "2 truth and 2 generated, truth / generated = 1 ± 1" in numbers.text_content()
    assert lower.get_attribute("aria-valuetext") == "2"
    assert picture.inner_html() != before
    upper.press("Home")  # may not pass the lower edge
    assert "1 truth and 2 generated, truth / generated = 0.5 ± 0.6" in numbers.text_content()
    assert "most truth at 0.2 and most generated at 0.2" in picture.get_attribute("aria-label")
    weights = page.locator("svg[data-weights]")
    box = weights.bounding_box()
    # From the lower edge, in the middle of the axis, to its left end.
    place = (58 + 0.5 * (360 - 58 - 14)) / 360
    page.mouse.move(box["x"] + place * box["width"], box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 1, box["y"] + box["height"] / 2)
    page.mouse.up()
    assert "3 truth and 4 generated" in numbers.text_content()
    page.locator("select").select_option("mass again")
    assert "mass again" in picture.text_content()
    problems += checks.problems_of_fit(page) + checks.problems_of_access(page)
    page.close()
    assert not problems, "\n".join(problems)


def test_the_verdict_explorer_shows_what_a_holdout_can_show(browser: Browser) -> None:
    start = {"n_train": 1000, "n_holdout": 1000, "amplification": 50}
    html = verdict_explorer(start=start).data
    document = f"<html lang='en'><title>-</title><article>{html}</article>"
    page = browser.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.set_content(document)
    numbers = page.locator(".genamp-explorer-values")
    sliders = {name: page.locator(f"input[data-parameter='{name}']") for name in start}
    over_size, over_g = page.locator("svg").all()
    assert "“amplifies” in 0\N{NO-BREAK SPACE}% of all studies" in numbers.text_content()
    assert "over the true amplification: “amplifies” in half of all studies nowhere" in (
        over_g.get_attribute("aria-label")
    )
    before = over_g.inner_html()
    sliders["n_holdout"].press("End")
    assert over_g.inner_html() != before
    assert "10,000 holdout events per training event" in numbers.text_content()
    assert "“amplifies” in 100\N{NO-BREAK SPACE}%" in numbers.text_content()
    sliders["amplification"].press("Home")
    assert "“does not amplify” in 100\N{NO-BREAK SPACE}%" in numbers.text_content()
    sliders["amplification"].press("End")
    assert sliders["amplification"].get_attribute("aria-valuetext") == "∞"
    box = over_size.bounding_box()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 1, box["y"] + box["height"] / 2)
    page.mouse.up()
    assert "0.1 holdout events per training event" in numbers.text_content()
    assert "“undecided” in 100\N{NO-BREAK SPACE}%" in numbers.text_content()
    sliders["n_train"].press("Home")
    assert "1 holdout events per training event" in numbers.text_content()
    problems += checks.problems_of_fit(page) + checks.problems_of_access(page)
    page.close()
    assert not problems, "\n".join(problems)
    plain = browser.new_context(java_script_enabled=False).new_page()
    plain.set_content(document)
    still = plain.locator("noscript img")
    assert "true G = 50" in still.get_attribute("alt")
    assert still.bounding_box()["height"] > 100
    assert "“undecided” in 100\N{NO-BREAK SPACE}%" in plain.locator("p").first.text_content()
    plain.context.close()


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_figures_are_readable_in_light_and_dark(address: str, browser: Browser, mode: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 1400}, reduced_motion="reduce")
    page.add_init_script(
        f"localStorage.setItem('mode', '{mode}'); localStorage.setItem('theme', '{mode}')"
    )
    for notebook in NOTEBOOKS:
        page.goto(f"{address}/chapters/{notebook.stem}.html")
        checks.scroll_through(page)
        for figure in page.locator("article figure:not(.genamp-first) img").all():
            figure.evaluate("image => image.scrollIntoView({block: 'center', behavior: 'instant'})")
            box = figure.bounding_box()
            background, ink = lightness(page.screenshot(clip=box))
            name = figure.get_attribute("alt")
            if mode == "light":
                assert background > 0.8, name
                assert ink < 0.3, name
            else:
                assert background < 0.25, name
                assert ink > 0.7, name
    page.close()


def lightness(picture: bytes) -> tuple[float, float]:
    """Return the lightness of a picture's background, its corners, and of its strongest ink."""
    grey = matplotlib.image.imread(BytesIO(picture))[..., :3].mean(axis=-1)
    corners = np.concatenate([grey[:4, :4].ravel(), grey[-4:, -4:].ravel()])
    background = float(np.median(corners))
    distances = np.abs(grey - background).ravel()
    strongest = np.argsort(distances)[-max(20, grey.size // 1000) :]
    return background, float(np.median(grey.ravel()[strongest]))


def test_nothing_is_cut_on_a_screen_a_phone_and_paper(
    site: Path, address: str, browser: Browser
) -> None:
    problems = []
    for path in checks.pages_of(site):
        # A page of its own: figures drawn for paper keep its width.
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{address}/{path}")
        checks.scroll_through(page)
        problems += checks.problems_of_fit(page)
        page.close()
    assert not problems, "\n".join(problems)


def plain_text(*pages: PageObject) -> str:
    """Return the text of pages with single blanks and without ligatures."""
    text = " ".join(page.extract_text() for page in pages)
    return " ".join(unicodedata.normalize("NFKC", text).split())


def test_the_whole_book_on_paper(site: Path, browser: Browser, tmp_path: Path) -> None:
    print_book(ROOT, "default", tmp_path / "book.pdf")
    book = PdfReader(tmp_path / "book.pdf", strict=True)
    starts = {}
    for entry in itertools.chain(*(part for part in book.outline if isinstance(part, list))):
        starts[" ".join(entry.title.split())] = book.get_destination_page_number(entry)
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    assert len(starts) >= sum(len(part["chapters"]) for part in toc["parts"])
    assert list(starts.values()) == sorted(starts.values())
    assert len(book.pages) > 5 * len(NOTEBOOKS)
    contents = plain_text(*book.pages[: book.page_labels.index("1")])
    for title, number in starts.items():
        assert f"{title} {book.page_labels[number]}" in contents
        assert title in plain_text(book.pages[number])
    for page in book.pages:
        assert not [x for x in page.get("/Annots", []) if "file:" in str(x.get_object())]
        places: list[float] = []

        def place(text, cm, tm, *_, places=places) -> None:
            if text.strip():  # empty pieces keep the place of what was before
                places.append(cm[4] + cm[0] * tm[4] + cm[2] * tm[5])

        page.extract_text(visitor_text=place)
        assert max(places, default=0.0) < page.mediabox.right


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_pages_are_accessible(site: Path, address: str, browser: Browser, mode: str) -> None:
    page = browser.new_page(reduced_motion="reduce")
    page.add_init_script(
        f"localStorage.setItem('mode', '{mode}'); localStorage.setItem('theme', '{mode}')"
    )
    problems = []
    for path in checks.pages_of(site):
        page.goto(f"{address}/{path}")
        checks.scroll_through(page)
        problems += checks.problems_of_access(page)
    page.close()
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ("<table><td style='white-space: nowrap'>" + 60 * "wide " + "</table>", "TABLE is"),
        (
            "<div style='overflow-x: auto'><table><td style='white-space: nowrap'>"
            + 60 * "wide "
            + "</table></div>",
            "TABLE is",
        ),
        ("<pre style='overflow: auto'>" + 60 * "wide " + "</pre>", "PRE is"),
        ("<figure><img alt='a plot' style='width: 2000px; height: 9px'></figure>", "IMG is"),
        ("<pre style='white-space: pre-wrap'>" + 60 * "wide " + "</pre>", None),
    ],
)
def test_the_checks_see_what_is_cut(browser: Browser, html: str, problem: str | None) -> None:
    page = browser.new_page()
    page.set_content(f"<main style='overflow: hidden'><article>{html}</article></main>")
    found = checks.problems_of_fit(page)
    page.close()
    assert len(found) >= 3 if problem else not found
    assert all(problem in one or "page is" in one for one in found)


def test_the_checks_see_what_is_not_accessible(browser: Browser) -> None:
    page = browser.new_page()
    formula = "<mjx-container tabindex='0'>G</mjx-container>"
    page.set_content(
        f"<article><img src='data:,'><p style='color: #ddd'>Pale</p>{formula}</article>"
    )
    found = " ".join(checks.problems_of_access(page))
    page.close()
    assert all(word in found for word in ("image-alt", "color-contrast", "1 formulas"))


def test_smoke_pages_carry_a_banner_and_published_ones_do_not(site: Path, smoke_site: Path) -> None:
    for path in ["index.html", *(f"chapters/{notebook.stem}.html" for notebook in NOTEBOOKS)]:
        assert checks._soup(smoke_site / path).select(".genamp-banner"), path
        assert not checks._soup(site / path).select(".genamp-banner"), path


def test_downloads_are_the_run_and_its_source(site: Path) -> None:
    for notebook in NOTEBOOKS:
        soup = checks._soup(site / "chapters" / f"{notebook.stem}.html")
        links = {Path(a["href"]).suffix: a["href"] for a in soup.select("a.download")}
        first, *cells = json.loads((site / "chapters" / links[".ipynb"]).read_text())["cells"]
        assert "prepare(repository)" in "".join(first["source"])
        run = json.loads((RUNS / notebook.stem / "notebook.ipynb").read_text())
        assert cells == run["cells"]
        assert all(cell["execution_count"] for cell in cells if cell["cell_type"] == "code")
        assert (site / "chapters" / links[".md"]).exists()


def test_the_scoreboard_shows_every_number_of_the_papers(site: Path) -> None:
    rows = checks._soup(site / "scoreboard.html").select("tr[data-id]")
    numbers = load_paper_numbers(ROOT)
    assert [row["data-id"] for row in rows] == [number.id for number in numbers]
    for row, number in zip(rows, numbers, strict=True):
        assert number.text in row.get_text()


def test_the_front_page_shows_findings_picture_chapters_and_coverage(
    site: Path, smoke_site: Path
) -> None:
    for pages in (site, smoke_site):
        soup = checks._soup(pages / "index.html")
        picture = soup.select_one("article figure img")
        assert len(picture["alt"]) > 100
        assert (pages / picture["src"]).exists()
        assert len(soup.select(".sd-card")) == len(NOTEBOOKS)
        for card, notebook in zip(soup.select(".sd-card"), NOTEBOOKS, strict=True):
            assert card.text.split()[0] == str(int(notebook.stem[:2]))
            assert card.find("strong")
            assert card.select_one(f"a[href^='chapters/{notebook.stem}.html']")
        found = paper_figures(ROOT, load_chapters(ROOT))
        whole = sum(not one.missing for one in found)
        said = soup.select_one(".genamp-figures strong").text
        assert said == f"{whole} of the papers' {len(found)} figures"
        linked = [a.text for a in soup.select(".genamp-figures a")]
        assert linked == [str(one.number) for one in found if one.places]


def test_findings_and_picture_fit_one_screen(address: str, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{address}/index.html")
    for part in ("article figure img", "article .sd-col ul"):
        box = page.locator(part).first.bounding_box()
        assert box["y"] + box["height"] <= 900, part
    for notebook in NOTEBOOKS:  # of a chapter, one screen and a half
        page.goto(f"{address}/chapters/{notebook.stem}.html")
        box = page.locator("article figure img").first.bounding_box()
        assert box["y"] + box["height"] / 2 <= 1350, notebook.stem
    page.close()


def test_the_first_finding_has_its_picture_with_what_to_see(site: Path) -> None:
    soup = checks._soup(site / "chapters" / "01_gaussian_1d.html")
    first = soup.select_one(".admonition + figure.genamp-first")
    figure = soup.find(id=first.a["href"].removeprefix("#"))
    assert figure.img["src"] == first.img["src"]
    number, _, sentence = first.figcaption.text.partition(": ")
    assert figure.select_one(".caption-number").text.strip() == number == "Fig. 1.1"
    assert figure.select_one(".caption-text").text.startswith(sentence)
    assert sentence.endswith(".")


def test_chapters_and_their_figures_have_the_number_of_the_file(site: Path) -> None:
    menu = checks._soup(site / "scoreboard.html").select_one("nav.bd-links").text
    for notebook in NOTEBOOKS:
        number = int(notebook.stem[:2])
        soup = checks._soup(site / "chapters" / f"{notebook.stem}.html")
        title = soup.select_one("article h1")
        assert title.select_one(".section-number").text == f"{number}. "
        assert not soup.select("article h2 .section-number")
        assert title.text.removesuffix("#").strip() in menu
        captions = [caption.text for caption in soup.select("article figure .caption-number")]
        expected = [f"Fig. {number}.{count} " for count in range(1, len(captions) + 1)]
        assert captions == expected


def test_the_dot_plot_has_a_row_for_every_number(site: Path) -> None:
    soup = checks._soup(site / "scoreboard.html")
    drawn = [row.a["href"] for row in soup.select(".genamp-dot") if row.a]
    numbers = [n for n in load_paper_numbers(ROOT) if n.value is not None or n.source == "printed"]
    assert sorted(drawn) == sorted(f"#{number.id}" for number in numbers)
    for row in soup.select(".genamp-dot:has(a)"):
        verdict = soup.find(id=row.a["href"][1:]).select_one(".genamp-verdict").text
        assert f"genamp-{verdict.replace(' ', '-')}" in row["class"]
        assert row.select_one("[role=img]")["aria-label"].endswith(verdict)


def test_every_public_name_is_on_the_page_of_its_package(site: Path) -> None:
    for name, module in PUBLIC.items():
        page = site / "api" / f"{module.rpartition('.')[2]}.html"
        assert f'id="genamp_lib.{name}"' in page.read_text(encoding="utf-8"), name
