"""The accelerator's models on CPUs and GPUs, by the runtimes that people deploy on: ``edgemoe bench --only baselines``.

All of them compute the same thing: uint8 pixels in, one task's head outputs out, from the same float weights.

``workload``      what is computed, and what the float model answers
``measurement``   timing, energy, and how far an output is from the float model's
``onnx_network``  the float network as an ONNX graph: experts sparse or dense, float32 or int8
``torch_*``, ``onnx_sessions``, ``openvino_session``   one runtime each
``suite``         which baselines there are, and their rows
"""
