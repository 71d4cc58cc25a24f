"""Quantization-aware training with Brevitas: a model whose every value equals the integer graph that it exports.

``edgemoe qat`` fine-tunes a float checkpoint (docs/models.md).
"""
