"""The folder of one run: its config, finished parts, metrics and record."""

from collections.abc import Callable
import json
import os
import pathlib
import platform
import time
from typing import Any

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from experiments._run import console
import wsl
from wsl import checkpoint, types


class Run:
  """A folder that remembers which parts of a run are finished.

  ``config.json`` says whose folder it is, ``parts/`` holds finished parts,
  ``metrics.jsonl`` gets a line as each is finished, and ``record.json`` is
  written last: a run is finished when it is there. Process 0 writes.
  """

  def __init__(
    self, name: str, config: ml_collections.ConfigDict, workdir: str
  ):
    """Looks at a folder; nothing is written yet.

    Args:
      name: the experiment.
      config: its config.
      workdir: the folder; it need not exist.

    Raises:
      ValueError: if the folder holds the run of another config.
    """
    self.path = pathlib.Path(workdir)
    self.config = {'experiment': name, **json.loads(config.to_json())}
    self.seconds: dict[str, float] = {}
    self._writes = jax.process_index() == 0
    file = self.path / 'config.json'
    if file.exists():
      _check_same(file, self.config)

  def begin(self) -> None:
    """Makes the folder its own."""
    if self._writes:
      (self.path / 'parts').mkdir(parents=True, exist_ok=True)
      _write_json(self.path / 'config.json', self.config)

  def finished(self) -> dict[str, Any] | None:
    """Returns the record of a finished run."""
    file = self.path / 'record.json'
    if not file.exists():
      return None
    console.say(f'finished before: {file} (delete it to run again)')
    return _read_json(file)

  def arrays(
    self, name: str, compute: Callable[[], types.Tree], like: types.Tree = None
  ) -> types.Tree:
    """Computes a tree of arrays, or loads it if an earlier run did.

    Args:
      name: the part's, unique in the run.
      compute: makes the tree.
      like: the structure, where it is more than nested dicts.

    Returns:
      The tree.
    """
    file = self.path / 'parts' / f'{name}.safetensors'
    if file.exists():
      tree = checkpoint.load(file, like=like)
      self._remember(name, float(checkpoint.metadata(file)['seconds']))
      return jax.tree.map(jnp.asarray, tree)
    start = time.monotonic()
    tree = jax.block_until_ready(compute())
    seconds = time.monotonic() - start
    checkpoint.save(file, tree, metadata={'seconds': f'{seconds:.3f}'})
    self._finish(name, seconds)
    return tree

  def values(self, name: str, compute: Callable[[], dict[str, Any]]) -> Any:
    """As ``arrays``, for numbers and text, kept as JSON.

    Args:
      name: the part's, unique in the run.
      compute: makes the values.

    Returns:
      The values, as JSON gives them back.
    """
    file = self.path / 'parts' / f'{name}.json'
    if file.exists():
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

  def log(self, **metrics: Any) -> None:
    """Adds a line to ``metrics.jsonl``."""
    if self._writes:
      with (self.path / 'metrics.jsonl').open('a') as file:
        file.write(json.dumps(metrics) + '\n')

  def finish(self, record: dict[str, Any]) -> dict[str, Any]:
    """Writes ``record.json``: what ran where, how long, and what came out.

    Args:
      record: the results.

    Returns:
      The whole record.
    """
    whole = {
      'config': self.config,
      'versions': versions(),
      'device': device(),
      'seconds': {k: round(v, 3) for k, v in self.seconds.items()},
      **record,
    }
    whole = json.loads(json.dumps(whole))
    if self._writes:
      _write_json(self.path / 'record.json', whole)
      files = sorted(p.name for p in self.path.iterdir() if p.is_file())
      console.say(f'written to {self.path}: {", ".join(files)}')
    return whole

  def _remember(self, name: str, seconds: float) -> None:
    console.say(f'{name:<12} done before')
    self.seconds[name] = seconds

  def _finish(self, name: str, seconds: float) -> None:
    self.seconds[name] = seconds
    self.log(part=name, seconds=round(seconds, 3))


def versions() -> dict[str, str]:
  """Returns the versions that a result depends on."""
  modules = {'wsl': wsl, 'jax': jax, 'flax': flax, 'optax': optax, 'numpy': np}
  found = {name: str(m.__version__) for name, m in modules.items()}
  return {'python': platform.python_version(), **found}


def device() -> dict[str, Any]:
  """Returns what the run computes on."""
  first = jax.devices()[0]
  return {
    'platform': first.platform,
    'kind': first.device_kind,
    'devices': jax.device_count(),
    'processes': jax.process_count(),
    'cores': os.cpu_count(),
  }


def _check_same(file: pathlib.Path, config: dict[str, Any]) -> None:
  there, here = _flat(_read_json(file)), _flat(config)
  for name in sorted({*there, *here}):
    if there.get(name) != here.get(name):
      raise ValueError(
        f'{file.parent} holds the run of another config ({name}: '
        f'{there.get(name)} there, {here.get(name)} here): choose another '
        '--workdir, or delete it'
      )


def _flat(node: Any, prefix: str = '') -> dict[str, Any]:
  if not isinstance(node, dict):
    return {prefix[:-1]: node}
  pairs = (_flat(v, f'{prefix}{k}.').items() for k, v in node.items())
  return dict(pair for group in pairs for pair in group)


def _read_json(file: pathlib.Path) -> Any:
  try:
    return json.loads(file.read_text())
  except json.JSONDecodeError as error:
    raise ValueError(
      f'{file} is damaged ({error}): delete it to compute that part again'
    ) from None


def _write_json(file: pathlib.Path, value: Any) -> None:
  """Writes a file that is there whole or not at all."""
  part = file.with_suffix('.json.part')
  part.write_text(json.dumps(value, indent=2) + '\n')
  part.replace(file)
