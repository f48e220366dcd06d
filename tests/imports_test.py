"""Rooms import only downwards, and the house opens quickly."""

import ast
import pathlib
import subprocess
import sys

import pytest

WSL = pathlib.Path(__file__).parents[1] / 'wsl'

# Each room may import the floors below its own.
FLOORS = (
  {'types'},
  {'deprecation'},
  {'tree'},
  {'batches', 'deltas', 'jaxprs', 'mesh'},
  {'stats'},
  {'merge', 'align', 'stitch', 'scale', 'adapters', 'codecs'}
  | {'landscape', 'models', 'data'},
  {'surgery', 'search', 'train', 'checkpoint'},
)
HEAVY = ('flax', 'optax', 'orbax', 'chex', 'scipy', 'sklearn', 'matplotlib')


def rooms() -> dict[str, list[pathlib.Path]]:
  found = {}
  for path in sorted(WSL.iterdir()):
    if path.is_dir() and (path / '__init__.py').exists():
      found[path.name] = sorted(path.rglob('*.py'))
    elif path.suffix == '.py' and path.stem != '__init__':
      found[path.stem] = [path]
  return found


def imported(path: pathlib.Path) -> set[str]:
  """Returns every module that a file imports, as 'package.module'."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


def floor(room: str) -> int:
  return next(i for i, names in enumerate(FLOORS) if room in names)


def test_every_room_has_a_floor() -> None:
  known = set().union(*FLOORS)
  assert set(rooms()) <= known


@pytest.mark.parametrize('room', rooms())
def test_rooms_import_only_downwards(room: str) -> None:
  for path in rooms()[room]:
    for name in imported(path):
      package, _, rest = name.partition('.')
      other = rest.partition('.')[0]
      if package == 'wsl' and other != room:
        assert other, f'{path.name} imports the whole of wsl'
        assert floor(other) < floor(room), f'{path.name} imports {name}'


def test_the_library_knows_no_experiment_no_flag_and_no_plot() -> None:
  for path in WSL.rglob('*.py'):
    for name in imported(path):
      top = name.split('.')[0]
      assert top not in ('experiments', 'configs', 'absl', 'matplotlib'), path


def test_the_library_does_not_print() -> None:
  for path in WSL.rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        assert node.func.id != 'print', path


def test_modules_are_imported_not_symbols() -> None:
  """`from wsl.merge import _models`, not `from wsl.merge._models import x`."""
  for path in WSL.rglob('*.py'):
    if path.name == '__init__.py':
      continue
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.ImportFrom) and node.module.startswith('wsl'):
        for alias in node.names:
          parts = [*node.module.split('.')[1:], alias.name]
          place = WSL.joinpath(*parts)
          found = place.is_dir() or place.with_suffix('.py').exists()
          assert found, f'{path.name}: from {node.module} import {alias.name}'


def test_import_wsl_loads_nothing_heavy() -> None:
  code = (
    'import sys, wsl; wsl.merge.ties, wsl.deltas, wsl.tree, wsl.scale; '
    'print(*{name.split(".")[0] for name in sys.modules})'
  )
  result = subprocess.run(
    [sys.executable, '-c', code],
    cwd=WSL.parent,
    capture_output=True,
    text=True,
    check=True,
  )
  loaded = set(result.stdout.split())
  assert 'jax' in loaded
  assert not loaded & {*HEAVY, 'experiments', 'absl'}
