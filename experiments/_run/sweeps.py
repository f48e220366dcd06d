"""Sweeps: entries that differ only in numbers are one compiled call.

An experiment that can be traced in some numbers of its config has a ``Door``.
Entries of the sweep with equal values in all other fields are a group: one
function, compiled once, whose candidates are mapped over the mesh. Each point
has a folder and a record, written when it is finished; a finished point is not
computed again. Experiments without a door run their entries one by one.
"""

from collections.abc import Callable, Mapping
import json
import pathlib
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from experiments._run import console, records
from experiments._run import entries as entries_lib
from wsl import mesh as mesh_lib
from wsl import types

FAILED = 'the result is not finite'


class Points(NamedTuple):
  """The points of one group.

  Attributes:
    fn: maps numbers by field to a pytree of arrays. It is traced once.
    finish: maps (config of a point, its folder, its result) to its record,
      which it writes.
  """

  fn: Callable[[dict[str, types.Array]], types.Tree]
  finish: Callable[[ml_collections.ConfigDict, str, types.Tree], dict[str, Any]]


class Door(NamedTuple):
  """How the points of an experiment are computed together.

  Attributes:
    numbers: the fields of the config that can be traced. The value is a number,
      or a tuple of one.
    points: maps (config of a group, configs of its points, folder, mesh) to
      ``Points``. It checks the configs, and computes in the folder what the
      points share.
    metrics: maps a record to the numbers of the summary, by name; the first is
      drawn.
  """

  numbers: tuple[str, ...]
  points: Callable[..., Points]
  metrics: Callable[[dict[str, Any]], dict[str, float]]


def run_group(
  name: str,
  door: Door,
  config: ml_collections.ConfigDict,
  group: entries_lib.Group,
  workdir: str,
  mesh: jax.sharding.Mesh | None,
) -> None:
  """Computes the points of a group that are not finished, in one mapped call.

  Args:
    name: of the experiment.
    door: of the experiment.
    config: without changes.
    group: with numbers.
    workdir: a folder for what the points share.
    mesh: over whose axis ``candidates`` the points are mapped; one device if
      None.
  """
  open_rows = [
    i
    for i, entry in enumerate(group.entries)
    if records.Run(name, entry.config, entry.workdir, quiet=True).record is None
  ]
  title = entries_lib.label(group.changes) or config.variant
  done = len(group.entries) - len(open_rows)
  console.say(
    f'{title}: {len(open_rows)} points'
    + (f', {done} others finished before' if done else '')
  )
  if not open_rows:
    return
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(group.changes)
  entries = [group.entries[i] for i in open_rows]
  points = door.points(config, [e.config for e in entries], workdir, mesh)
  candidates = {
    field: np.asarray([group.numbers[i][field] for i in open_rows])
    for field in group.numbers[0]
  }
  with console.progress(title[:12], len(entries)) as tick:

    def record(batch: mesh_lib.Batch) -> None:
      """Writes the records of the points of a batch."""
      finite = mesh_lib.finite(batch.results)
      for row, index in enumerate(batch.indices):
        entry = entries[index]
        if finite[row]:
          result = jax.tree.map(lambda x, row=row: x[row], batch.results)
          found = points.finish(entry.config, entry.workdir, result)
          tick(note(door.metrics(found)))
        else:
          save(name, entry.config, entry.workdir, mesh, {'failed': FAILED})
          tick(FAILED)

    mesh_lib.map_candidates(
      points.fn, candidates, mesh=mesh or _one_device(), progress=record
    )


def note(metrics: Mapping[str, float]) -> str:
  """Returns the first metric as text."""
  return next((f'{key} {x:.4g}' for key, x in metrics.items()), '')


def save(
  name: str,
  config: ml_collections.ConfigDict,
  workdir: str,
  mesh: jax.sharding.Mesh | None,
  values: dict[str, Any],
) -> dict[str, Any]:
  """Writes the record of a point; returns it."""
  out = records.Run(name, config, workdir, mesh=mesh, quiet=True)
  out.begin(None)
  return out.finish(values, quiet=True)


def read(entry: entries_lib.Entry) -> dict[str, Any] | None:
  """Returns the record of an entry, or None if it is not finished."""
  file = pathlib.Path(entry.workdir) / 'record.json'
  found: dict[str, Any] | None = None
  if file.exists():
    found = json.loads(file.read_text())
  return found


def _one_device() -> jax.sharding.Mesh:
  """Returns a mesh of one device, or of all where there are more processes."""
  several = jax.process_count() > 1
  devices = jax.devices() if several else jax.devices()[:1]
  return mesh_lib.make('candidates:-1', devices=devices)
