"""The integer side of the models: the bit-exact reference and what its outputs mean. NumPy only.

``edgemoe_models.integer.reference.run`` is an inference; its operators are ``edgemoe_models.arithmetic.ops``.
"""
