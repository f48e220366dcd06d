"""wsl-merge --lora_rank: the merged model as a LoRA of its base."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest
import safetensors
import yaml

from tests.recipes import folders
from wsl import checkpoint, deltas, tree
from wsl.recipes import _adapter, _command


def write(
  root: pathlib.Path, architecture: str, dtype: str = 'float32'
) -> pathlib.Path:
  """Writes a base, and two models that differ from it by rank 1 and norms."""
  base = folders.tensors(folders.SHAPES[architecture](), 0, dtype)
  folders.write(root / 'base', architecture, 0, dtype)
  for seed, name in ((1, 'one'), (2, 'two')):
    params = {}
    for i, (key, x) in enumerate(base.items()):
      draw = np.random.default_rng([seed, i]).standard_normal
      rows = draw(x.shape[:1] + (1,) * (x.ndim - 1))
      added = 0.1 * rows * (draw(x.shape[1:]) if x.ndim > 1 else 1)
      params[key] = np.float32(x) + np.float32(added)
    folder = root / name
    checkpoint.save(folder, params, metadata={'format': 'pt'})
    config = folders.CONFIGS[architecture]
    (folder / 'config.json').write_text(json.dumps(config))
  recipe = {
    'merge_method': 'task_arithmetic',
    'base_model': 'base',
    'models': [
      {'model': name, 'parameters': {'weight': 0.5}} for name in ('one', 'two')
    ],
    'dtype': dtype,
  }
  (root / 'r.yml').write_text(yaml.safe_dump(recipe))
  return root


def models(root: pathlib.Path) -> tuple[dict[str, Any], ...]:
  """Returns the merge, and the base with the LoRA of the merge."""
  base = checkpoint.load(root / 'base')
  one, two = (checkpoint.load(root / name) for name in ('one', 'two'))
  wide = {k: np.float64(x) for k, x in base.items()}
  wanted = {
    k: x + 0.5 * (one[k] - x) + 0.5 * (two[k] - x) for k, x in wide.items()
  }
  delta = checkpoint.load_lora(base, root / 'lora')
  return wanted, tree.read(deltas.apply(base, delta))


def test_a_merge_of_two_loras_is_a_lora_of_both_ranks(
  tmp_path: pathlib.Path,
  monkeypatch: Any,
  capsys: pytest.CaptureFixture[str],
) -> None:
  monkeypatch.chdir(write(tmp_path, 'gpt2'))
  _command.main(['r.yml', 'lora', '--lora_rank', '2', '--checksums'])
  shown = capsys.readouterr().out
  assert 'factors of rank 2 or less' in shown
  assert 'the LoRA: ' in shown
  assert 'relative errors of the difference: median' in shown
  with safetensors.safe_open('lora/adapter_model.safetensors', 'np') as file:
    hashes = json.loads(file.metadata()['wsl.sha256'])
    assert hashes.keys() == set(file.keys())
  wanted, found = models(tmp_path)  # verifies them
  for name, x in wanted.items():
    np.testing.assert_allclose(found[name], x, rtol=0, atol=2e-6)
  options = json.loads(pathlib.Path('lora/adapter_config.json').read_text())
  assert options['base_model_name_or_path'] == 'base'
  text = pathlib.Path('r.yml').read_text()
  assert pathlib.Path('lora/recipe.yml').read_text() == text
  assert '# lora' in pathlib.Path('lora/README.md').read_text()
  assert options['task_type'] == 'CAUSAL_LM'
  assert 'lm_head' in options['target_modules']  # tied to the embedding
  assert options['fan_in_fan_out']
  # Modules have the names of the class, whose inner model is in the file.
  assert 'transformer.h.0.attn.c_attn' in options['target_modules']


def test_a_rank_that_is_too_low_is_an_error_that_is_printed(
  tmp_path: pathlib.Path,
  monkeypatch: Any,
  capsys: pytest.CaptureFixture[str],
) -> None:
  """The base is in bfloat16: the difference is not rounded to it first."""
  monkeypatch.chdir(write(tmp_path, 'llama', 'bfloat16'))
  _command.main(['r.yml', 'lora', '--lora_rank', '1'])
  shown = capsys.readouterr().out
  lines = shown.split(':\n')[-1].splitlines()
  errors = [float(line.split()[0]) for line in lines]
  assert errors == sorted(errors, reverse=True)
  assert len(errors) == 10
  wanted, found = models(tmp_path)
  base = checkpoint.load(tmp_path / 'base')
  delta = checkpoint.load_lora(base, tmp_path / 'lora')
  name = lines[0].split()[1].removesuffix(',')
  difference = wanted[name] - np.float64(base[name])
  measured = np.linalg.norm(np.float64(tree.read(delta[name])) - difference)
  assert measured / np.linalg.norm(difference) == pytest.approx(
    errors[0], rel=1e-2
  )
  assert found[name].dtype == base[name].dtype


def test_differences_have_the_dtype_of_the_recipe() -> None:
  base = {'w': np.ones(2)}
  x = 1 + 1e-12
  merged = {'w': np.asarray([1.0, x])}
  for dtype in ('float64', 'float32'):
    found = tree.read(_adapter._difference(base, merged, dtype))['w']
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.asarray([0, x - 1], dtype))


def test_a_merge_that_changes_no_matrix_is_refused(
  tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
  monkeypatch.chdir(tmp_path)
  w = {'a.weight': np.eye(3, dtype=np.float32), 'a.bias': np.zeros(3, 'f4')}
  checkpoint.save('base', w)
  checkpoint.save('one', w | {'a.bias': np.ones(3, 'f4')})
  models = [{'model': 'one', 'parameters': {'weight': 1.0}}]
  recipe = {'merge_method': 'task_arithmetic', 'base_model': 'base'}
  text = yaml.safe_dump(recipe | {'models': models})
  pathlib.Path('r.yml').write_text(text)
  with pytest.raises(SystemExit, match='error: --lora_rank: no matrix of the'):
    _command.main(['r.yml', 'lora', '--lora_rank', '2'])
  assert not pathlib.Path('lora').exists()


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'base_model': None, 'merge_method': 'linear'}, 'set base_model'),
    ({'out': 'base'}, 'give a new folder'),
    ({'rank': '0'}, 'expected at least 1'),
  ],
)
def test_mistakes(
  change: dict[str, Any],
  message: str,
  tmp_path: pathlib.Path,
  monkeypatch: Any,
  capsys: pytest.CaptureFixture[str],
) -> None:
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'base').mkdir()
  recipe = {
    'merge_method': change.get('merge_method', 'task_arithmetic'),
    'base_model': change.get('base_model', 'base'),
    'models': [{'model': 'base', 'parameters': {'weight': 1}}],
  }
  if recipe['base_model'] is None:
    del recipe['base_model']
  (tmp_path / 'r.yml').write_text(yaml.safe_dump(recipe))
  out, rank = change.get('out', 'lora'), change.get('rank', '2')
  with pytest.raises(SystemExit) as found:
    _command.main(['r.yml', out, '--lora_rank', rank])
  assert message in f'{found.value}{capsys.readouterr().err}'
