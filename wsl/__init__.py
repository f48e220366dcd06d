"""Weight-space experiments: pure functions on pytrees of parameters."""

import importlib
import typing

from wsl import deltas as deltas
from wsl import landscape as landscape
from wsl import merge as merge
from wsl import scale as scale
from wsl import stats as stats
from wsl import tree as tree
from wsl import types as types

if typing.TYPE_CHECKING:
  from wsl import checkpoint as checkpoint
  from wsl import data as data
  from wsl import models as models
  from wsl import train as train

__version__ = '0.1.0'

# These rooms bring Flax, optax and Orbax with them: opened when asked for.
_LAZY = ('checkpoint', 'data', 'models', 'train')


def __getattr__(name: str) -> typing.Any:
  if name in _LAZY:
    return importlib.import_module(f'wsl.{name}')
  raise AttributeError(f"module 'wsl' has no attribute '{name}'")


def __dir__() -> list[str]:
  return sorted([*globals(), *_LAZY])
