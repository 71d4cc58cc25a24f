"""All that is read from and written to disk: whole or not at all, and never trusted. NumPy only.

``atomic`` writes, ``json_text`` and ``checks`` read JSON, ``tensor_file`` safetensors, ``array_file`` NumPy's arrays,
``cache`` says where results lie that can be made again.
"""
