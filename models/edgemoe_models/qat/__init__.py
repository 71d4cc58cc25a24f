"""Quantization-aware training with Brevitas: a model whose every value equals the integer graph that it exports.

``python -m edgemoe_models.qat`` fine-tunes a float checkpoint (docs/models.md).
"""
