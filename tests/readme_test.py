"""The README's code runs, and its table names every public method."""

import pathlib
import re
import types

import numpy as np

from wsl import align, merge, scale, stats, stitch

README = pathlib.Path(__file__).parents[1] / 'README.md'


def test_quickstart_runs(tmp_path, monkeypatch, capsys):
  text = README.read_text()
  code = re.search(
    r'<!-- quickstart -->\n```python\n(.*?)```', text, re.DOTALL
  )[1]
  assert len(code.strip().splitlines()) <= 13
  monkeypatch.chdir(tmp_path)
  exec(compile(code, 'README.md', 'exec'), {})
  assert float(capsys.readouterr().out) != 0
  assert (tmp_path / 'merged.safetensors').stat().st_size > 10_000


def test_alignment_runs(capsys):
  text = README.read_text()
  code = re.search(r'<!-- align -->\n```python\n(.*?)```', text, re.DOTALL)[1]
  scope = {}
  exec(compile(code, 'README.md', 'exec'), scope)
  assert '9 groups' in capsys.readouterr().out
  a, b = (scope['apply_fn'](scope[n], scope['x']) for n in ('near', 'b'))
  np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


def test_stitching_runs(capsys):
  text = README.read_text()
  code = re.search(r'<!-- stitch -->\n```python\n(.*?)```', text, re.DOTALL)[1]
  scope = {}
  exec(compile(code, 'README.md', 'exec'), scope)
  assert '18 networks, 5 maps' in capsys.readouterr().out
  assert {y.shape for y in scope['outputs']} == {(256, 10)}
  assert scope['flops'][0] < min(scope['flops'][1:])


def test_every_public_method_is_in_the_table():
  table = README.read_text()
  for room in (align, merge, scale, stats, stitch):
    for name, value in vars(room).items():
      alias = hasattr(value, '__deprecated__')
      if isinstance(value, types.FunctionType) and not alias:
        assert f'{name}`' in table, name


def test_the_main_command_names_files_that_exist():
  command = re.search(r'python -m (\S+) --config=(\S+?):', README.read_text())
  module, config = command[1], command[2]
  assert (README.parent / (module.replace('.', '/') + '.py')).exists()
  assert (README.parent / config).exists()
