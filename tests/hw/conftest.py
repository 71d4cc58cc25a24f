"""Makes this folder's helpers (``golden``, ``bench``) importable: pytest's importlib mode does not."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
