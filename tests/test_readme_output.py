"""README's output of ``make sim`` against a run."""

import io

import numpy as np
import pytest
import readme_output
from PIL import Image


def test_quoted_output_is_what_is_printed():
    """Cycles, bounds, stalls, bytes and metrics; whoever changes one runs ``python tools/readme_output.py``."""
    text, pictures = readme_output.simulated()
    assert "tensors of 4 inferences equal the integer reference, bit for bit\n" in text
    assert max(map(len, text.splitlines())) <= 80
    assert readme_output.quoted(readme_output.README.read_text(encoding="utf-8")) == text
    assert len(pictures) == 4
    for name, content in pictures.items():
        shown, made = (np.asarray(Image.open(file)) for file in (readme_output.PICTURES / name, io.BytesIO(content)))
        np.testing.assert_array_equal(shown, made, err_msg=f"{name}: run python tools/readme_output.py")


def test_update_replaces_the_block_alone():
    page = readme_output.README.read_text(encoding="utf-8")
    changed = readme_output.update(page, "other\n")
    assert readme_output.quoted(changed) == "other\n"
    assert readme_output.update(changed, readme_output.quoted(page)) == page
    with pytest.raises(ValueError, match=r"(?s)there must be one block .*, not 0"):
        readme_output.update("no block", "x")
