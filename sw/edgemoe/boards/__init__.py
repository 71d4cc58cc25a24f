"""Boards: their data, the block design around the accelerator, bitstreams, and the way onto a board."""

from edgemoe.boards.board import BOARDS, Board, BoardError, board_names, configuration_names, load_board
from edgemoe.boards.hwh import hwh_text
from edgemoe_hw.spec.constants import IP_VLNV, MODULE_VLNV

__all__ = [
    "BOARDS",
    "IP_VLNV",
    "MODULE_VLNV",
    "Board",
    "BoardError",
    "board_names",
    "configuration_names",
    "hwh_text",
    "load_board",
]
