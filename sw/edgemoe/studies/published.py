"""What others published, and what a user could buy instead: figures and where they are from."""

from __future__ import annotations

from typing import Any

__all__ = ["PUBLISHED", "PUBLISHED_GOPS_PER_DSP"]

_HAILO = "github.com/hailo-ai/hailo_model_zoo, public models, classification"


def _row(name: str, config: str, workload: str, ms: float, reference: str, **more: Any) -> dict[str, Any]:
    row = {"source": "published", "name": name, "config": config, "workload": workload, "ms": ms, "batch": 1}
    return row | {"watts": None, "clock_mhz": None, "reference": reference} | more


def _hailo(chip: str, batch: int, per_second: float) -> dict[str, Any]:
    return _row(chip, "M.2", "deit-tiny", 1000 / per_second, _HAILO, model="DeiT-Tiny", batch=batch, numbers="int8")


#: Milliseconds an image; of a batch divided by its size. ``workload`` is this project's model of the same shape; the
#: authors' weights, and of M3ViT the details, are their own. Milliseconds and millijoules can be compared; their GOPS
#: cannot, since they count 2.5 G operations an inference where this project's workload has 1.565 G (two a
#: multiplication). FlexViT, on a PYNQ-Z2 at 200 MHz, has no absolute times (FPL 2026).
PUBLISHED: list[dict[str, Any]] = [
    _row(
        "Edge-MoE",
        "ZCU102",
        "m3vit-tiny",
        34.64,
        "arXiv 2305.18691",
        model="M3ViT",
        watts=14.54,
        clock_mhz=300.0,
        numbers="W16 A32",
    ),
    _row(
        "UbiMoE",
        "ZCU102",
        "m3vit-tiny",
        25.76,
        "arXiv 2502.05602",
        model="M3ViT",
        watts=11.50,
        clock_mhz=300.0,
        numbers="W16 A32",
    ),
    _row(
        "CoQMoE",
        "ZCU102",
        "m3vit-tiny",
        6.47,
        "arXiv 2506.08496",
        model="MoE-ViT",
        watts=9.83,
        clock_mhz=300.0,
        numbers="int8",
    ),
    _row(
        "UbiMoE",
        "ZCU102",
        "deit-tiny",
        8.20,
        "arXiv 2502.05602",
        model="ViT-T",
        watts=9.94,
        clock_mhz=300.0,
        numbers="W16",
    ),
    _row(
        "HG-PIPE",
        "VCK190",
        "deit-tiny",
        1.94,
        "arXiv 2407.17879",
        model="DeiT-Tiny",
        clock_mhz=425.0,
        numbers="3 and 4 bits",
    ),
    *(
        _hailo(chip, batch, per_second)
        for chip, figures in {
            "Hailo-8": {1: 70, 8: 406},
            "Hailo-8L": {1: 68, 8: 258},
            "Hailo-10H": {1: 134, 8: 456},
        }.items()
        for batch, per_second in figures.items()
    ),
]

#: Billions of operations a second and DSP slice for DeiT-Tiny, as their authors count them.
PUBLISHED_GOPS_PER_DSP: dict[str, float] = {
    "P2-ViT (2024), W8A8": 0.890,
    "group-vector systolic array (TCAS-I 2023), W8A8, ZCU102": 0.486,
    "HeatViT (HPCA 2023), int8, ZCU102": 0.160,
}
