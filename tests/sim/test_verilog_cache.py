"""The cache of Verilog: what is in it under a source's digest was made from that source."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

GENERATE = """
import pathlib, sys
from edgemoe_hw.control_plane.supervisor import Supervisor
from edgemoe_sim.build import accelerator_verilog
from edgemoe_hw.spec.config import AcceleratorConfig

if "edit" in sys.argv:
    source = pathlib.Path(sys.modules["edgemoe_hw.control_plane.supervisor"].__file__)
    source.write_text(source.read_text() + "# edited\\n")
accelerator_verilog(AcceleratorConfig(weight_depth=16, act_depth=16, residual_depth=16, max_dim=16, max_experts=2))
"""


def generate(folder: Path, *arguments: str) -> list[Path]:
    """Generate Verilog from a copy of the sources; returns what the cache holds afterwards."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder / "hw"), str(ROOT / "models"), str(ROOT / "sim")]),
        "EDGEMOE_BUILD": str(folder / "build"),
    }
    subprocess.run([sys.executable, "-c", GENERATE, *arguments], env=environment, check=True)
    return sorted((folder / "build").glob("verilog/*.v"))


def test_sources_that_are_edited_meanwhile(tmp_path):
    """A process that has loaded the RTL before an edit must not leave the old design under the new digest."""
    shutil.copytree(ROOT / "hw", tmp_path / "hw", ignore=shutil.ignore_patterns("__pycache__"))
    assert generate(tmp_path, "edit") == []
    assert len(generate(tmp_path)) == 1 and len(generate(tmp_path)) == 1
