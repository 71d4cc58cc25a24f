import dataclasses

import pytest

from edgemoe_models.config import ACTIVATIONS, DEPTH_SCALE, PRESETS, ModelConfig, TaskConfig

MICRO = PRESETS["m3vit-micro"]


@pytest.mark.parametrize("config", PRESETS.values(), ids=list(PRESETS))
def test_json_round_trip(config):
    assert ModelConfig.from_json(config.to_json()) == config


def test_tiny_is_edge_moes_workload():
    tiny = PRESETS["m3vit-tiny"]
    assert (tiny.grid, tiny.num_tokens, tiny.head_dim, tiny.patch_inputs) == ((8, 16), 129, 64, 768)
    assert [tiny.is_moe(i) for i in range(4)] == [False, True, False, True]
    assert (tiny.num_experts, tiny.top_k, tiny.expert_hidden, len(tiny.tasks)) == (16, 2, 384, 2)


def test_derived_shapes():
    assert MICRO.output_shape("segmentation") == (8, 64, 128)
    assert PRESETS["m3vit-tiny"].output_shape("depth") == (1, 32, 64)
    assert PRESETS["deit-tiny"].output_shape("classification") == (1000,)
    assert PRESETS["deit-tiny"].num_tokens == 197
    assert MICRO.task("depth").output_scale == DEPTH_SCALE
    assert MICRO.task("segmentation").head_outputs == 512


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a b"}, r"ModelConfig\.name must be letters, .*, not 'a b'"),
        ({"dim": 0}, r"ModelConfig\.dim must be an integer of at least 1, not 0"),
        ({"depth": 2.0}, r"ModelConfig\.depth must be an integer of at least 1, not 2\.0"),
        ({"image_width": 100}, r"ModelConfig\.image_width must be a multiple of patch \(8\), not 100"),
        ({"depth": 10**9}, r"ModelConfig\.depth must be at most 256, not 1000000000"),
        ({"num_experts": 10**9}, r"ModelConfig\.num_experts must be at most 256, not 1000000000"),
        ({"image_width": 1 << 13, "image_height": 1 << 13, "patch": 1}, r"num_tokens must be at most 65536, not 6710"),
        ({"tasks": PRESETS["m3vit-tiny"].tasks * 20}, r"ModelConfig\.tasks must be at most 32, not 40"),
        ({"name": "a" * 65}, r"ModelConfig\.name must be letters, .*at most 64, not 'aaa"),
        ({"name": "größe"}, r"ModelConfig\.name must be letters, .*, not 'größe'"),
        ({"heads": 5}, r"ModelConfig\.heads must divide dim \(96\), not 5"),
        ({"top_k": 9}, r"ModelConfig\.top_k must be in 1\.\.num_experts \(8\), not 9"),
        ({"num_experts": 0}, r"ModelConfig\.top_k must be 0 without experts, not 2"),
        ({"expert_hidden": 0}, r"ModelConfig\.expert_hidden must be an integer of at least 1, not 0"),
        ({"eps": 0.0}, r"ModelConfig\.eps must be a positive float, not 0\.0"),
        (
            {"activation": "hard-swish"},
            r"activation must be one of \('gelu', 'silu', 'relu', 'quick-gelu'\), not 'hard",
        ),
        ({"activation": None}, r"ModelConfig\.activation must be one of .*, not None"),
        ({"tasks": ()}, r"ModelConfig\.tasks must be a non-empty tuple, not \(\)"),
        ({"tasks": (TaskConfig("a", "depth", 1),) * 2}, r"must have different names, not \['a', 'a'\]"),
        ({"tasks": (TaskConfig("a", "depth", 1, cells=9),)}, r"cells must be at most patch \(8\), not 9"),
    ],
)
def test_refuses_bad_models(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(MICRO, **changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "colour", 1), r"TaskConfig\.kind must be one of .*, not 'colour'"),
        (("a", "depth", 2), r"TaskConfig\.channels of depth must be 1, not 2"),
        (("a", "classification", 9, 0, 2), r"TaskConfig\.cells of classification must be 1, not 2"),
        (("a", "segmentation", 10**9), r"TaskConfig\.channels must be at most 65536, not 1000000000"),
        (("a", "segmentation", 9999, 0, 200), r"TaskConfig\.head_outputs must be at most 1048576, not 399960000"),
        (("a", "segmentation", 0), r"TaskConfig\.channels must be an integer of at least 1, not 0"),
        (("a", "segmentation", 2, 0, 1, "cls", ["b", "c"]), r"TaskConfig\.labels must be a tuple of texts, not"),
        (("a", "edges", 1, 0, 1, "cls", ("b",)), r"TaskConfig\.labels must name the 1 classes of a edges"),
        (("a", "segmentation", 2, 0, 1, "cls", ("b",)), r"labels must name the 2 classes of a segmentation, not be 1"),
        (("a", "segmentation", 2, 0, 1, "cls", ("b", "c\n")), r"1 to 256 printable letters each, not 'c\\n'"),
        (("a", "segmentation", 2, 0, 1, "cls", ("b", 3)), r"must be a tuple of texts, not"),
    ],
)
def test_refuses_bad_tasks(arguments, message):
    with pytest.raises(ValueError, match=message):
        TaskConfig(*arguments)


def test_names_of_classes():
    """They travel with the config; where there are none, its text is what it was before there were any."""
    task = TaskConfig("a", "segmentation", 2, labels=("road", "größe"))
    config = dataclasses.replace(MICRO, tasks=(task, TaskConfig("b", "edges", 1)))
    assert ModelConfig.from_json(config.to_json()) == config
    first, second = config.to_dict()["tasks"]
    assert first["labels"] == ["road", "größe"] and "labels" not in second and "labels" not in MICRO.to_json()
    with pytest.raises(ValueError, match=r"TaskConfig\.labels must be a tuple of texts, not 'ab'"):
        ModelConfig.from_dict(config.to_dict() | {"tasks": [first | {"labels": "ab"}]})


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_the_activation_travels_and_gelu_is_what_older_files_mean(kind):
    config = dataclasses.replace(MICRO, activation=kind)
    assert ModelConfig.from_json(config.to_json()) == config
    assert ("activation" in config.to_dict()) == (kind != "gelu")
    assert ModelConfig.from_dict(MICRO.to_dict()).activation == "gelu"


def test_refuses_bad_json():
    with pytest.raises(ValueError, match="ModelConfig must be JSON text"):
        ModelConfig.from_json("{")
    with pytest.raises(ValueError, match="must be JSON text: its lists and objects lie more than 32 deep"):
        ModelConfig.from_json("[" * 100_000)
    with pytest.raises(ValueError, match=r"must be a JSON object, not \[\]"):
        ModelConfig.from_json("[]")
    with pytest.raises(ValueError, match=r"fields must be among .*, not \['width'\]"):
        ModelConfig.from_dict(MICRO.to_dict() | {"width": 1})
    with pytest.raises(ValueError, match=r"must have the fields .*'depth'"):
        ModelConfig.from_dict({"name": "a"})
    with pytest.raises(ValueError, match="task must be one of .*, not 'flow'"):
        MICRO.task("flow")
    with pytest.raises(ValueError, match=r"block must be in 0\.\.5, not 6"):
        MICRO.is_moe(6)
