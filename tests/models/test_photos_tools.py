"""What goes to a lent GPU and what comes back."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pack_photos  # noqa: E402
import qat_photos  # noqa: E402
import side_by_side  # noqa: E402
import train_photos  # noqa: E402

from edgemoe_models.datasets import find  # noqa: E402
from edgemoe_models.qat.config import QatOptions  # noqa: E402
from edgemoe_models.storage.atomic import write_text  # noqa: E402
from edgemoe_models.storage.torch_tensors import read_torch, write_torch  # noqa: E402
from edgemoe_models.train.config import TrainConfig  # noqa: E402
from support.camvid_tree import make_camvid  # noqa: E402


def test_the_packed_data_set_is_the_data_set(tmp_path, capsys, monkeypatch):
    import tarfile

    monkeypatch.chdir(tmp_path)
    make_camvid(tmp_path / "camvid", 24, 40)
    arguments = ["--data-root", str(tmp_path / "camvid"), "--height", "16", "--width", "32"]
    assert pack_photos.main(arguments) == 0
    assert capsys.readouterr().out.startswith("build/carry/camvid.tar: ")
    with tarfile.open("build/carry/camvid.tar") as archive:
        archive.extractall(tmp_path / "sent", filter="data")
    for split in ("train", "val"):
        first, second = (
            find("camvid").load(str(tmp_path / root), tmp_path, split, 9, (16, 32), ["segmentation", "edges"])
            for root in ("camvid", "sent")
        )
        assert all(np.array_equal(first[name], second[name]) for name in first)


def test_weights_come_home_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(side_by_side, "PART", 700)
    weights = {"a": torch.randn(40, 30), "b": torch.randn(7)}
    write_torch(tmp_path / "x.safetensors", weights, {"config": "{}"})
    parts = train_photos.send("photos", tmp_path / "x.safetensors", tmp_path / "out")
    assert len(parts) > 2 and all((tmp_path / "out" / part).stat().st_size <= 700 for part in parts)
    assert train_photos.unpack(tmp_path / "out", tmp_path / "home") == 0
    found, metadata = read_torch(tmp_path / "home/photos.safetensors")
    assert metadata == {"config": "{}"}
    for name, value in weights.items():
        assert torch.equal(found[name].float(), value.to(torch.bfloat16).float())


def test_every_variant_is_a_training():
    for options in ({}, *train_photos.VARIANTS.values(), train_photos.CHECK):
        TrainConfig(**(train_photos.COMMON | train_photos.PHOTOS | options))
    TrainConfig(**(train_photos.COMMON | train_photos.SCENES), workers=12)


def test_every_variant_is_a_quantization_aware_training():
    for options in qat_photos.VARIANTS.values():
        QatOptions(**(qat_photos.COMMON | options))


def test_a_brevitas_model_comes_home_in_parts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(side_by_side, "PART", 700)
    monkeypatch.setattr(qat_photos, "work_folder", lambda _: tmp_path / "steps")
    assert qat_photos.main(["--latent", "w4-all", "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"{tmp_path}/steps/w4-all has no variant that has ended\n"
    (tmp_path / "steps/w4-all").mkdir(parents=True)
    write_text(tmp_path / "steps/w4-all/metrics.json", "{}")
    write_text(tmp_path / "steps/w4-all/options.json", '{"expert_bits": 4}')
    sent = tmp_path / "steps/w4-all/m3vit-tiny-camvid-w4a8.safetensors"
    write_torch(sent, {"a": torch.randn(40, 30), "b": torch.randn(7)}, {"config": "{}"})
    assert qat_photos.main(["--latent", "w4-all", "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").iterdir())) > 2
    assert qat_photos.main(["--unpack", str(tmp_path / "out"), "--out", str(tmp_path / "home")]) == 0
    assert (tmp_path / "home" / sent.name).read_bytes() == sent.read_bytes()
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "home" / sent.name)]
    assert qat_photos.main(["--unpack", str(tmp_path / "home"), "--out", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err == f"{tmp_path}/home has no parts, *.0, *.1, ...\n"
    assert not (tmp_path / "nowhere").exists()


def test_more_than_ten_parts_come_home_and_earlier_ones_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(side_by_side, "PART", 3)
    assert len(side_by_side.write_parts(bytes(range(40)), "x", tmp_path)) == 14
    assert side_by_side.read_parts("x", tmp_path) == bytes(range(40))
    side_by_side.write_parts(b"ab", "x", tmp_path)
    assert side_by_side.read_parts("x", tmp_path) == b"ab" and len(list(tmp_path.iterdir())) == 1


def test_what_was_there_is_kept_where_nothing_can_begin(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(qat_photos, "work_folder", lambda _: tmp_path / "steps")
    (tmp_path / "steps").mkdir()
    with pytest.raises(FileNotFoundError):
        qat_photos.main(["--pack", str(tmp_path / "none.tar"), "--out", str(tmp_path / "out")])
    assert (tmp_path / "steps").is_dir()
    with pytest.raises(SystemExit):
        qat_photos.main(["--only", "w8-half,other", "--out", str(tmp_path / "out")])
    assert "--only must be among w8-half, w8-most, " in capsys.readouterr().err
