"""The code of the READMEs runs, and the tables are those of the docstrings."""

import importlib.util
import pathlib
import re

import numpy as np
import pytest
import yaml

from wsl import align, merge, recipes, scale, stats, stitch

ROOT = pathlib.Path(__file__).parents[1]
README, ROOMS = ROOT / 'README.md', ROOT / 'wsl' / 'README.md'
EXPERIMENTS = ROOT / 'experiments' / 'README.md'


def code(file: pathlib.Path, mark: str) -> str:
  """Returns the Python block that follows a mark."""
  pattern = rf'<!-- {mark} -->\n```python\n(.*?)```'
  return re.search(pattern, file.read_text(), re.DOTALL)[1]


def run(file: pathlib.Path, mark: str) -> dict:
  """Runs a block and returns its variables."""
  scope = {}
  exec(compile(code(file, mark), file.name, 'exec'), scope)
  return scope


def test_quickstart_runs(tmp_path, monkeypatch, capsys):
  assert len(code(README, 'quickstart').strip().splitlines()) <= 13
  monkeypatch.chdir(tmp_path)
  run(README, 'quickstart')
  assert float(capsys.readouterr().out) != 0
  assert (tmp_path / 'merged.safetensors').stat().st_size > 10_000


def test_the_recipe_is_one():
  pattern = r'<!-- recipe -->\n```yaml\n(.*?)```'
  text = re.search(pattern, README.read_text(), re.DOTALL)[1]
  recipe = recipes.parse(yaml.safe_load(text))
  assert list(map(str, recipes.models(recipe))) == [
    'base', 'expert_1', 'expert_2',
  ]  # fmt: skip


def test_alignment_runs(capsys):
  scope = run(ROOMS, 'align')
  assert '9 groups' in capsys.readouterr().out
  a, b = (scope['apply_fn'](scope[n], scope['x']) for n in ('near', 'b'))
  np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


def test_gauges_run():
  scope = run(ROOMS, 'gauges')
  kinds = {action.kind for action in scope['symmetry'].actions}
  assert kinds == {'linear', 'rotation'}
  a, b = (
    scope['apply_fn'](p, scope['x']) for p in (scope['near'], scope['b'].params)
  )
  np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


def test_stitching_runs(capsys):
  scope = run(ROOMS, 'stitch')
  assert '18 networks, 5 maps' in capsys.readouterr().out
  assert {y.shape for y in scope['outputs']} == {(256, 10)}
  assert scope['flops'][0] < min(scope['flops'][1:])


def tables():
  """Loads the script that writes the tables."""
  path = ROOT / '.ci' / 'method_tables.py'
  spec = importlib.util.spec_from_file_location('method_tables', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_the_tables_are_those_of_the_docstrings():
  text = ROOMS.read_text()
  assert text == tables().rewrite(text), 'run python .ci/method_tables.py'


def test_every_public_name_is_in_a_table():
  text, script = ROOMS.read_text(), tables()
  for room in (align, merge, scale, stats, stitch):
    names = script.public(room)
    assert len(names) > 5
    for name in names:
      assert f'\n| `{name}` | ' in text, name


def test_the_readme_is_short():
  assert len(README.read_text().splitlines()) <= 180


@pytest.mark.parametrize(
  'file', [README, ROOMS, EXPERIMENTS], ids=['project', 'rooms', 'experiments']
)
def test_links_and_figures_exist(file):
  links = re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', file.read_text())
  for link in links:
    assert (file.parent / link).exists(), link


def test_every_figure_is_shown():
  text = EXPERIMENTS.read_text()
  for path in (ROOT / 'experiments' / 'figures').glob('*.png'):
    assert f'(figures/{path.name})' in text, path.name


def test_every_experiment_has_a_section():
  text = EXPERIMENTS.read_text()
  for path in (ROOT / 'experiments').glob('[!_]*.py'):
    assert f'\n## {path.stem}\n' in text, path.stem
    assert f'python -m experiments.{path.stem} ' in text, path.stem


def test_commands_name_files_that_exist():
  for file in (README, EXPERIMENTS):
    text = file.read_text()
    commands = re.findall(
      r'python -m (experiments\.\S+) --config=(\S+?):', text
    )
    assert commands
    for module, config in commands:
      if module != 'experiments.NAME':
        assert (ROOT / (module.replace('.', '/') + '.py')).exists(), module
        assert (ROOT / config).exists(), config
