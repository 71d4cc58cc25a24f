"""Python code blocks of the documentation, to be run by tests."""

import re
from pathlib import Path
from typing import Any

__all__ = ["DOCS", "run_blocks"]

DOCS = Path(__file__).parents[2] / "docs"


def run_blocks(page: str) -> dict[str, Any]:
    """Run all Python blocks of a page (below docs/) one after the other; returns their namespace."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks, f"{page} has no Python"
    namespace: dict[str, Any] = {}
    exec(compile("\n".join(blocks), page, "exec"), namespace)
    return namespace
