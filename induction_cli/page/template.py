"""Every HTML file of the project: a Jinja2 template NAME.html, with NAME.css and NAME.js written into it.

A page is one file that works from file://. Its content security policy lets it load nothing and run only its script.
Text is escaped unless it says that it is markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent
TEMPLATES = Environment(
    loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def render(name: str, **values: Any) -> str:
    """HTML of the template `name`."""
    script = beside(f"{name}.js")
    return TEMPLATES.get_template(f"{name}.html").render(
        style=Markup(beside(f"{name}.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **values,
    )


def beside(name: str) -> str:
    """A file of this folder, or nothing where there is none."""
    path = HERE / name
    return path.read_text() if path.exists() else ""


def embedded(value: Any) -> Markup:
    """JSON that no text in it can break out of its script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))
