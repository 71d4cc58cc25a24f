"""The verbs of ``edgemoe``: where each is, and its line in ``edgemoe --help``, grouped by what a person wants to do."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["VERBS", "Verb"]

_BRING, _RUN, _LOOK = "Bring a model", "Run it", "Look inside"
_MEASURE, _HARDWARE = "Measure", "Hardware"


@dataclass(frozen=True)
class Verb:
    """One verb; its module is imported when it is used.

    Attributes:
        group: of ``edgemoe --help``
        module: in ``edgemoe.cli``; its ``command`` is the verb's function, or a Typer application of sub-verbs
        summary: its line of ``edgemoe --help``
    """

    group: str
    module: str
    summary: str


#: In the order in which they are listed.
VERBS = {
    "import": Verb(_BRING, "import_model", "A model of timm, Hugging Face, ONNX, M3ViT, Edge-MoE, ..."),
    "quantize": Verb(_BRING, "quantize", "A float checkpoint as an integer graph, without training."),
    "train": Verb(_BRING, "train", "Train a model on several tasks (PyTorch)."),
    "qat": Verb(_BRING, "qat", "Fine-tune with the accelerator's integer arithmetic."),
    "export": Verb(_BRING, "export", "One task of an integer graph as QONNX."),
    "compile": Verb(_BRING, "compile_model", "Compile a model for a configuration: a bundle."),
    "sim": Verb(_RUN, "sim", "A model on the simulated accelerator, every tensor compared."),
    "run": Verb(_RUN, "run", "Pictures through a bundle's tasks, on any device."),
    "demo": Verb(_RUN, "demo", "A stream, live on a local web page."),
    "serve": Verb(_RUN, "serve", "Bundles over the network, as Triton and KServe speak."),
    "selftest": Verb(_RUN, "selftest", "Every task on a device, compared with the integer reference."),
    "info": Verb(_LOOK, "info", "What is in a bundle."),
    "disasm": Verb(_LOOK, "disasm", "A bundle's programs as text."),
    "report": Verb(_LOOK, "report", "Print a report that sim or run wrote."),
    "bench": Verb(_MEASURE, "bench", "Cycles on the simulated RTL; the same models on CPU and GPU."),
    "evaluate": Verb(_MEASURE, "evaluate", "Accuracy on your own pictures with labels, on any device."),
    "accuracy": Verb(_MEASURE, "accuracy", "Metrics of every precision, and the drop against float."),
    "ablation": Verb(_MEASURE, "ablation", "Each technique replaced by its naive form."),
    "expert-load": Verb(_MEASURE, "expert_load", "Which experts each task uses, and how evenly."),
    "study": Verb(_MEASURE, "study", "Smaller studies, which its --help lists."),
    "boards": Verb(_HARDWARE, "boards", "List boards; handoff, bitstream, flash, doctor."),
    "explore": Verb(_HARDWARE, "explore", "Search a board's configurations for the fastest that fits."),
    "verilog": Verb(_HARDWARE, "verilog", "Write the accelerator as Verilog, or its configuration."),
    "synth": Verb(_HARDWARE, "synth", "Resources of a configuration by Yosys."),
    "timing": Verb(_HARDWARE, "timing", "Estimate a configuration's clock, before placement."),
    "fit": Verb(_HARDWARE, "fit", "Place and route with open tools, for an ECP5."),
}
