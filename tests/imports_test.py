"""Rooms import downwards, keep their modules private, and stay small."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
WSL = ROOT / 'wsl'

# Each room may import the floors below its own.
FLOORS = (
  {'types'},
  {'deprecation'},
  {'tree'},
  {'auxiliary', 'batches', 'deltas', 'jaxprs', 'mesh', 'optimizers'},
  {'stats'},
  {'merge', 'align', 'stitch', 'scale', 'adapters'}
  | {'landscape', 'models', 'data'},
  {'surgery', 'search', 'train', 'checkpoint'},
  {'codecs', 'recipes'},
)
# Private modules that every experiment may import.
SHARED = {'experiments._main', 'experiments._run', 'experiments._shared'}
MOST_FILES = 15
# One file for each question, named in its command: they grow with questions.
CATALOGUES = ('experiments', 'configs')
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


def test_the_library_imports_no_experiment_flag_or_plot() -> None:
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


def module_of(path: pathlib.Path) -> str:
  """Returns the dotted name of a file."""
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts).removesuffix('.__init__')


def trespasses(module: str, name: str) -> bool:
  """Returns True if a module may not import ``name``, as it is private.

  The first component with an underscore makes a name private to the package
  that holds it; the folder ``experiments._NAME`` to ``experiments.NAME``.
  """
  parts = name.split('.')
  private = next((i for i, p in enumerate(parts) if p.startswith('_')), None)
  if parts[0] not in ('wsl', 'experiments', 'configs') or private is None:
    return False
  owner = '.'.join(parts[:private])
  if owner == 'experiments' and '.'.join(parts[: private + 1]) not in SHARED:
    folder = module.split('.')[1].removeprefix('_')
    return module.split('.')[0] != owner or f'_{folder}' != parts[private]
  return module != owner and not module.startswith(f'{owner}.')


def attributes(path: pathlib.Path) -> set[str]:
  """Returns ``room._name`` for every private attribute of an imported room."""
  nodes = [*ast.walk(ast.parse(path.read_text()))]
  origin = {
    alias.asname or alias.name: f'{node.module}.{alias.name}'
    for node in nodes
    if isinstance(node, ast.ImportFrom)
    and node.module in ('wsl', 'experiments', 'configs')
    for alias in node.names
  }
  return {
    f'{origin[node.value.id]}.{node.attr}'
    for node in nodes
    if isinstance(node, ast.Attribute)
    and isinstance(node.value, ast.Name)
    and node.value.id in origin
    and not node.attr.startswith('__')
  }


@pytest.mark.parametrize('root', ['wsl', 'experiments', 'configs'])
def test_private_modules_are_imported_by_their_own_room(root: str) -> None:
  for path in (ROOT / root).rglob('*.py'):
    module = module_of(path)
    for name in imported(path) | attributes(path):
      assert not trespasses(module, name), f'{module} imports {name}'


@pytest.mark.parametrize(
  ('module', 'name', 'wanted'),
  [
    ('wsl.align', 'wsl.align._check.check', False),
    ('wsl.align._activations.capture', 'wsl.align._find.axis_tree', False),
    ('wsl.stitch._fit.features', 'wsl.stats._batches', True),
    ('wsl.alignment', 'wsl.align._check', True),
    ('wsl.stitch._fit.features', 'wsl.stats.Gram', False),
    ('experiments.relative', 'wsl.align._find.find', True),
    ('configs.relative', 'experiments._relative.settings', True),
    ('configs.relative', 'configs._variants', False),
    ('experiments.relative', 'experiments._relative.settings', False),
    ('experiments._relative.report', 'experiments._relative.settings', False),
    ('experiments.relative', 'experiments._assemble.settings', True),
    ('experiments._relative.report', 'experiments._assemble.dery', True),
    ('experiments._relative.report', 'experiments._run.record', False),
    ('experiments.relative', 'experiments._main', False),
    ('wsl.merge', 'experiments._run.record', True),
  ],
)
def test_private_modules_have_one_owner(
  module: str, name: str, wanted: bool
) -> None:
  assert trespasses(module, name) == wanted


@pytest.mark.parametrize('root', ['wsl', 'experiments'])
def test_no_folder_has_too_many_files(root: str) -> None:
  folders = {path.parent for path in (ROOT / root).rglob('*.py')}
  for folder in folders:
    name, count = str(folder.relative_to(ROOT)), len([*folder.glob('*.py')])
    if name not in CATALOGUES:
      assert count <= MOST_FILES, f'{name}: {count} files'


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
