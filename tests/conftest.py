"""What every test shares: fixed, printed seeds and the same Hypothesis examples everywhere."""

import zlib

import numpy as np
import pytest
from hypothesis import settings

from support.command_line import CommandLine

settings.register_profile("edgemoe", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("edgemoe")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Depends on the test's name and parameters only; pytest shows it when the test fails."""
    value = zlib.crc32(request.node.name.encode())
    print(f"seed {value}")
    return value


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def edgemoe(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Runs ``edgemoe`` in this process."""
    return CommandLine(capsys)
