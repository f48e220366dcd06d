"""The loss landscape between models: barriers, distances and spectra."""

from wsl.landscape._barrier import Barrier as Barrier
from wsl.landscape._barrier import barrier as barrier
from wsl.landscape._distance import l2_reduction as l2_reduction
from wsl.landscape._interpolate import interpolate as interpolate
from wsl.landscape._path import Heights as Heights
from wsl.landscape._path import heights as heights
from wsl.landscape._path import Path as Path
from wsl.landscape._path import path as path
from wsl.landscape._spectra import singular_alignment as singular_alignment
from wsl.landscape._spectra import SingularAlignment as SingularAlignment
from wsl.landscape._variance import variance_ratio as variance_ratio
