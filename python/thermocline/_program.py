"""The program that came with this package."""

import os
import sys
from pathlib import Path

PROGRAM = str(Path(__file__).parent / "bin" / "thermocline")


def main():
    """The command `thermocline`: this process becomes the program."""
    os.execv(PROGRAM, ["thermocline", *sys.argv[1:]])
