"""A recipe is read as it is meant, or its mistake is named with its place."""

import copy
import pathlib
from typing import Any

import pytest

from wsl import recipes

LINEAR = {
  'merge_method': 'linear',
  'models': [{'model': 'a', 'parameters': {'weight': 1}}, {'model': 'b'}],
}
SLICED = {
  'merge_method': 'passthrough',
  'slices': [
    {'sources': [{'model': 'a', 'layer_range': [0, 2]}]},
    {'sources': [{'model': 'b', 'layer_range': [1, 3]}]},
  ],
}


def change(content: Any, path: str, value: Any) -> Any:
  """Returns a copy with the value at a path such as 'models.0.model'."""
  content = copy.deepcopy(content)
  *parents, last = path.split('.')
  node = content
  for part in parents:
    node = node[int(part) if part.isdecimal() else part]
  node[last] = value
  return content


def test_models_are_one_slice_of_all_layers() -> None:
  recipe = recipes.parse(LINEAR)
  (module,) = recipe.modules
  (part,) = module.slices
  assert [s.model.path for s in part.sources] == ['a', 'b']
  assert [s.layers for s in part.sources] == [None, None]
  assert part.sources[0].parameters == {'weight': 1}


def test_slices_keep_their_order_and_ranges() -> None:
  recipe = recipes.parse(SLICED)
  ranges = [s.sources[0].layers for s in recipe.modules[0].slices]
  assert ranges == [(0, 2), (1, 3)]
  assert recipes.models(recipe) == [recipes.Model('a'), recipes.Model('b')]


def test_adapters_and_nested_references() -> None:
  model = {'model': {'path': 'a', 'revision': 'x'}, 'lora': {'path': 'l'}}
  recipe = recipes.parse(change(LINEAR, 'base_model', model))
  assert recipe.base == recipes.Model('a', 'l')
  recipe = recipes.parse(change(LINEAR, 'base_model', 'a+l'))
  assert recipe.base == recipes.Model('a', 'l')


def test_the_tokenizer_block() -> None:
  tokens = {
    '<x>': {'source': 'a', 'force': True},
    '<y>': {'source': {'kind': 'zero'}},
    '<z>': {'source': {'kind': 'model_token', 'model': 'b', 'token': '<q>'}},
  }
  block = {'source': 'base', 'tokens': tokens, 'pad_to_multiple_of': 64}
  found = recipes.parse(change(LINEAR, 'tokenizer', block)).tokenizer
  assert found == recipes.Tokenizer(
    'base',
    {
      '<x>': (recipes.Row(recipes.Model('a')), True),
      '<y>': (None, False),
      '<z>': (recipes.Row(recipes.Model('b'), '<q>'), False),
    },
    64,
  )
  short = recipes.parse(change(LINEAR, 'tokenizer_source', 'union')).tokenizer
  assert short == recipes.Tokenizer('union', {}, None)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ([], 'recipe is a list, expected keys'),
    (None, 'recipe is empty, expected keys'),
    ({'models': []}, "the key 'merge_method' is missing"),
    (change(LINEAR, 'modles', []), r"no key 'modles' \(did you mean 'modules'"),
    (change(LINEAR, 'slices', SLICED['slices']), 'models and slices of models'),
    ({'merge_method': 'linear'}, 'found none of models, slices and modules'),
    (change(LINEAR, 'models', {'a': 1}), 'models is a dict, expected a list'),
    (change(LINEAR, 'models.0.modle', 'a'), r'models\[0\]: no key .modle.'),
    (change(LINEAR, 'models.0.model', ''), r'models\[0\].model='),
    (change(LINEAR, 'models.0.parameters', 3), 'parameters is a int'),
    (change(LINEAR, 'dtype', 'bfloat61'), r'dtype=.bfloat61.: .*bfloat16'),
    (change(SLICED, 'slices.0.sources.0.layer_range', [2, 2]), 'no layer'),
    (change(SLICED, 'slices.0.sources.0.layer_range', 2), 'expected .first'),
    (change(SLICED, 'slices.0.residual_weight', 1), 'residual_weight has no'),
    (
      change(
        SLICED, 'slices.0.sources', SLICED['slices'][0]['sources']
        + [{'model': 'b', 'layer_range': [0, 1]}],
      ),
      r'slices\[0\]: its sources have \[1, 2\] layers',
    ),
    (change(LINEAR, 'tokenizer', {'sorce': 'a'}), "tokenizer: no key 'sorce'"),
    (
      change(LINEAR, 'tokenizer', {'tokens': {'x': {'force': True}}}),
      r"tokens\['x'\]: give its source",
    ),
    (change(LINEAR, 'tokenizer', {'pad_to_multiple_of': 0}), 'expected >= 1'),
    (
      change(change(LINEAR, 'tokenizer', {}), 'tokenizer_source', 'base'),
      'tokenizer_source and tokenizer: give one',
    ),
    (
      {'merge_method': 'linear', 'modules': {'a': {}}},
      'modules.a: give either models or slices',
    ),
    (change(LINEAR, 'chat_template', 5), 'chat_template is a int, expected a '),
    (change(LINEAR, 'models.0.model', {'model': 'a', 'lora': 5}), 'the folder'),
  ],
)  # fmt: skip
def test_mistakes_are_named(content: Any, message: str) -> None:
  with pytest.raises(ValueError, match=message) as error:
    recipes.parse(content)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('text', ['a: [1,\nb: }', '[' * 9999, '2001-99-99'])
def test_a_file_that_is_not_yaml_is_named(
  tmp_path: pathlib.Path, text: str
) -> None:
  file = tmp_path / 'r.yml'
  file.write_text(text)
  with pytest.raises(ValueError, match=r'r.yml is not YAML') as error:
    recipes.read(file)
  assert '\n' not in str(error.value)
  with pytest.raises(FileNotFoundError):
    recipes.read(tmp_path / 'none.yml')
