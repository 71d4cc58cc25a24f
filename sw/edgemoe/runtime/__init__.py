"""The host runtime: frames in, typed predictions out, whatever device the accelerator runs on.

Data flows one way: ``frames`` -> ``images`` -> an ``Executor`` (``driver`` on a ``platform``, or ``reference``) ->
``predictions``. ``accelerator`` puts them together for one image, ``stream`` for many, ``opening`` finds the device.
"""
