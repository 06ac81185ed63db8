"""How the pages read: words, words per sentence, share of crowded sentences, longest sentence.

A sentence is crowded with two or more numbers, computed ones included. Text and captions count;
code, tables, headings, formulas on lines of their own and alternative texts do not.

Usage: python benchmarks/prose.py [FILE ...], by default all notebooks and pages of the book.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CAPTION = re.compile(r"^ +caption: \|\n((?: {6,}.*\n|\n)+)", re.MULTILINE)
# "Fig. 3", "Eqs. (14) to (18)", "region 2": names, and no ends of sentences.
REFERENCE = re.compile(
    r"\b(Eqs?|Figs?|Secs?|Sections?|Chapters?|Regions?)\b\.?\s*\(?\d[\d().,]*"
    r"(\s*(,|and|to)\s*\(?\d[\d().]*)*(?<![.,])",
    re.IGNORECASE,
)
MATH_NUMBER = re.compile(r"(^|=|<|>|\\\w+ ?|\[)\s*\d")
NUMBER = re.compile(r"\d[\d.,]*(?: \d{3})*|§")


def sentences_of(page: str) -> list[str]:
    """Return the sentences of a page in MyST, with roles, formulas and code as single words.

    Args:
        page: Text of the file.

    Returns:
        The sentences in their order; "§" stands for computed numbers and formulas with one.
    """
    page = re.sub(r"\A---\n.*?^---\n", "", page, flags=re.DOTALL | re.MULTILINE)
    page = re.sub(
        r"^```.*?^```$",
        lambda cell: "\n\n".join(["", *CAPTION.findall(cell[0]), ""]),
        page,
        flags=re.DOTALL | re.MULTILINE,
    )
    page = re.sub(r"^:::\{list-table\}.*?^:::$", "", page, flags=re.DOTALL | re.MULTILINE)
    page = re.sub(r"\$\$.*?\$\$", " ", page, flags=re.DOTALL)
    page = re.sub(r"^\s*(:::.*|:[\w-]+:.*|\|.*|#.*|\(.*\)=|%.*)$", "\n", page, flags=re.MULTILINE)
    page = re.sub(r"\{result\}`[^`]*`", "§", page)
    page = re.sub(r"\{[\w:]+\}`([^<`]*)<[^`]*`", r"\1", page)
    page = re.sub(r"\{[\w:]+\}`[^`]*`", "Reference", page)
    page = re.sub(r"`[^`]*`", "code", page)
    page = re.sub(r"\$([^$]+)\$", lambda math: "§" if MATH_NUMBER.search(math[1]) else "X", page)
    page = REFERENCE.sub("Reference", re.sub(r"\*\*|__|<[^>]*>", "", page))
    page = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", page)
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.|:) )", page)
    blocks = [re.sub(r"^\s*(?:[-*:]|\d+\.) ", "", " ".join(block.split())) for block in blocks]
    found = [one for block in blocks for one in re.split(r"(?<=[.?!])\s+(?=[\W\dA-Z])", block)]
    return [one for one in found if re.search(r"[A-Za-z]", one)]


def main() -> None:
    """Print one line for each page."""
    default = [*(ROOT / "notebooks").glob("*.md"), *(ROOT / "book").glob("*.md")]
    print("page                      words  per sentence  two numbers  longest")
    for path in map(Path, sys.argv[1:] or sorted(default)):
        sentences = sentences_of(path.read_text(encoding="utf-8"))
        if not sentences:
            continue
        lengths = [len(re.findall(r"[^\W_]+(?:['-][^\W_]+)*|§", one)) for one in sentences]
        crowded = sum(len(NUMBER.findall(one)) >= 2 for one in sentences)
        longest = max(zip(lengths, sentences, strict=True))
        print(
            f"{path.stem:25} {sum(lengths):5} {sum(lengths) / len(lengths):13.1f} "
            f"{crowded / len(lengths):12.0%} {longest[0]:8}  {' '.join(longest[1].split()[:6])}"
        )


if __name__ == "__main__":
    main()
