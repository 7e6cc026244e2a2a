"""Plots on the page: an SVG file becomes an inline figure whose ids are its own and whose words are text."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

LARGEST = 400_000  # bytes of one SVG; a larger one is shown as its PNG

SPACE = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
NO_PICTURE = {f"{SPACE}{name}" for name in ("title", "metadata", "style", "script")}  # whole figure's, or the page's
COORDINATES = ("d", "points", "x", "y", "width", "height")
DECIMALS = re.compile(r"(\.\d{2})\d+")
NAMED = re.compile(r"url\(#([^)]+)\)")  # a reference to an id from within an attribute, as CSS writes it
FONT = re.compile(r"font-family:[^;]*;?\s*")  # the page's style names one font for all plots


@dataclass
class Figures:
    """Those on one page. size: bytes so far; limit: for all."""

    limit: int
    size: int = 0
    count: int = 0

    def inline(self, path: Path) -> Markup | None:
        """HTML of one plot (path: its SVG), or None where it is unreadable or the page has no room left for it."""
        try:
            svg = path.read_text()
            drawn = self.svg(svg, path.stem) if len(svg) <= LARGEST else png(path)
        except (OSError, ValueError):
            return None
        if self.size + len(drawn) > self.limit:
            return None
        self.size += len(drawn)
        return drawn

    def svg(self, text: str, name: str = "") -> Markup:
        """The plot as an element of an HTML page; name: what it is called where it has no title.

        Raises ValueError for what is no SVG.
        """
        try:
            root = ET.fromstring(text)
        except ET.ParseError as error:
            raise ValueError(f"no XML: {error}") from error
        if root.tag != f"{SPACE}svg":
            raise ValueError("no <svg> element")
        self.count += 1
        title = (root.findtext(f"{SPACE}title") or name.replace("_", " ")).strip()
        prune(root)
        own_ids(root, f"p{self.count}-")
        for element in root.iter():
            for attribute in COORDINATES:
                if attribute in element.attrib:
                    element.set(attribute, " ".join(DECIMALS.sub(r"\1", element.attrib[attribute]).split()))
            if "font-family" in element.get("style", ""):
                element.set("style", FONT.sub("", element.attrib["style"]))
            element.tag = element.tag.removeprefix(SPACE)
        size = {axis: root.attrib[axis].removesuffix("pt") for axis in ("width", "height") if axis in root.attrib}
        box = {"viewBox": root.attrib["viewBox"]} if "viewBox" in root.attrib else {}
        root.attrib.clear()
        root.attrib.update({"role": "img", "aria-label": title} | size | box)
        return Markup(ET.tostring(root, encoding="unicode"))


def prune(element: ET.Element) -> None:
    """Take out, in place, what draws nothing, and white space outside of text."""
    is_text = element.tag == f"{SPACE}text"
    for child in list(element):
        if child.tag in NO_PICTURE:
            element.remove(child)
            continue
        prune(child)
        if not is_text and not (child.tail or "").strip():
            child.tail = None
        if child.tag == f"{SPACE}defs" and len(child) == 0:
            element.remove(child)
    if element.tag not in (f"{SPACE}text", f"{SPACE}tspan") and not (element.text or "").strip():
        element.text = None


def own_ids(root: ET.Element, prefix: str) -> None:
    """Ids that are referred to get the prefix, so that no two plots share one; the others go."""
    used = {found for element in root.iter() for found in references(element)}
    for element in root.iter():
        if (link := element.attrib.pop(LINK, None)) is not None:
            element.set("href", f"#{prefix}{link[1:]}" if link.startswith("#") else link)
        for name, value in element.attrib.items():
            if "url(#" in value:
                element.set(name, NAMED.sub(rf"url(#{prefix}\1)", value))
        if (own := element.attrib.pop("id", None)) in used:
            element.set("id", f"{prefix}{own}")


def references(element: ET.Element) -> Iterator[str]:
    """The ids that an element's attributes refer to."""
    for name, value in element.attrib.items():
        if name == LINK and value.startswith("#"):
            yield value[1:]
        yield from NAMED.findall(value)


def png(path: Path) -> Markup:
    data = base64.b64encode(path.with_suffix(".png").read_bytes()).decode()
    return Markup('<img src="data:image/png;base64,{}" alt="{}" width="768">').format(data, path.stem.replace("_", " "))
