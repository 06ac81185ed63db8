"""Sphinx extension of the site: a role for numbers, directives for tables and the API, page layout.

    {result}`name` or {result}`chapter/name`      a number of results.json
    :::{genamp} scoreboard                        or a block that site.py makes
    :::{genamp-api} genamp_lib.amplification      its public names, or those of a module

The first two set what `site.stage_sources` computed; a name that it does not know ends the build.
Every page gets a narrow form of its wide tables, figures that open in full size, and terms that
explain themselves; every chapter shows the figure of its first finding beneath the findings.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors.toctree import TocTreeCollector
from sphinx.util.docutils import SphinxDirective, SphinxRole

import genamp_lib
from genamp_lib._project import GenampError, read_json
from genamp_lib.book.catalog import choices
from genamp_lib.book.site import COMPUTED, result_tag

WIDE = 6  # columns of a table that a phone shows as a list
# What docutils, Sphinx and the theme write, and what a screen reader can make sense of.
MENDS = {
    '<summary><span class="toctree-toggle"': '<summary aria-label="Pages of this part">'
    '<span class="toctree-toggle"',
    "<dl>\n<dd>": '<dl role="presentation">\n<dd>',
    'role="doc-biblioentry"': 'role="listitem"',
}


class ResultRole(SphinxRole):
    """A number with its interval; the site's tests hold it against results.json."""

    def run(self) -> tuple[list[nodes.Node], list]:
        """Return the number's nodes."""
        page = _page(self.env.docname)
        chapter, _, name = self.text.rpartition("/")
        chapter = chapter or page
        results = _known(self.env.app.genamp["results"], chapter, f"{page}: quotes the chapter")
        if results is None:
            return [nodes.Text("(not run)")], []
        if name not in results and chapter in self.env.app.genamp["changed"]:
            return [nodes.Text("(not computed with these parameters)")], []
        text, meaning = _known(results, name, f"{page}: quotes the result", self.text)
        begin = result_tag(chapter, name, meaning)
        return [raw(begin), nodes.Text(text), raw("</span>")], []


class ComputedDirective(SphinxDirective):
    """A table or a banner that the staging of the site made."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the block as HTML; nothing where it is empty."""
        page, blocks = _page(self.env.docname), self.env.app.genamp["blocks"]
        here = blocks[""] | blocks.get(page, {})
        block = _known(here, self.arguments[0], f"{page}: asks for the block")
        if isinstance(block, list):  # lines of MyST
            return _parsed(self, block)
        return [raw(block)] if block else []


class ApiDirective(SphinxDirective):
    """The names that `genamp_lib` passes on from a package, or those that a module defines."""

    required_arguments = 1
    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Return what autodoc makes of the names."""
        module, *chosen = " ".join(self.arguments).split()
        names = [name for name, where in genamp_lib._PUBLIC.items() if where == module]
        lines = ["```{eval-rst}"]
        if not names:
            lines.append(f".. automodule:: {module}")
            found = vars(import_module(module)).items()
            names = chosen or [name for name, one in found if _defined_in(module, name, one)]
        module = module if module not in genamp_lib._PUBLIC.values() else "genamp_lib"
        documented = {name: getattr(import_module(module), name) for name in names}
        # Functions first: what they return follows.
        for name, one in sorted(documented.items(), key=lambda item: inspect.isclass(item[1])):
            if inspect.isclass(one):
                lines += [f".. autoclass:: {module}.{name}", "   :members:"]
                if module == "genamp_lib" and one.__base__ is not object:
                    lines.append("   :inherited-members:")  # the base is private
            else:
                lines.append(f".. autofunction:: {module}.{name}")
        return _parsed(self, [*lines, "```"])


def _defined_in(module: str, name: str, one: Any) -> bool:
    is_documented = inspect.isclass(one) or inspect.isfunction(one)
    return is_documented and one.__module__ == module and not name.startswith("_")


def narrow_wide_tables(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Repeat each column's head in its cells: what a phone shows in place of many columns."""
    for table in doctree.findall(nodes.table):
        head, *body = table.findall(nodes.row)
        if len(head) < WIDE:
            continue
        table["classes"].append("genamp-wide")
        for row in body:
            for cell, label in zip(row[1:], head[1:], strict=False):
                copies = [child.deepcopy() for child in label]
                cell.insert(0, nodes.container("", *copies, classes=["genamp-label"]))


def enlarge_figures(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Link every figure to its file; Sphinx does so with images that have a scale."""
    for figure in doctree.findall(nodes.figure):
        for image in figure.findall(nodes.image):
            image["scale"] = 100


def show_first_figure(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Show the first figure that the findings of a chapter name beneath them, if it comes later."""
    box = next((x for x in doctree.findall(nodes.admonition) if "tip" in x["classes"]), None)
    if box is None:
        return
    figures = {name: figure for figure in doctree.findall(nodes.figure) for name in figure["ids"]}
    links = [link for link in box.findall(nodes.reference) if link.get("refid") in figures]
    figure = figures[links[0]["refid"]] if links else None
    if figure is None or _section(figure) is box.parent:  # no heading between
        return
    picture = next(figure.findall(nodes.image)).deepcopy()
    picture["alt"] = f"The picture of {links[0].astext()}, which is described there."
    target = nodes.reference("", "", picture, refid=links[0]["refid"], internal=True)
    text = [links[0].deepcopy(), nodes.Text(": "), *_first_sentence(figure)]
    caption = nodes.inline("", "", *text)
    parts = raw('<figure class="genamp-first">'), target, raw("<figcaption>"), caption
    box.parent.insert(box.parent.index(box) + 1, [*parts, raw("</figcaption></figure>")])


def _section(node: nodes.Node) -> nodes.Node:
    """Return the innermost section that a node is in."""
    return node if isinstance(node, nodes.section) else _section(node.parent)


def _first_sentence(figure: nodes.figure) -> list[nodes.Node]:
    """Return the part of a figure's caption that says what to see."""
    found: list[nodes.Node] = []
    for child in next(figure.findall(nodes.caption)):
        sentence = re.split(r"(?<=\.)\s", child.astext(), maxsplit=1)[0]
        if isinstance(child, nodes.Text) and sentence.endswith("."):
            return [*found, nodes.Text(sentence)]
        found.append(child.deepcopy())
    return found


def explain_terms(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Give links to the glossary what it says of the term, to be read by pointing at them."""
    links = [x for x in doctree.findall(nodes.reference) if "#term-" in x.get("refuri", "")]
    if not links:
        return
    meanings = {
        name: re.sub(r"\\text{(\w+)}", r"\1", item[-1].astext()).replace("\n", " ")
        for item in app.env.get_doctree("glossary").findall(nodes.definition_list_item)
        for term in item.findall(nodes.term)
        for name in term["ids"]
    }
    for link in links:
        link["reftitle"] = meanings[link["refuri"].partition("#")[2]]


def mend_pages(app: Sphinx, problem: Exception | None) -> None:
    """Correct what the parts of all written pages are to a screen reader."""
    if problem or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for old, new in MENDS.items():
            text = text.replace(old, new)
        page.write_text(text, encoding="utf-8")


def _parsed(directive: SphinxDirective, lines: list[str]) -> list[nodes.Node]:
    node = nodes.Element()
    directive.state.nested_parse(StringList(lines), directive.content_offset, node)
    return node.children


def number_by_file_name(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Number the pages of numbered parts by their file names: 08_name is chapter 8.

    Sphinx has counted them; where a chapter is not there yet, its number stays free. Other pages of
    such a part lose their number. Figures and tables are then counted anew, by chapter.
    """
    for document, numbers in env.toc_secnumbers.items():
        digits = _page(document)[:2]
        number = (int(digits),) if digits.isdigit() else None
        env.toc_secnumbers[document] = dict.fromkeys(numbers) | {"": number}
        titles = [env.titles[document], *env.tocs[document].findall(nodes.reference)]
        for title in titles[:2]:  # of the page itself, and in the table of contents
            title["secnumber"] = number
    return TocTreeCollector.assign_figure_numbers(None, env)


def raw(text: str) -> nodes.raw:
    """Return a node that is nothing but HTML."""
    return nodes.raw("", text, format="html")


def _page(document: str) -> str:
    return document.rpartition("/")[2]


def _known(found: dict[str, Any], name: str, what: str, shown: str = "") -> Any:
    if name not in found:
        raise GenampError(f"{what} `{shown or name}`; {choices(name, found)}")
    return found[name]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the role, the directives and what is done to every page."""
    app.genamp = read_json(f"{app.srcdir}/{COMPUTED}")
    app.connect("env-get-updated", number_by_file_name, priority=900)  # after Sphinx
    app.add_role("result", ResultRole())
    app.add_directive("genamp", ComputedDirective)
    app.add_directive("genamp-api", ApiDirective)
    for change in (narrow_wide_tables, show_first_figure, enlarge_figures, explain_terms):
        app.connect("doctree-resolved", change)
    app.connect("build-finished", mend_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
