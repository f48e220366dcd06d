"""Weight-space experiments: pure functions on pytrees of parameters.

Rooms are opened when they are asked for, so that ``import wsl`` is free of the
libraries that only some of them need.
"""

import importlib
import types as _types

__version__ = '0.1.0'

_ROOMS = (
  'align',
  'checkpoint',
  'data',
  'deltas',
  'landscape',
  'merge',
  'models',
  'scale',
  'stats',
  'stitch',
  'train',
  'tree',
  'types',
)


def __getattr__(name: str) -> _types.ModuleType:
  if name in _ROOMS:
    return importlib.import_module(f'wsl.{name}')
  raise AttributeError(f"module 'wsl' has no room '{name}': {list(_ROOMS)}")


def __dir__() -> list[str]:
  return sorted([*globals(), *_ROOMS])
