"""Lines of statistics: what is in them, in which order, when."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest
import yaml

from tests.recipes import cases, folders
from wsl import checkpoint, deltas, recipes, stats
from wsl.recipes import _command


@pytest.fixture
def models(tmp_path: pathlib.Path, monkeypatch: Any) -> pathlib.Path:
  for seed, name in enumerate(cases.THREE):
    folders.write(tmp_path / name, 'llama', seed, 'bfloat16')
  monkeypatch.chdir(tmp_path)
  return tmp_path


def _command_lines(name: str, *flags: str) -> list[dict[str, Any]]:
  pathlib.Path('r.yml').write_text(yaml.safe_dump(cases.CASES[name]))
  _command.main(['r.yml', 'out', '--statistics', 's.jsonl', *flags])
  text = pathlib.Path('s.jsonl').read_text()
  assert 'NaN' not in text
  return [json.loads(line) for line in text.splitlines()]


def test_lines_are_the_statistics_of_task_vectors(
  models: Any, capsys: pytest.CaptureFixture[str]
) -> None:
  lines = _command_lines('ties', '--dry_run')
  assert '--statistics: ' in capsys.readouterr().out
  base, *others = (checkpoint.load(name, lazy=True) for name in cases.THREE)
  stack = deltas.stack(base, others)
  wanted = dict(stats.leaf_statistics(stack, base))
  assert [line['name'] for line in lines] == list(wanted)
  for line in lines:
    name, one = line['name'], wanted[line['name']]
    assert line['base'] == 'base'
    assert line['models'] == ['one', 'two']
    assert line['shape'] == list(base[name].shape)
    np.testing.assert_allclose(line['cosine'], one.cosine, rtol=1e-12)
    np.testing.assert_allclose(line['sign_conflict'], one.sign_conflict)
    np.testing.assert_allclose(line['norm_ratio'], one.norm_ratio)
    if len(line['shape']) == 2:
      np.testing.assert_allclose(
        line['effective_rank'], one.effective_rank[:, 0]
      )
      np.testing.assert_allclose(line['stable_rank'], one.stable_rank[:, 0])
    else:
      assert line['effective_rank'] is line['stable_rank'] is None
  assert not pathlib.Path('out').exists()


def test_a_merge_writes_them_without_a_base_and_without_ranks(
  models: Any,
) -> None:
  zeros = checkpoint.load('one')
  zeros['model.norm.weight'][:] = 0
  checkpoint.save('one', zeros)
  lines = {x['name']: x for x in _command_lines('linear', '--no_ranks')}
  assert pathlib.Path('out/model.safetensors').exists()
  one = lines['lm_head.weight']
  assert one['base'] is None
  assert one['norm_ratio'] == [None] * len(one['models'])
  assert one['effective_rank'] is None
  assert len(one['cosine']) == len(one['models'])
  row = lines['model.norm.weight']
  at = row['models'].index('one')
  assert row['cosine'][at] == [None] * len(row['models'])


def test_lines_are_written_as_they_are_computed(models: Any) -> None:
  recipe = recipes.parse(cases.CASES['ties'])
  opened = recipes.open_all(recipes.models(recipe))
  merged = recipes.build(recipe, opened)
  seen: list[int] = []

  def progress(name: str, done: int, total: int) -> None:
    lines = pathlib.Path('s.jsonl').read_text().splitlines()
    assert json.loads(lines[-1])['name'] == name
    seen.append(done)
    assert done <= total

  count = recipes.write_statistics(
    's.jsonl', merged, ranks=False, progress=progress
  )
  assert len(seen) == count == 30
  assert seen == sorted(seen)
