"""The folder of one run: its config, finished parts, metrics and record."""

from collections.abc import Callable
import json
import pathlib
import time
from typing import Any

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments._run import console, platforms
from wsl import checkpoint, types


class Run:
  """The folder of a run, from which an interrupted run continues.

  ``config.json`` holds the config, ``parts/`` the finished parts,
  ``metrics.jsonl`` a line for each of them, and ``record.json``, written last,
  marks a finished run. Process 0 writes.

  Attributes:
    record: of the run if it is finished, else None.
    title: the experiment and the variant.
    path: the folder.
    seconds: that each part took.
    mesh: of the run, or None.
  """

  def __init__(
    self,
    name: str,
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    mesh: jax.sharding.Mesh | None = None,
    quiet: bool = False,
  ):
    """Reads a folder; nothing is written yet.

    Args:
      name: the experiment.
      config: its config.
      workdir: the folder; it need not exist.
      mesh: of the run, which the record names. Another run may continue on
        another mesh.
      quiet: whether to print nothing about a finished run.

    Raises:
      ValueError: if the folder holds the run of another config.
    """
    self.path = pathlib.Path(workdir)
    self.title = f'{name} {config.variant}'
    self.config = {'experiment': name, **json.loads(config.to_json())}
    self.seconds: dict[str, float] = {}
    self.mesh = mesh
    self._writes = jax.process_index() == 0
    file = self.path / 'config.json'
    if file.exists():
      _check_same(file, self.config)
    self.record = self._finished(quiet)

  def begin(self, description: str | None) -> None:
    """Prints a description of the run, if given, and creates the folder."""
    if description is not None:
      console.say(description)
    if self._writes:
      (self.path / 'parts').mkdir(parents=True, exist_ok=True)
      _write_json(self.path / 'config.json', self.config)

  def _finished(self, quiet: bool) -> dict[str, Any] | None:
    """Reads the record of a finished run."""
    file = self.path / 'record.json'
    if not _exists(file):
      return None
    if not quiet:
      console.say(f'finished before: {file} (delete it to run again)')
    return _read_json(file)

  def arrays(
    self, name: str, compute: Callable[[], types.Tree], like: types.Tree = None
  ) -> types.Tree:
    """Computes a tree of arrays, or loads it if an earlier run did.

    Args:
      name: of the part, unique in the run.
      compute: returns the tree.
      like: a tree of the same structure, if that is not nested dicts.

    Returns:
      The tree.
    """
    file = self.path / 'parts' / f'{name}.safetensors'
    if _exists(file):
      tree = checkpoint.load(file, like=like)
      self._remember(name, float(checkpoint.metadata(file)['seconds']))
      return jax.tree.map(jnp.asarray, tree)
    start = time.monotonic()
    tree = jax.block_until_ready(compute())
    seconds = time.monotonic() - start
    checkpoint.save(file, tree, metadata={'seconds': f'{seconds:.3f}'})
    self._finish(name, seconds)
    return tree

  def values(self, name: str, compute: Callable[[], Any]) -> Any:
    """Computes numbers and text, or loads them; stored as JSON.

    Args:
      name: of the part, unique in the run.
      compute: returns the values.

    Returns:
      The values after a round trip through JSON.
    """
    file = self.path / 'parts' / f'{name}.json'
    if _exists(file):
      stored = _read_json(file)
      self._remember(name, stored['seconds'])
      return stored['values']
    start = time.monotonic()
    values = json.loads(json.dumps(compute()))
    seconds = time.monotonic() - start
    if self._writes:
      _write_json(file, {'seconds': seconds, 'values': values})
    self._finish(name, seconds)
    return values

  def log(self, *rows: dict[str, Any]) -> None:
    """Appends a line for each row to ``metrics.jsonl``."""
    if self._writes:
      with (self.path / 'metrics.jsonl').open('a') as file:
        file.writelines(json.dumps(row) + '\n' for row in rows)

  def finish(
    self, record: dict[str, Any], *, quiet: bool = False
  ) -> dict[str, Any]:
    """Writes ``record.json``: config, versions, device, times and results.

    Args:
      record: the results.
      quiet: whether to print nothing.

    Returns:
      The whole record.
    """
    whole = {
      'config': self.config,
      'versions': platforms.versions(),
      'device': platforms.device(self.mesh),
      'seconds': {k: round(v, 3) for k, v in self.seconds.items()},
      **record,
    }
    whole = json.loads(json.dumps(whole))
    if self._writes:
      _write_json(self.path / 'record.json', whole)
      files = sorted(p.name for p in self.path.iterdir() if p.is_file())
      if not quiet:
        console.say(f'written to {self.path}: {", ".join(files)}')
    return whole

  def _remember(self, name: str, seconds: float) -> None:
    """Notes a part that an earlier run finished."""
    console.say(f'{name:<12} done before')
    self.seconds[name] = seconds

  def _finish(self, name: str, seconds: float) -> None:
    """Notes a part that this run finished."""
    self.seconds[name] = seconds
    self.log({'part': name, 'seconds': round(seconds, 3)})


def _exists(file: pathlib.Path) -> bool:
  """Returns whether a file exists, on which all processes have to agree.

  Otherwise one would load a part that the others compute together.
  """
  here = file.exists()
  if jax.process_count() == 1:
    return here
  found = multihost_utils.process_allgather(np.asarray(here))
  if found.any() != found.all():
    raise ValueError(
      f'{file} is there for some processes only: give a --workdir on a file '
      'system that all of them share'
    )
  return here


def _check_same(file: pathlib.Path, config: dict[str, Any]) -> None:
  """Checks that a stored config equals this one, field by field."""
  there, here = _flat(_read_json(file)), _flat(config)
  for name in sorted({*there, *here}):
    if there.get(name) != here.get(name):
      raise ValueError(
        f'{file.parent} holds the run of another config ({name}: '
        f'{there.get(name)} there, {here.get(name)} here): choose another '
        '--workdir, or delete it'
      )


def _flat(node: Any, prefix: str = '') -> dict[str, Any]:
  """Flattens nested dicts to one level, keys joined by dots."""
  if not isinstance(node, dict):
    return {prefix[:-1]: node}
  pairs = (_flat(v, f'{prefix}{k}.').items() for k, v in node.items())
  return dict(pair for group in pairs for pair in group)


def _read_json(file: pathlib.Path) -> Any:
  """Reads a JSON file; the error of a damaged one names it."""
  try:
    return json.loads(file.read_text())
  except json.JSONDecodeError as error:
    raise ValueError(
      f'{file} is damaged ({error}): delete it to compute that part again'
    ) from None


def _write_json(file: pathlib.Path, value: Any) -> None:
  """Writes a file atomically."""
  part = file.with_suffix('.json.part')
  part.write_text(json.dumps(value, indent=2) + '\n')
  part.replace(file)
