"""Measured power, and energy computed from nothing else."""

from types import SimpleNamespace

import pytest

import edgemoe
from edgemoe.runtime.null_platform import NullPlatform
from edgemoe.runtime.power import PowerMeter, hwmon_rails, pynq_rails
from edgemoe.runtime.statistics import StreamStats


def sensor(value):
    return SimpleNamespace(value=value)


def test_rails_of_pynq():
    rails = pynq_rails(lambda: {
        "12V": SimpleNamespace(power=sensor(8.5), voltage=sensor(12.0), current=sensor(1.0)),
        "VCCINT": SimpleNamespace(power=None, voltage=sensor(0.85), current=sensor(2.0)),
        "VCCAUX": SimpleNamespace(power=None, voltage=sensor(1.8), current=None)})
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


def test_meter():
    readings = iter([{"a": 1.0, "b": 2.0}] * 2 + [OSError("no answer")] * 9)

    def read():
        value = next(readings)
        if isinstance(value, Exception):
            raise value
        return value

    meter = PowerMeter(read)
    meter._stop.wait(0.25)
    meter.close()
    meter.close()
    assert meter.watts == 3.0  # of the one sample that was taken in the thread
    assert PowerMeter(dict).watts is None


def test_energy_of_a_stream(runtime_bundle, pictures):
    platform = NullPlatform(runtime_bundle.config)
    with edgemoe.open(platform, runtime_bundle) as accelerator:
        assert accelerator.power() == {}
        stream = accelerator.stream(pictures, "depth")
        list(stream)
        assert (stream.stats.watts, stream.stats.joules) == (None, None)
        assert "power not measured" in str(stream.stats)
        platform.power = lambda: {"PL": 2.0, "PS": 1.5}
        assert accelerator.power() == {"PL": 2.0, "PS": 1.5}
        stream = accelerator.stream(pictures, "depth")
        list(stream)
        stats = stream.stats
        assert stats.watts == 3.5 and stats.joules == pytest.approx(3.5 * stats.seconds / 8)
        assert f"3.50 W, {stats.joules * 1e3:.1f} mJ a frame" in str(stats)
    assert StreamStats(watts=3.0).joules is None
