"""A Vision Transformer from an ONNX file, known by what its nodes compute and not by their names. Needs onnx."""

from edgemoe_models.importers.onnx_graph.entry import import_onnx

__all__ = ["import_onnx"]
