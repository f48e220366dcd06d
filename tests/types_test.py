"""A type checker sees the rooms, and tells a merge from a stack."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
SNIPPET = """
from typing import Any
import jax
import jax.numpy as jnp
import wsl
from wsl import types

def f(base: dict[str, Any], models: list[Any]) -> None:
  stack = wsl.deltas.stack(base, models)
  merged = wsl.merge.ties(stack, density=0.2)
  wsl.deltas.apply(base, merged, coef=0.3)['w'].shape
  wsl.merge.sum(wsl.merge.trim(stack, density=0.2))['w'].shape
  wsl.merge.sum({'w': jnp.ones((2, 3))})
  wsl.merge.sum(jax.tree.map(jnp.abs, stack))
  wsl.merge.ties(merged, density=0.2)
  wsl.deltas.apply(base, stack)
  wsl.merge.tyes(stack)
"""
# The types of wsl are read, and checked elsewhere: without those of its
# dependencies, which would take four times as long, some need an annotation.
SETTINGS = """
[mypy]
python_version = 3.11
ignore_missing_imports = True
[mypy-chex.*,flax.*,jax.*,jaxlib.*,ml_dtypes.*,numpy.*,optax.*,orbax.*,scipy.*]
follow_imports = skip
[mypy-wsl.*]
ignore_errors = True
"""
MISTAKES = (
  (15, 'Argument 1 to "ties" has incompatible type "_Merged | '),
  (16, 'Argument 2 to "apply" has incompatible type "_Stacked | '),
  (17, 'Module has no attribute "tyes"'),
)


def test_mypy_tells_a_delta_from_deltas(tmp_path: pathlib.Path) -> None:
  """It takes 2 seconds, and no cache, which another run of mypy may share."""
  file, settings = tmp_path / 'snippet.py', tmp_path / 'settings'
  file.write_text(SNIPPET)
  settings.write_text(SETTINGS)
  command = [sys.executable, '-m', 'mypy', '--cache-dir', os.devnull]
  done = subprocess.run(
    [*command, '--config-file', str(settings), str(file)],
    cwd=ROOT,
    env={**os.environ, 'MYPYPATH': str(ROOT)},
    capture_output=True,
    text=True,
  )
  lines = done.stdout.splitlines()
  assert len(lines) == len(MISTAKES) + 1, done.stdout + done.stderr
  for line, (place, message) in zip(lines, MISTAKES):
    assert f'snippet.py:{place}: error: {message}' in line, line
