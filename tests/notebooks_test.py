"""Every notebook is small, bare and runs from top to bottom."""

import os
import pathlib

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / 'notebooks').glob('*.ipynb'))
CELLS, LINES = 30, 25

pytestmark = pytest.mark.parametrize(
  'path', NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS]
)


def code_cells(path):
  cells = nbformat.read(path, as_version=4).cells
  return [cell for cell in cells if cell.cell_type == 'code']


def test_notebook_is_small_and_bare(path):
  notebook = nbformat.read(path, as_version=4)
  nbformat.validate(notebook)
  assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
  assert notebook.metadata.kernelspec.name == 'python3'
  assert len(notebook.cells) <= CELLS
  assert notebook.cells[0].source.startswith('# ')
  for cell in code_cells(path):
    assert not cell.outputs, f'{cell.id} stores outputs: strip them'
    assert cell.execution_count is None, f'{cell.id} was counted: strip it'
    assert len(cell.source.splitlines()) <= LINES, f'{cell.id} is long'


def test_address_of_the_repository_is_one_variable(path):
  first, *others = [cell.source for cell in code_cells(path)]
  assert first.startswith("REPOSITORY = 'https://")
  assert '{REPOSITORY}' in first
  assert first.count('://') == 1
  assert not any('github.com' in source for source in others)


def test_notebook_runs(path, tmp_path):
  path_list = [str(ROOT), os.environ.get('PYTHONPATH', '')]
  # The kernel has JAX's defaults and one device, and compiles quickly.
  flags = os.environ['XLA_FLAGS'].split()
  flags = [flag for flag in flags if 'device_count' not in flag]
  env = {k: v for k, v in os.environ.items() if k != 'JAX_ENABLE_X64'}
  env |= {'PYTHONPATH': os.pathsep.join(filter(None, path_list))}
  env |= {'XLA_FLAGS': ' '.join(flags)}
  env |= {'IPYTHONDIR': str(tmp_path / 'ipython')}
  client = nbclient.NotebookClient(
    nbformat.read(path, as_version=4),
    timeout=240,
    kernel_name='python3',
    resources={'metadata': {'path': str(tmp_path)}},
  )
  client.execute(env=env)
