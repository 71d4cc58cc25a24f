"""Measured power, and energy computed from nothing else."""

import time
from types import SimpleNamespace

import pytest

import edgemoe
from edgemoe import DeviceError
from edgemoe.runtime.platforms.null import NullPlatform
from edgemoe.runtime.platforms.power import PowerMeter, hwmon_rails, pynq_rails
from edgemoe.runtime.statistics import StreamStats


def sensor(value):
    return SimpleNamespace(value=value)


def test_rails_of_pynq():
    rails = pynq_rails(
        lambda: {
            "12V": SimpleNamespace(power=sensor(8.5), voltage=sensor(12.0), current=sensor(1.0)),
            "VCCINT": SimpleNamespace(power=None, voltage=sensor(0.85), current=sensor(2.0)),
            "VCCAUX": SimpleNamespace(power=None, voltage=sensor(1.8), current=None),
        }
    )
    assert {name: read() for name, read in rails.items()} == {"12V": 8.5, "VCCINT": pytest.approx(1.7)}


def test_rails_of_the_kernel(tmp_path):
    for chip, number, label in (("ina226", 1, None), ("irps5401", 2, "pout1")):
        folder = tmp_path / f"hwmon{number}"
        folder.mkdir()
        (folder / "name").write_text(f"{chip}\n")
        (folder / f"power{number}_input").write_text("2500000\n")
        if label:
            (folder / f"power{number}_label").write_text(f"{label}\n")
    assert {name: read() for name, read in hwmon_rails(tmp_path).items()} == {"ina226 power1": 2.5, "pout1": 2.5}
    assert hwmon_rails(tmp_path / "none") == {}


def test_rails_of_the_same_name(tmp_path):
    """Several regulators of one type, as boards have them: none replaces another, so the sum has them all."""
    for chip in range(3):
        folder = tmp_path / f"hwmon{chip}"
        folder.mkdir()
        (folder / "name").write_text("irps5401\n")
        for number in (1, 2):
            (folder / f"power{number}_input").write_text(f"{chip + number}000000\n")
            (folder / f"power{number}_label").write_text("pout1\n" if number == 1 else f"rail {chip}\n")
    watts = {name: read() for name, read in hwmon_rails(tmp_path).items()}
    assert watts == {
        "pout1 (hwmon0 power1)": 1.0,
        "rail 0": 2.0,
        "pout1 (hwmon1 power1)": 2.0,
        "rail 1": 3.0,
        "pout1 (hwmon2 power1)": 3.0,
        "rail 2": 4.0,
    }


def test_meter():
    readings = iter([{"a": 1.0, "b": 2.0}] * 2 + [OSError("no answer")] * 9)

    def read():
        value = next(readings)
        if isinstance(value, Exception):
            raise value
        return value

    meter = PowerMeter(read)
    time.sleep(0.25)
    meter.close()
    meter.close()
    assert meter.watts == 3.0  # of the one sample that was taken in the thread
    assert PowerMeter(dict).watts is None


def test_sensor_that_does_not_answer(runtime_bundle, pictures):
    """It stops no stream, and gives no figure; one that answers later counts from then on."""
    answers, platform = [], NullPlatform(runtime_bundle.config)

    def power():
        answers.append(None)
        if len(answers) < 4:
            raise DeviceError("the power sensor of 12V does not answer")
        return {"12V": 5.0}

    platform.power = power
    with edgemoe.open(platform, runtime_bundle) as accelerator:
        with pytest.raises(DeviceError, match="does not answer"):
            accelerator.power()
        stream = accelerator.stream(pictures[:1], "depth")
        list(stream)
        assert stream.stats.joules is None and "power unavailable" in str(stream.stats)
        stream = accelerator.stream(pictures, "depth")
        while stream.stats.watts is None:
            next(stream, None)
        stream.close()
        assert stream.stats.watts == 5.0


def test_energy_needs_power(runtime_bundle):
    """No power, no energy, whatever else is known."""
    known = {"frames": 10, "seconds": 1.0, "fps": 10.0, "device_seconds": 0.1}
    assert StreamStats(**known).joules is None and StreamStats(**known, watts=2.0).joules == 0.2


def test_energy_of_a_stream(runtime_bundle, pictures):
    platform = NullPlatform(runtime_bundle.config)
    with edgemoe.open(platform, runtime_bundle) as accelerator:
        assert accelerator.power() == {}
        stream = accelerator.stream(pictures, "depth")
        list(stream)
        assert (stream.stats.watts, stream.stats.joules) == (None, None)
        assert "power unavailable" in str(stream.stats)
        platform.power = lambda: {"PL": 2.0, "PS": 1.5}
        assert accelerator.power() == {"PL": 2.0, "PS": 1.5}
        stream = accelerator.stream(pictures, "depth")
        list(stream)
        stats = stream.stats
        assert stats.watts == 3.5 and stats.joules == pytest.approx(3.5 * stats.seconds / 8)
        assert f"3.50 W, {stats.joules * 1e3:.1f} mJ a frame" in str(stats)
    assert StreamStats(watts=3.0).joules is None
