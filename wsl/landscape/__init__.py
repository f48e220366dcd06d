"""The loss between and around models."""

from wsl.landscape._barrier import Barrier as Barrier
from wsl.landscape._barrier import barrier as barrier
from wsl.landscape._interpolate import interpolate as interpolate
