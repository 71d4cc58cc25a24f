"""The explorer: which configuration of the accelerator runs a model fastest on a board's FPGA, before any is built.

Data flows one way: a board and models give candidates (``space``), whose memories are as deep as the models need
(``needs``); models of resources (``resources``), of cycles (``cycles``) and the board's clock judge them; ``search``
keeps those that no other beats; ``verify`` has RTL and Yosys judge these again, in parallel (``cluster``).
"""

from __future__ import annotations
