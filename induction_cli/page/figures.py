"""Plots on the page: an SVG file becomes an inline figure whose ids are its own and whose letters are shared."""

from __future__ import annotations

import base64
import html
import re
from dataclasses import dataclass, field
from pathlib import Path

LARGEST = 400_000  # bytes of one SVG; a larger one is shown as its PNG

GLYPH = re.compile(r'<path id="([^"]+)" d="([^"]*)" transform="scale\(0\.015625\)"/>')
WORDS = re.compile(r"<!-- (.*?) -->\s*<g[^>]*scale\(0\.(\d+) ", re.S)
DECIMALS = re.compile(r"(\.\d{2})\d+")


@dataclass
class Figures:
    """Those on one page. letters: shapes of letters by id, drawn once for all; size: bytes so far; limit: for all."""

    limit: int
    letters: dict[str, str] = field(default_factory=dict)
    size: int = 0
    count: int = 0

    def inline(self, path: Path) -> str | None:
        """HTML of one plot (path: its SVG), or None where it is unreadable or the page has no room left for it."""
        try:
            svg = path.read_text()
            drawn = self.svg(svg) if len(svg) <= LARGEST else png(path)
        except (OSError, ValueError):
            return None
        if self.size + len(drawn) > self.limit:
            return None
        self.size += len(drawn)
        return drawn

    def svg(self, text: str) -> str:
        """Raises ValueError for what is no SVG."""
        start, end = text.find("<svg"), text.rfind("</svg>")
        if start < 0 or end < 0:
            raise ValueError("no <svg> element")
        name = heading(text)
        text = text[start : end + len("</svg>")]
        text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", text, flags=re.S)
        self.count += 1
        prefix = f"p{self.count}-"
        own: dict[str, str] = {}
        for letter, shape in GLYPH.findall(text):
            if self.letters.setdefault(letter, shape) != shape:  # the same name in another font
                own[letter] = shape
        text = GLYPH.sub(lambda found: found[0] if found[1] in own else "", text)
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
        text = re.sub(r' id="([^"]*)"', lambda found: f' id="{prefix}{found[1]}"' if found[1] in used else "", text)
        text = re.sub(
            r'(?:xlink:)?href="#([^"]+)"',
            lambda found: f'href="#{prefix if found[1] in own or found[1] not in self.letters else "l-"}{found[1]}"',
            text,
        )
        text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", text)
        text = re.sub(r' (d|points|x|y)="([^"]*)"', rounded, text)
        text = re.sub(r"<defs>\s*</defs>", "", text)
        text = re.sub(r">\s+<", "><", text)
        width, height = re.findall(r'<svg[^>]*? width="([\d.]+)pt"', text), re.findall(r'height="([\d.]+)pt"', text)
        text = re.sub(r"^<svg[^>]*?(viewBox=\"[^\"]*\")[^>]*>", r"<svg \1>", text)
        size = f' width="{float(width[0]):g}" height="{float(height[0]):g}"' if width and height else ""
        return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(name)}"{size} ', 1)

    def sheet(self) -> str:
        """The letters, to stand once on the page."""
        shapes = (
            f'<path id="l-{name}" d="{shape}" transform="scale(0.015625)"/>' for name, shape in self.letters.items()
        )
        return f'<svg width="0" height="0" class="letters" aria-hidden="true"><defs>{"".join(shapes)}</defs></svg>'


def rounded(found: re.Match) -> str:
    """An attribute of coordinates with two decimals and single spaces."""
    short = " ".join(DECIMALS.sub(r"\1", found[2]).split())
    return f' {found[1]}="{short}"'


def heading(svg: str) -> str:
    """What a plot is called: its largest words."""
    words = [(float(f"0.{scale}"), text) for text, scale in WORDS.findall(svg)]
    largest = max((scale for scale, _ in words), default=0.0)
    return " ".join(html.unescape(text) for scale, text in words if scale == largest)


def png(path: Path) -> str:
    data = base64.b64encode(path.with_suffix(".png").read_bytes()).decode()
    name = path.stem.replace("_", " ")
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(name)}" width="768">'
