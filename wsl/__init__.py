"""Weight-space experiments: pure functions on pytrees of parameters.

Rooms are imported on first access, so ``import wsl`` does not import libraries
that only some rooms need. Type checkers and editors see all of them. Modules
that are not listed (``wsl.auxiliary``, ``wsl.batches``, ``wsl.deprecation``,
``wsl.jaxprs``, ``wsl.optimizers``) serve the rooms and are not public.
"""

import importlib
import types as _types
from typing import TYPE_CHECKING

__version__ = '0.1.0'

_ROOMS = (
  'adapters',
  'align',
  'checkpoint',
  'codecs',
  'data',
  'deltas',
  'landscape',
  'merge',
  'mesh',
  'models',
  'recipes',
  'scale',
  'search',
  'stats',
  'stitch',
  'surgery',
  'train',
  'tree',
  'types',
)

if TYPE_CHECKING:
  from wsl import adapters as adapters
  from wsl import align as align
  from wsl import checkpoint as checkpoint
  from wsl import codecs as codecs
  from wsl import data as data
  from wsl import deltas as deltas
  from wsl import landscape as landscape
  from wsl import merge as merge
  from wsl import mesh as mesh
  from wsl import models as models
  from wsl import recipes as recipes
  from wsl import scale as scale
  from wsl import search as search
  from wsl import stats as stats
  from wsl import stitch as stitch
  from wsl import surgery as surgery
  from wsl import train as train
  from wsl import tree as tree
  from wsl import types as types
else:

  def __getattr__(name: str) -> _types.ModuleType:
    """Imports a room."""
    if name in _ROOMS:
      return importlib.import_module(f'wsl.{name}')
    raise AttributeError(f"module 'wsl' has no room '{name}': {list(_ROOMS)}")

  def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
