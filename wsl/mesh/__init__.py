"""Meshes: sharded parameters, mapped candidates, runs of several processes.

A mesh has two kinds of axes. Parameters are sharded over an axis such as
``model``: one tensor over many devices. Candidates (merges, coefficients,
seeds) are mapped over the axis ``candidates``: many evaluations at once. All
operations of the library take sharded parameters; no other function is needed.
"""

from wsl.mesh._make import make as make
from wsl.mesh._map.candidates import map_candidates as map_candidates
from wsl.mesh._map.results import Batch as Batch
from wsl.mesh._map.results import finite as finite
from wsl.mesh._place import gather as gather
from wsl.mesh._place import like as like
from wsl.mesh._place import shard as shard
from wsl.mesh._processes.start import Processes as Processes
from wsl.mesh._processes.start import start as start
from wsl.mesh._rules import explain as explain
from wsl.mesh._rules import Rules as Rules
from wsl.mesh._rules import shardings as shardings
