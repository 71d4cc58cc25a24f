"""The C runtime's platform for Linux, on plain files in place of UIO and u-dma-buf: no board was at hand."""

import struct

import numpy as np
import pytest

from edgemoe_hw.spec import regs
from edgemoe_hw.spec.config import ISA_VERSION
from support import c_runtime

ADDRESS, SIZE = 0x1F40_0000, 1 << 22
SYNC = ("sync_offset", "sync_size", "sync_direction", "sync_for_cpu", "sync_for_device")


@pytest.fixture(scope="module")
def program():
    source = c_runtime.SOURCES.parents[1] / "tests" / "support" / "linux_board.c"
    return c_runtime.build_with_library(source, "linux-board", variables=c_runtime.SANITIZED)


@pytest.fixture(params=["u-dma-buf", "udmabuf"])  # the class, and its older name
def board(request, tmp_path, runtime_bundle):
    """A board's files: registers that remember what is written, memory, and u-dma-buf's folder."""
    runtime_bundle.save(tmp_path / "x.emoe")
    registers = np.zeros(1024, "<u4")
    registers[regs.find("ID").offset // 4] = regs.ID
    registers[regs.find("ISA_VERSION").offset // 4] = ISA_VERSION
    registers[regs.find("CONFIG_HASH").offset // 4] = runtime_bundle.config.hash32
    registers.tofile(tmp_path / "uio0")
    (tmp_path / "udmabuf0").write_bytes(bytes(SIZE))
    folder = tmp_path / request.param / "udmabuf0"
    folder.mkdir(parents=True)
    for name, text in {"phys_addr": f"{ADDRESS:#010x}\n", "size": f"{SIZE}\n", **dict.fromkeys(SYNC, "0\n")}.items():
        (folder / name).write_text(text)
    return tmp_path, folder


def words(folder):
    return [folder / "x.emoe", folder / "uio0", folder, folder]


def set_register(folder, name, value):
    content = bytearray((folder / "uio0").read_bytes())
    struct.pack_into("<I", content, regs.find(name).offset, value)
    (folder / "uio0").write_bytes(content)


def test_files(board, program, runtime_bundle):
    """Locked, mapped, in pages; flushes and invalidations name their part; identity, sizes and reset are written."""
    folder, sysfs = board
    lines = c_runtime.run(program, *words(folder)).stdout.splitlines()
    assert lines[0] == f"{folder / 'uio0'}: another driver has it"
    assert lines[1] == str(ISA_VERSION)
    assert lines[2] == f"{ADDRESS:x} {ADDRESS + 4096:x}"
    assert "has no 1073741824 bytes left; make it larger" in lines[3]
    assert lines[4] == "1"
    memory = (folder / "udmabuf0").read_bytes()
    data = runtime_bundle.data.tobytes()
    assert memory[: len(data)] == data  # loaded by emoe_device_open, which came last
    first = {name: (sysfs / name).read_text().split("\n")[0] for name in SYNC}
    assert first["sync_direction"] == "1" and first["sync_for_device"] == "1"
    assert 0 < int(first["sync_offset"]) < SIZE and int(first["sync_offset"]) % 4096 == 0
    assert int(first["sync_size"]) == max(task.output_bytes for task in runtime_bundle.tasks.values())
    assert first["sync_for_cpu"] == "1"  # of the invalidation
    found = np.fromfile(folder / "uio0", "<u4")
    assert found[regs.find("WATCHDOG").offset // 4] == 77
    assert found[regs.find("CONTROL").offset // 4] == 2  # the soft reset
    assert found[regs.find("SIZE_WEIGHTS").offset // 4] == runtime_bundle.data.size
    assert found[regs.find("SIZE_OUTPUT").offset // 4] == int(first["sync_size"])


@pytest.mark.parametrize(
    ("register", "value", "message"),
    [
        ("ID", 0, "device uio: register ID is 0x00000000, not 0x454d4f45: there is no edgemoe accelerator at this"),
        ("ISA_VERSION", 3, "the bundle has ISA version 4, device uio has 3"),
        ("CONFIG_HASH", 5, "device uio has another (hash 0x00000005)"),
        ("STATUS", 1, "device uio is still busy 0.01 s after a soft reset: memory does not answer its transfers"),
    ],
)
def test_wrong_device(register, value, message, board, program):
    folder, _ = board
    set_register(folder, register, value)
    done = c_runtime.run(program, *words(folder), status=1)
    assert message in done.stdout.splitlines()[-1]


def test_missing_files(board, program):
    folder, sysfs = board
    (sysfs / "phys_addr").write_text("none\n")
    assert "phys_addr: there is no number in it" in c_runtime.refused(program, *words(folder))
    (sysfs / "phys_addr").write_text(f"{ADDRESS + 32:#x}\n")
    done = c_runtime.run(program, *words(folder), status=1)
    assert "the accelerator needs addresses that are multiples of 64" in done.stdout.splitlines()[-1]
    (sysfs / "sync_for_cpu").unlink()
    assert "sync_for_cpu: No such file or directory; is its driver" in c_runtime.refused(program, *words(folder))
    (folder / "uio0").write_bytes(b"")  # no device: behind its end there would be nothing
    assert "4096 bytes at 0x0 are not in this file, which is no device" in c_runtime.refused(program, *words(folder))
    (folder / "uio0").unlink()
    assert "uio0: No such file or directory; is its driver loaded?" in c_runtime.refused(program, *words(folder))
