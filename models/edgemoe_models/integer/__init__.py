"""The integer side of the models: exact operators and the bit-exact reference. NumPy only.

``edgemoe_models.integer.reference.run`` is an inference, ``edgemoe_models.integer.ops`` its operators.
"""
