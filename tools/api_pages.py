"""MkDocs hook: fills a reference page with everything that its package re-exports, in order.

A page says `<!-- names of jinv.prox -->`; a new public name needs no edit in the documentation.
"""

import ast
import re
from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent
MARK = re.compile(r"<!-- names of ([\w.]+) -->")


def on_page_markdown(markdown: str, **_) -> str:
    return MARK.sub(
        lambda m: "\n\n".join(f"::: {m[1]}.{name}" for name in public_names(m[1])), markdown
    )


def public_names(package: str) -> list[str]:
    """The names imported as themselves (`X as X`), without subpackages."""
    path = ROOT.joinpath(*package.split("."), "__init__.py")
    imports = (n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ImportFrom))
    return [a.name for node in imports if node.module for a in node.names if a.asname == a.name]
