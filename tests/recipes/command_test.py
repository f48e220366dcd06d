"""The command merges folders, and says what it does before it starts."""

import json
import pathlib
import re
import time
from typing import Any

import numpy as np
import pytest
import yaml

from tests.recipes import cases, folders
from wsl import checkpoint, recipes
from wsl.recipes import _card, _command
from wsl.recipes._command import progress as progress_lib


@pytest.fixture
def recipe(tmp_path: pathlib.Path, monkeypatch: Any) -> pathlib.Path:
  """Writes three Llamas and a recipe, and changes to their folder."""
  for seed, name in enumerate(cases.THREE):
    folders.write(tmp_path / name, 'llama', seed)
  for name, text in {
    'tokenizer.json': '{}',
    'generation_config.json': '{"eos_token_id": 2}',
    'README.md': '---\nlicense: apache-2.0\n---\n# base\n',
    'notes.txt': 'not copied',
  }.items():
    (tmp_path / 'base' / name).write_text(text)
  file = tmp_path / 'r.yml'
  file.write_text(yaml.safe_dump(cases.CASES['ties'] | {'dtype': 'bfloat16'}))
  monkeypatch.chdir(tmp_path)
  return file


def test_a_dry_run_writes_nothing(
  recipe: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  _command.main([str(recipe), 'out', '--dry_run'])
  shown = capsys.readouterr().out
  assert '30 leaves, read' in shown
  assert not pathlib.Path('out').exists()


def test_the_folder_is_complete(recipe: pathlib.Path) -> None:
  _command.main([str(recipe), 'out', '--hash'])
  out = pathlib.Path('out')
  assert {x.name for x in out.iterdir()} == {
    'model.safetensors', 'config.json', 'generation_config.json',
    'tokenizer.json', 'README.md', 'recipe.yml',
  }  # fmt: skip
  config = json.loads((out / 'config.json').read_text())
  assert config == folders.CONFIGS['llama'] | {'torch_dtype': 'bfloat16'}
  card = (out / 'README.md').read_text()
  front = yaml.safe_load(card.split('---')[1])
  assert front['base_model'] == ['base', 'one', 'two']
  assert 'license' not in front  # two of three are unknown
  assert '| base | apache-2.0 | 30 | `' in card
  assert (out / 'recipe.yml').read_text() == recipe.read_text()
  merged = checkpoint.load(out)
  assert {x.dtype.name for x in merged.values()} == {'bfloat16'}
  assert checkpoint.metadata(out) == {'format': 'pt'}


def test_hashes_are_those_of_the_files_that_hold_tensors(
  recipe: pathlib.Path,
) -> None:
  def digests() -> dict[str, str]:
    _command.main([str(recipe), 'out', '--hash', '--overwrite'])
    card = pathlib.Path('out/README.md').read_text()
    rows = re.findall(r'^\| (\w+) \| .* \| `(\w{64})` \|$', card, re.M)
    return dict(rows)

  first = digests()
  assert len(set(first.values())) == len(first) == 3
  params = checkpoint.load('one')
  archive = {k: np.asarray(v, np.float32) for k, v in params.items()}
  pathlib.Path('one/model.safetensors').unlink()
  np.savez('one/model.npz', **archive)
  second = digests()
  np.savez('one/model.npz', **(archive | {'lm_head.weight': np.zeros(1)}))
  assert _card._digest([pathlib.Path('one')]) not in (
    first['one'],
    second['one'],
  )
  assert second['one'] != first['one']
  assert second['two'] == first['two']


def test_a_slice_changes_the_number_of_layers(recipe: pathlib.Path) -> None:
  recipe.write_text(yaml.safe_dump(cases.CASES['passthrough']))
  _command.main([str(recipe), 'out'])
  config = json.loads(pathlib.Path('out/config.json').read_text())
  assert config['num_hidden_layers'] == 4
  assert 'model.layers.3.mlp.up_proj.weight' in checkpoint.load('out')


def test_shards(recipe: pathlib.Path) -> None:
  flags = ['--shard_size', '0.001MB', '--chunk_bytes', '64KiB']
  _command.main([str(recipe), 'out', *flags])
  assert len(list(pathlib.Path('out').glob('*.safetensors'))) > 1
  assert pathlib.Path('out/model.safetensors.index.json').exists()


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--at', 'x'], 'error: --at x: expected NAME=FOLDER'),
    (['--shard_size', '5'], r'error: --shard_size=5: expected such as 5GB'),
    (['--max_memory', '0GB'], r'error: --max_memory=0GB: expected such as'),
    (
      ['--max_memory', '2MiB'],
      r"error: --max_memory: .* in chunks of 64\.0 KiB, .* for '.*: give more",
    ),
    (['--at', 'one=missing'], "error: one: there is no folder 'missing'"),
  ],
)
def test_mistakes_are_one_line(
  recipe: pathlib.Path, flags: list[str], message: str
) -> None:
  with pytest.raises(SystemExit, match=message) as error:
    _command.main([str(recipe), 'out', *flags])
  assert '\n' not in str(error.value)
  assert not pathlib.Path('out').exists()


def test_a_model_is_replaced_only_when_asked(recipe: pathlib.Path) -> None:
  _command.main([str(recipe), 'out'])
  with pytest.raises(SystemExit, match=r'out holds a model: .* --overwrite'):
    _command.main([str(recipe), 'out'])
  _command.main([str(recipe), 'out', '--overwrite'])


def test_the_values_of_parameters_are_shown_with_their_conditions(
  recipe: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  weight = [
    {'regex': r'layers\.0\.', 'value': 0.25},
    {'filter': 'mlp', 'value': [0, 1]},
    {'filter': 'mpl', 'value': 3},
    {'value': 0.5},
  ]
  content = {
    'merge_method': 'linear',
    'models': [{'model': 'one', 'parameters': {'weight': weight}},
               {'model': 'two', 'parameters': {'weight': 1}}],
  }  # fmt: skip
  recipe.write_text(yaml.safe_dump(content))
  _command.main([str(recipe), 'out', '--dry_run'])
  shown = capsys.readouterr().out.splitlines()
  assert shown[0].startswith('weight of one: 0.5 in ')
  assert r"0.25 in 9 tensors (regex 'layers\.0\.')" in shown[0]
  assert "0.5 .. 1 in 6 tensors (filter 'mlp')" in shown[0]
  assert shown[1] == 'weight of two: 1 in 30 tensors'
  assert shown[2] == "note: weight: filter 'mpl' selects no tensor"
  weight[0]['regex'] = 'layer0'
  recipe.write_text(yaml.safe_dump(content))
  with pytest.raises(SystemExit, match="regex 'layer0' selects no tensor that"):
    _command.main([str(recipe), 'out', '--dry_run'])


def test_a_stopped_merge_is_continued(
  recipe: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  done = []

  class Stopping(progress_lib.Progress):
    def __call__(self, name: str, written: int, total: int) -> None:
      done.append(written)
      if len(done) == 9:
        raise OSError('stopped')

  monkeypatch.setattr(progress_lib, 'Progress', Stopping)
  flags = [str(recipe), 'out', '--resume', '--checksums']
  with pytest.raises(SystemExit, match='stopped'):
    _command.main(flags)
  assert [x.name[0] for x in pathlib.Path('out').iterdir()] == ['.']
  _command.main(flags)
  assert len(done) < 9 + 30  # finished tensors are not written again
  assert len(checkpoint.load('out')) == 30
  assert b'wsl.sha256' in pathlib.Path('out/model.safetensors').read_bytes()


def test_a_model_is_replaced_by_a_merge_of_it(recipe: pathlib.Path) -> None:
  _command.main([str(recipe), 'out'])
  _command.main([str(recipe), 'base', '--overwrite'])
  merged, found = checkpoint.load('out'), checkpoint.load('base')
  for name, x in merged.items():
    np.testing.assert_array_equal(found[name], x)
  assert (recipe.parent / 'base' / 'tokenizer.json').read_text() == '{}'


def test_nan_is_refused_and_accepted_when_asked(recipe: pathlib.Path) -> None:
  one = checkpoint.load('one')
  one['model.norm.weight'][0] = np.nan
  checkpoint.save('one', one, check_finite=False)
  with pytest.raises(SystemExit, match=r"'model.norm.weight'"):
    _command.main([str(recipe), 'out'])
  _command.main([str(recipe), 'out', '--allow_nan'])


def test_progress_shows_bytes_rate_and_time_left(
  capsys: pytest.CaptureFixture[str],
) -> None:
  progress = progress_lib.Progress(time.monotonic() - 20.0)
  progress('a', 50 << 20, 100 << 20)
  progress('b', 100 << 20, 100 << 20)
  first, *_, last = capsys.readouterr().err.splitlines()
  assert '100.0 MiB of 100.0 MiB' in last
  assert '2.5 MiB/s' in first


def test_adapters_are_added_to_their_model(recipe: pathlib.Path) -> None:
  name = 'model.layers.1.self_attn.q_proj'
  rng = np.random.default_rng(0)
  a, b = (rng.normal(size=s).astype(np.float32) for s in ((2, 8), (8, 2)))
  folder = pathlib.Path('adapter')
  folder.mkdir()
  options = {'peft_type': 'LORA', 'r': 2, 'lora_alpha': 6}
  (folder / 'adapter_config.json').write_text(json.dumps(options))
  factors = {f'base_model.model.{name}.lora_{k}.weight': v for k, v in
             (('A', a), ('B', b))}  # fmt: skip
  checkpoint.save(folder / 'adapter_model.safetensors', factors)
  content = {
    'merge_method': 'linear',
    'models': [{'model': 'one+adapter'}, {'model': 'two'}],
    'parameters': {'weight': 0.5},
  }
  recipe.write_text(yaml.safe_dump(content))
  _command.main([str(recipe), 'out'])
  one, two, merged = (checkpoint.load(x) for x in ('one', 'two', 'out'))
  for key, x in merged.items():
    added = 3 * b @ a if key == f'{name}.weight' else 0
    wanted = (one[key] + added + two[key]) / 2
    np.testing.assert_allclose(x, wanted, rtol=1e-5, atol=1e-5)


def test_a_chat_template_is_checked_before_the_merge(
  recipe: pathlib.Path,
) -> None:
  content = cases.CASES['ties'] | {'chat_template': 'chatml'}
  recipe.write_text(yaml.safe_dump(content))
  with pytest.raises(SystemExit, match=r"chat_template='chatml': expected"):
    _command.main([str(recipe), 'out'])
  assert not pathlib.Path('out').exists()


def test_a_folder_with_a_plus_in_its_name_is_explained(
  recipe: pathlib.Path,
) -> None:
  (recipe.parent / 'a+b').mkdir()
  with pytest.raises(FileNotFoundError, match=r'model: \{path: "a\+b"\}'):
    recipes.open_all([recipes.Model('a', 'b')])
