"""What the processes of a run must agree on: versions, code and config."""

from collections.abc import Mapping
import hashlib
import json
import pathlib
import platform
import sys
from typing import Any

import jax

from wsl import tree


def fingerprint(config: Any) -> dict[str, str]:
  """Returns what a process runs, by name: texts, and digests of files.

  Files are those of this package, and imported modules outside of the folders
  of Python, such as an experiment and its helpers.
  """
  package = pathlib.Path(__file__).parents[2]
  files = {
    path.relative_to(package.parent).as_posix(): path
    for path in package.rglob('*.py')
  }
  interpreter = {sys.prefix, sys.base_prefix, sys.exec_prefix}
  inside = tuple(f'{folder}/' for folder in interpreter)
  for name, module in list(sys.modules.items()):
    path = str(getattr(module, '__file__', None) or '')
    if path.endswith('.py') and not path.startswith((*inside, str(package))):
      files[name] = pathlib.Path(path)
  found = {'the version of Python': platform.python_version()}
  found['the version of jax'] = jax.__version__
  for name, file in files.items():
    if file.is_file():
      digest = hashlib.sha256(file.read_bytes()).hexdigest()
      found[f'file {name}'] = digest[:12]
  return found | _settings(config)


def compare(process: int, ours: str, theirs: str) -> None:
  """Compares the fingerprints of this process and of process 0, as JSON.

  Raises:
    ValueError: naming the first difference.
  """
  if ours == theirs:
    return
  mine, first = json.loads(ours), json.loads(theirs)
  names = sorted({*mine, *first}, key=lambda name: (name[:4] == 'file', name))
  name = next(n for n in names if mine.get(n) != first.get(n))
  raise ValueError(
    f'start: process {process} differs from process 0 in {name} '
    f'({mine.get(name, "absent")}, there {first.get(name, "absent")}): start '
    'all with the same code and config'
  )


def _settings(config: Any) -> dict[str, str]:
  """Returns the values of a config by name, or its text."""
  if isinstance(config, Mapping):
    values = tree.named(dict(config), is_leaf=lambda x: x is None)
    return {f"config '{name}'": str(value) for name, value in values.items()}
  return {} if config is None else {'config': str(config)}
