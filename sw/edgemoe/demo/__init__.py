"""``edgemoe demo``: a local web page that shows a stream live, with its speed and its experts.

``sources`` makes endless frames, ``player`` runs them through an accelerator's stream, ``figures`` are their speed and
power, ``view`` turns a finished frame into one message, ``server`` sends it to whoever watches and may
(``edgemoe.web``), ``static`` is the page. Only ``server`` needs the extra.
"""
