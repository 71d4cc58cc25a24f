"""Bundles: round trip and refusals."""

import dataclasses
import re
import subprocess
import sys

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from edgemoe.bundle import METADATA_KEY, Bundle, BundleError
from edgemoe.compiler import build_bundle
from edgemoe_hw.spec.config import PRESETS
from edgemoe_hw.spec.disassembler import disassemble
from support.random_graphs import random_graph, small_model


@pytest.fixture(scope="module")
def bundle():
    return build_bundle(random_graph(small_model()), PRESETS["tiny"])


@pytest.fixture
def path(bundle, tmp_path):
    bundle.save(tmp_path / "small.emoe")
    return tmp_path / "small.emoe"


def rewrite(path, change):
    """Change the stored metadata text or tensors."""
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name).copy() for name in file.keys()}  # noqa: SIM118
    change(metadata, tensors)
    path.write_bytes(safetensors.numpy.save(tensors, metadata))


def test_round_trip(bundle, path):
    loaded = Bundle.load(path)
    assert loaded.config == bundle.config and loaded.model == bundle.model
    assert list(loaded.tasks) == [task.name for task in bundle.model.tasks]
    assert loaded.tasks == bundle.tasks
    np.testing.assert_array_equal(loaded.data, bundle.data)
    loaded.save(path.with_suffix(".again"))
    assert path.read_bytes() == path.with_suffix(".again").read_bytes()


def test_missing_file(tmp_path):
    with pytest.raises(BundleError, match="there is no such file"):
        Bundle.load(tmp_path / "none.emoe")


@pytest.mark.parametrize("size", [0, 5, 1000, -1])
def test_truncated(path, size):
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BundleError, match="corrupt or truncated"):
        Bundle.load(path)


def test_damaged_payload(path):
    rewrite(path, lambda metadata, tensors: tensors["data"].__setitem__(100, tensors["data"][100] ^ 1))
    with pytest.raises(BundleError, match="damaged; copy it again"):
        Bundle.load(path)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("format_version", "bundle format 99, but this edgemoe has"),
        ("isa_version", "ISA version 99, but this edgemoe has"),
    ],
)
def test_other_version(path, key, message):
    rewrite(
        path,
        lambda metadata, tensors: metadata.update(
            {METADATA_KEY: re.sub(rf'\\"{key}\\": \d', rf'\\"{key}\\": 99', metadata[METADATA_KEY])}
        ),
    )
    with pytest.raises(BundleError, match=message):
        Bundle.load(path)


def test_no_bundle(tmp_path):
    (tmp_path / "x.emoe").write_bytes(safetensors.numpy.save({"a": np.zeros(3)}))
    with pytest.raises(BundleError, match="a safetensors file of another project"):
        Bundle.load(tmp_path / "x.emoe")


def test_other_device(bundle):
    with pytest.raises(BundleError, match="for config tiny .* has zcu102 .* compile the model for it"):
        bundle.check_device(PRESETS["zcu102"], "sim")
    with pytest.raises(BundleError, match=r"ISA version \d, device pynq has 7"):
        bundle.check_device(bundle.config, "pynq", isa_version=7)
    bundle.check_device(dataclasses.replace(bundle.config, name="renamed"), "sim")


def test_disassembly_names_every_command(bundle):
    task = bundle.task("segmentation")
    lines = list(disassemble(task.program, [phase.name for phase in task.phases]))
    assert len(lines) == task.commands
    assert "BEGIN" in lines[0] and "END" in lines[-1]
    with pytest.raises(ValueError, match="multiple of 64"):
        list(disassemble(task.program[:-1], []))


def test_runtime_needs_no_toolchain():
    code = (
        "import sys, edgemoe.bundle, edgemoe.runtime.reference; "
        "assert not {'amaranth', 'torch', 'cocotb'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
