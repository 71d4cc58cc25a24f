"""QONNX export of an integer graph, one task a file, bit for bit equal to the integer reference."""
