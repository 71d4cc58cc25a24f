"""``edgemoe serve``: bundles on a device, over the Open Inference Protocol v2 (docs/serve.md).

``message`` reads requests and writes responses, ``engine`` is a bundle's bounded queue and the thread that empties it,
``metrics`` counts, ``application`` has the paths, ``server`` runs it until it is asked to end. What the other end needs
of the protocol too is ``edgemoe.runtime.open_inference``. ``metrics``, ``application`` and ``server`` need the extra.
"""
