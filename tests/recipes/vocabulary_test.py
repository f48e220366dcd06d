"""Vocabularies of different sizes and orders are merged token by token."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest
import tokenizers
import yaml

from wsl import checkpoint, recipes, tree
from wsl.recipes import _command

WIDTH = 3


def write(
  path: pathlib.Path,
  tokens: list[str],
  *,
  rows: int | None = None,
  value: float,
) -> None:
  """Writes a model whose rows are its value plus the number of the row."""
  path.mkdir()
  model = tokenizers.models.WordLevel(
    {t: i for i, t in enumerate(tokens)}, unk_token=tokens[0]
  )
  tokenizers.Tokenizer(model).save(str(path / 'tokenizer.json'))
  rows = len(tokens) if rows is None else rows
  config = {'vocab_size': rows, 'num_hidden_layers': 1}
  (path / 'config.json').write_text(json.dumps(config))
  table = value + np.arange(rows, dtype=np.float32)[:, None]
  table = np.repeat(table, WIDTH, axis=1)
  params = {
    'model.embed_tokens.weight': table,
    'lm_head.weight': -table,
    'model.layers.0.w': np.full((WIDTH, WIDTH), value, np.float32),
  }
  checkpoint.save(path / 'model.safetensors', params)


@pytest.fixture
def models(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
  """Writes three models; rows are 100 + i, 200 + i and 300 + i."""
  monkeypatch.chdir(tmp_path)
  write(tmp_path / 'base', ['u', 'a', 'b'], value=100)
  write(tmp_path / 'one', ['u', 'b', 'x', 'y'], value=200)
  write(tmp_path / 'two', ['u', 'a', 'y', 'z'], rows=3, value=300)


def merged(tokenizer: Any, method: str = 'linear', **more: Any) -> Any:
  """Returns the rows of the embedding by token, and the vocabulary."""
  content = {
    'merge_method': method,
    'models': [
      {'model': name, 'parameters': {'weight': w}}
      for name, w in (('base', 1), ('one', 10), ('two', 100))
    ],
    'parameters': {'normalize': False},
    'tokenizer': tokenizer,
    **more,
  }
  recipe = recipes.parse(content)
  found = recipes.build(recipe, recipes.open_all(recipes.models(recipe)))
  params = tree.read(found.params)
  table = np.asarray(params['model.embed_tokens.weight'])
  np.testing.assert_array_equal(params['lm_head.weight'], -table)
  assert params['model.layers.0.w'][0, 0] == 100 + 10 * 200 + 100 * 300
  vocabulary = found.vocabulary
  assert table.shape == (vocabulary.size, WIDTH)
  rows = {t: table[i, 0] for t, i in vocabulary.tokens.items()}
  return rows, table[len(vocabulary.tokens) :, 0]


def weighed(base: float, one: float, two: float) -> float:
  return base + 10 * one + 100 * two


def test_the_union_takes_missing_rows_from_models_that_have_them(
  models: None,
) -> None:
  rows, padding = merged({'source': 'union'})
  # Row 3 of two, 'z', is beyond its 3 rows: it does not exist.
  assert rows == {
    'u': weighed(100, 200, 300),
    'a': weighed(101, (101 + 301) / 2, 301),
    'b': weighed(102, 201, (102 + 201) / 2),
    'x': weighed(202, 202, 202),
    'y': weighed((203 + 302) / 2, 203, 302),
  }
  assert not len(padding)


def test_the_row_of_the_base_comes_before_a_mean(models: None) -> None:
  rows, _ = merged({'source': 'union'}, base_model='base')
  assert rows['a'] == weighed(101, 101, 301)
  assert rows['b'] == weighed(102, 201, 102)
  assert rows['y'] == weighed((203 + 302) / 2, 203, 302)


def test_the_base_keeps_its_tokens(models: None) -> None:
  rows, _ = merged({'source': 'base'}, base_model='base')
  assert set(rows) == {'u', 'a', 'b'}
  rows, _ = merged({'source': 'one'})
  assert set(rows) == {'u', 'b', 'x', 'y'}


def test_rows_that_the_recipe_gives(models: None) -> None:
  tokens = {
    'x': {'source': {'kind': 'zero'}},
    'a': {'source': 'two', 'force': True},
    'q': {'source': {'kind': 'model_token', 'model': 'one', 'token': 'y'}},
    'r': {'source': {'kind': 'model_token', 'model': 'two', 'token_id': 1}},
  }
  rows, _ = merged({'source': 'union', 'tokens': tokens})
  assert rows['x'] == weighed(0, 202, 0)
  assert rows['a'] == weighed(301, 301, 301)
  assert rows['q'] == weighed(203, 203, 203)
  assert rows['r'] == weighed(301, 301, 301)


def test_rows_of_padding_are_the_mean_of_all_others(models: None) -> None:
  rows, padding = merged({'source': 'union', 'pad_to_multiple_of': 4})
  assert len(rows) == 5
  np.testing.assert_allclose(padding, [np.mean(list(rows.values()))] * 3)


@pytest.mark.parametrize(
  ('tokens', 'message'),
  [
    ({'x': {'source': 'base'}}, "base has no row for 'x'"),
    (
      {'x': {'source': {'kind': 'model_token', 'model': 'two', 'token_id': 9}}},
      "two has no row for '9'",
    ),
    ({'x': {'source': 'none'}}, 'takes a row of none, which is no input'),
  ],
)
def test_rows_that_do_not_exist_are_named(
  models: None, tokens: Any, message: str
) -> None:
  with pytest.raises(ValueError, match=message):
    merged({'source': 'union', 'tokens': tokens})


def test_rows_that_are_not_counted_by_the_config_are_not_merged_unaligned(
  models: None,
) -> None:
  for name in ('base', 'one', 'two'):
    pathlib.Path(name, 'config.json').write_text('{"vocab_size": 9}')
    table = np.ones((4, WIDTH), np.float32)
    checkpoint.save(f'{name}/model.safetensors', {'embed': table})
  with pytest.raises(ValueError, match=r'no tensor has a row .*_size=\[9\]'):
    merged({'source': 'union'})


def test_a_model_without_tokenizer_is_named(models: None) -> None:
  pathlib.Path('one/tokenizer.json').unlink()
  with pytest.raises(ValueError, match=r'one has no tokenizer.json'):
    merged({'source': 'union'})
  pathlib.Path('one/tokenizer.json').write_text('{}')
  with pytest.raises(ValueError, match=r'one/tokenizer.json is not read'):
    merged({'source': 'union'})


def test_the_folder_has_the_tokenizer_of_the_output(models: None) -> None:
  pathlib.Path('base/vocab.txt').write_text('u\na\nb\n')
  settings = {'chat_template': '{{ a }}'}
  pathlib.Path('one/tokenizer_config.json').write_text(json.dumps(settings))
  recipe = {
    'merge_method': 'linear',
    'models': [{'model': 'base'}, {'model': 'one'}],
    'parameters': {'weight': 1},
    'tokenizer': {'source': 'union', 'pad_to_multiple_of': 8},
    'chat_template': 'auto',
  }
  pathlib.Path('r.yml').write_text(yaml.safe_dump(recipe))
  _command.main(['r.yml', 'out'])
  read = lambda name: json.loads(pathlib.Path('out', name).read_text())
  assert read('config.json')['vocab_size'] == 8
  assert read('tokenizer_config.json') == settings
  assert not pathlib.Path('out/vocab.txt').exists()
  loaded = tokenizers.Tokenizer.from_file('out/tokenizer.json')
  assert set(loaded.get_vocab()) == {'u', 'a', 'b', 'x', 'y'}
  assert len(checkpoint.load('out')['lm_head.weight']) == 8
