"""A board's own processor, emulated: Debian's Python and NumPy for 32- and 64-bit ARM run what ``make flash`` copies.

Slow, and for root only: it makes a root file system of each architecture (debootstrap, kept in the cache) and runs its
programs under qemu. What is missing for that is the reason why it is skipped. docs/pynq.md has what was run.
"""

import hashlib
import shutil

import numpy as np
import pytest

import edgemoe
from edgemoe.boards import load_board
from edgemoe.boards.bitstream import publish
from edgemoe.boards.flash import stage
from edgemoe.bundle import Bundle
from edgemoe.packaged_bundles import find_bundle
from edgemoe.runtime.packing import ImagePacker
from edgemoe_models.model_image import ModelImage
from support import c_runtime
from support.debian_root import inside, make_root

pytestmark = pytest.mark.slow  # minutes under qemu, and minutes more to make the roots

BOARD = load_board("pynq-z2")
BUNDLES = {name: find_bundle(name) for name in edgemoe.bundle_names()}
SELFTEST = ("-m", "edgemoe.runtime.selftest", "--device", "reference", "--bundle", "bundle.emoe", "--images", "1")
OUTPUTS = """
import hashlib, platform, sys
import numpy as np, edgemoe
bundle = edgemoe.Bundle.load("bundle.emoe")
image = np.load("image.npy")
with edgemoe.open("reference", bundle) as accelerator:
    for task in bundle.tasks:
        found = accelerator.run(image, task)
        for values in (found.raw, found.decoded, np.ascontiguousarray(found.values)):
            print(task, hashlib.sha256(values.tobytes()).hexdigest())
print(platform.machine(), sys.maxsize.bit_length() + 1, platform.python_version(), np.__version__)
"""
WORDS = {"armhf": "32", "arm64": "64"}


@pytest.fixture(scope="module", params=WORDS)
def root(request):
    return request.param, make_root(request.param)


@pytest.fixture(params=BUNDLES)
def copied(request, root, tmp_path):
    """Architecture, root, bundle, and the folder in the root that has everything, as a board's user has it."""
    work = tmp_path / "work"
    work.mkdir()
    for name, text in (("edgemoe.bit", "bits"), ("edgemoe.hwh", "<EDKSYSTEM/>"), ("result.json", '{"wns_ns": 0.1}')):
        (work / name).write_text(text)
    staged = stage(BOARD, publish(BOARD, work, tmp_path / "out"), BUNDLES[request.param], tmp_path / "out")
    folder = root[1] / "root" / "edgemoe"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(staged, folder)
    bundle = Bundle.load(BUNDLES[request.param])
    size = (bundle.model.image_height, bundle.model.image_width, 3)
    np.save(folder / "image.npy", np.random.default_rng(5).integers(0, 256, size, np.uint8))
    return root[0], root[1], bundle, folder


def test_selftest_and_outputs(copied):
    """The self-test passes there, and raw outputs, decoded outputs and values have the bits that they have here."""
    arch, root, bundle, folder = copied
    done = inside(root, "/root/edgemoe", "python3", *SELFTEST)
    assert done.returncode == 0 and done.stdout.endswith("self-test passed\n"), done.stdout + done.stderr
    wanted = []
    with edgemoe.open("reference", bundle) as accelerator:
        for task in bundle.tasks:
            found = accelerator.run(np.load(folder / "image.npy"), task)
            for values in (found.raw, found.decoded, np.ascontiguousarray(found.values)):
                wanted.append(f"{task} {hashlib.sha256(values.tobytes()).hexdigest()}")
    there = inside(root, "/root/edgemoe", "python3", "-c", OUTPUTS)
    *hashes, versions = there.stdout.splitlines()
    print(arch, versions)
    assert hashes == wanted, there.stderr
    assert versions.split()[1] == WORDS[arch]


def test_c_example(copied):
    """The C runtime there: the same input memory, and decoded outputs and values of the reference's raw outputs."""
    arch, root, bundle, folder = copied
    program = c_runtime.build(cross=f"{c_runtime.PROCESSORS[arch].triple}-")
    shutil.copy(program, folder / "edgemoe-run")
    image = np.load(folder / "image.npy")
    image.tofile(folder / "image.rgb")
    predictions = {}
    with edgemoe.open("reference", bundle) as accelerator:
        for task in bundle.tasks:
            predictions[task] = accelerator.run(image, task)
            predictions[task].raw.tofile(folder / f"{task}.raw")
    done = inside(root, "/root/edgemoe", "./edgemoe-run", "host", "bundle.emoe", "image.rgb", ".")
    assert done.returncode == 0, done.stderr
    memory = np.zeros(bundle.input_bytes, np.uint8)
    ImagePacker(bundle).pack(ModelImage(image), memory)
    assert (folder / "input.bin").read_bytes() == memory.tobytes()
    for task, prediction in predictions.items():
        assert hashlib.sha256(prediction.raw.tobytes()).hexdigest() in done.stdout
        assert (folder / f"{task}.decoded").read_bytes() == prediction.decoded.tobytes()
        assert (folder / f"{task}.values").read_bytes() == np.ascontiguousarray(prediction.values).tobytes()
