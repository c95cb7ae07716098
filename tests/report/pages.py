"""The pages of a built site, parsed: ids, what they load, links, tables and words."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from pathlib import Path

from pipeline.config import Paths

VOID = {"meta", "link", "img", "input", "br", "path", "circle"}


class Page(HTMLParser):
    """One page: `ids`, `loaded` and `links` as they stand in it, `tables` with caption and cells, images with texts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.text = path, path.read_text(encoding="utf-8")
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.images: list[tuple[str, str | None]] = []
        self.headings: list[int] = []
        self.open: list[str] = []
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if known.get("id"):
            self.ids.append(str(known["id"]))
        if tag == "img":
            self.images.append((str(known["src"]), known.get("alt")))
        if tag == "a" and known.get("href"):
            self.links.append(str(known["href"]))
        elif source := known.get("src") or known.get("href"):
            self.loaded.append(source)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{self.path}: </{tag}> at {self.getpos()}"

    @property
    def words(self) -> str:
        """What a reader sees outside of code."""
        text = re.sub(r"<(style|svg|code|script)\b.*?</\1>", "", self.text, flags=re.DOTALL)
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())

    def table(self, caption: str) -> list[list[str]]:
        """Return the cells of the table whose caption begins so, header first."""
        (found,) = re.findall(rf"<caption>{re.escape(caption)}.*?</caption>(.*?)</table>", self.text, re.DOTALL)
        rows = re.findall(r"<tr\b[^>]*>(.*?)</tr>", found, re.DOTALL)
        return [[_text(cell) for cell in re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows]


def _text(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<svg.*?</svg>|<[^>]+>", " ", markup, flags=re.DOTALL)).split())


def site_of(paths: Paths) -> Path:
    return paths.reports / "site"


def pages_of(paths: Paths) -> dict[str, Page]:
    """Every page by its path below the site."""
    site = site_of(paths)
    return {path.relative_to(site).as_posix(): Page(path) for path in sorted(site.rglob("*.html"))}
