"""README's output of ``make sim`` against a run."""

import pytest
import readme_output


def test_quoted_output_is_what_is_printed():
    """Cycles, bounds, stalls, bytes and metrics; whoever changes one runs ``python tools/readme_output.py``."""
    text = readme_output.simulated()
    assert "tensors of 4 inferences equal the integer reference, bit for bit\n" in text
    assert max(map(len, text.splitlines())) <= 80
    assert readme_output.quoted(readme_output.README.read_text(encoding="utf-8")) == text


def test_update_replaces_the_block_alone():
    page = readme_output.README.read_text(encoding="utf-8")
    changed = readme_output.update(page, "other\n")
    assert readme_output.quoted(changed) == "other\n"
    assert readme_output.update(changed, readme_output.quoted(page)) == page
    with pytest.raises(ValueError, match=r"(?s)there must be one block .*, not 0"):
        readme_output.update("no block", "x")
