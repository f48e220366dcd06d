"""Which tensors a recipe makes, from which inputs, with which parameters."""

import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from tests.recipes import folders
from wsl import recipes, tree


def build(
  content: dict[str, Any],
  models: dict[str, Any],
  configs: dict[str, Any] | None = None,
  **options: Any,
) -> recipes.Merged:
  """Builds a recipe on models that are in memory."""
  configs = configs or {}
  opened = {
    recipes.Model(name): recipes.Folder(
      pathlib.Path(name), params, configs.get(name)
    )
    for name, params in models.items()
  }
  return recipes.build(recipes.parse(content), opened, **options)


def numbered(*layers: int, value: float = 0.0) -> dict[str, np.ndarray]:
  """Returns a model of layers that hold their number plus a value."""
  names = {f'layers.{i}.w': np.full(3, i + value) for i in layers}
  ends = {'embed.w': np.full(3, -1 + value), 'head.w': np.full(3, 99 + value)}
  return names | ends


def linear(*weights: Any) -> dict[str, Any]:
  return {
    'merge_method': 'linear',
    'parameters': {'normalize': False},
    'models': [
      {'model': name, 'parameters': {'weight': w}}
      for name, w in zip('ab', weights)
    ],
  }


def test_a_gradient_runs_over_the_layers_and_starts_outside() -> None:
  models = {'a': numbered(0, 1, 2), 'b': numbered(0, 1, 2)}
  ones = {k: np.ones_like(v) for k, v in models['a'].items()}
  found = build(linear([0.0, 1.0], 0.0), {'a': ones, 'b': ones})
  merged = tree.read(found.params)
  values = {name: x[0] for name, x in merged.items()}
  assert values == {
    'layers.0.w': 0.0, 'layers.1.w': 0.5, 'layers.2.w': 1.0,
    'embed.w': 0.0, 'head.w': 0.0,
  }  # fmt: skip


def test_one_layer_is_at_the_end_of_a_gradient() -> None:
  ones = {'layers.0.w': np.ones(2)}
  found = build(linear([0.0, 1.0], 0.0), {'a': ones, 'b': ones})
  assert tree.read(found.params)['layers.0.w'].tolist() == [1.0, 1.0]


def test_slices_number_layers_anew_and_take_ends_from_the_outer_ones() -> None:
  content = {
    'merge_method': 'passthrough',
    'slices': [
      {'sources': [{'model': 'a', 'layer_range': [0, 2]}]},
      {'sources': [{'model': 'b', 'layer_range': [1, 3]}]},
    ],
  }
  models = {'a': numbered(0, 1, 2), 'b': numbered(0, 1, 2, value=0.5)}
  merged = tree.read(build(content, models).params)
  assert {name: x[0] for name, x in merged.items()} == {
    'layers.0.w': 0.0, 'layers.1.w': 1.0, 'layers.2.w': 1.5, 'layers.3.w': 2.5,
    'embed.w': -1.0, 'head.w': 99.5,
  }  # fmt: skip


def test_parameters_of_a_source_win_over_slice_module_and_recipe() -> None:
  source = {'model': 'a', 'layer_range': [0, 1]}
  content: dict[str, Any] = {
    'merge_method': 'passthrough',
    'parameters': {'scale': 2},
    'modules': {'enc': {'slices': [{'sources': [source]}]}},
  }
  model = {'a': {'enc.0.w': np.ones(1)}}
  scale = lambda: tree.read(build(content, model).params)['enc.0.w'].item()
  assert scale() == 2
  content['modules']['enc']['parameters'] = {'scale': 3}
  assert scale() == 3
  content['modules']['enc']['slices'][0]['parameters'] = {'scale': 4}
  assert scale() == 4
  source['parameters'] = {'scale': [{'filter': 'w', 'value': 5}]}
  assert scale() == 5
  source['parameters'] = {'scale': [{'filter': 'x', 'value': 5}]}
  assert scale() == 4


def test_tensors_of_equal_parameters_are_merged_by_one_call() -> None:
  shapes = folders.llama()
  models = {
    name: folders.tensors(shapes, seed) for seed, name in enumerate('ab')
  }
  weight = [{'filter': 'mlp', 'value': 0.3}, {'value': 0.7}]
  found = build(linear(weight, 1.0), models)
  for name, x in tree.read(found.params).items():
    w = 0.3 if 'mlp' in name else 0.7
    wanted = w * models['a'][name] + models['b'][name]
    np.testing.assert_allclose(x, wanted, rtol=1e-6, atol=1e-6)


def test_inputs_are_cast_to_the_dtype_or_to_one_that_holds_all() -> None:
  models = {
    'a': {'w': np.asarray([1 + 2**-12, 3.0], np.float32)},
    'b': {'w': np.asarray([1, 5], np.float16)},
  }
  merged = build(linear(1.0, 1.0), models).params['w']
  assert merged.dtype == np.float32
  np.testing.assert_array_equal(merged, np.float32([2 + 2**-12, 8]))
  content = linear(1.0, 1.0) | {'dtype': 'bfloat16', 'out_dtype': 'float32'}
  merged = build(content, models).params['w']
  assert merged.dtype == np.float32
  np.testing.assert_array_equal(merged, np.float32([2, 8]))


def test_integers_are_copied_if_they_are_equal() -> None:
  a = {'w': np.ones(2), 'ids': np.arange(3)}
  merged = build(linear(1.0, 1.0), {'a': a, 'b': a}).params
  np.testing.assert_array_equal(merged['ids'], np.arange(3))
  assert merged['ids'].dtype == np.arange(3).dtype
  b = a | {'ids': np.arange(3) + 1}
  with pytest.raises(ValueError, match=r"'ids'.*differ|differ.*'ids'"):
    build(linear(1.0, 1.0), {'a': a, 'b': b})


def test_a_tied_head_is_the_embedding() -> None:
  embedding = {'model.embed_tokens.weight': np.full((2, 2), 3.0)}
  whole = embedding | {'lm_head.weight': np.full((2, 2), 5.0)}
  content = linear(1.0, 1.0)
  config = {'b': {'tie_word_embeddings': True}}
  found = build(content, {'a': whole, 'b': embedding}, config)
  assert tree.read(found.params)['lm_head.weight'].tolist() == [[8.0, 8.0]] * 2
  assert 'tied input embedding' in found.notes[0]
  config = {'b': {'tie_word_embeddings': False}}
  with pytest.raises(ValueError, match=r"b has no tensor 'lm_head.weight'"):
    build(content, {'a': whole, 'b': embedding}, config)


def test_tensors_that_an_input_lacks() -> None:
  models = {'a': {'w': np.ones(1)}, 'b': {'w': np.ones(1), 'x': np.ones(2)}}
  with pytest.raises(ValueError, match="a has no tensor 'x', which others"):
    build(linear(1.0, 1.0), models)
  copied = build(linear(1.0, 1.0), models, unmatched='copy')
  assert tree.read(copied.params)['x'].tolist() == [1.0, 1.0]
  assert copied.notes == ["'x' is copied from b"]
  dropped = build(linear(1.0, 1.0), models, unmatched='drop')
  assert set(dropped.params) == {'w'}


def test_random_methods_depend_on_the_key_alone() -> None:
  shapes = folders.llama()
  models = {
    name: folders.tensors(shapes, seed) for seed, name in enumerate('abc')
  }
  content = {
    'merge_method': 'dare_ties',
    'base_model': 'a',
    'models': [{'model': 'b'}, {'model': 'c'}],
    'parameters': {'weight': 0.5, 'density': 0.4},
  }
  name = 'model.layers.0.mlp.up_proj.weight'
  draw = lambda seed: np.asarray(
    build(content, models, key=jax.random.key(seed)).params[name]
  )
  np.testing.assert_array_equal(draw(0), draw(0))
  assert np.any(draw(0) != draw(1))
  with pytest.raises(ValueError, match='dare_ties: it draws random numbers'):
    build(content, models)


@pytest.mark.parametrize('method', ['ties', 'breadcrumbs_ties'])
def test_a_density_of_zero_drops_a_model(method: str) -> None:
  models = {'a': {'w': np.zeros(4)}, 'b': {'w': np.arange(4.0)}}
  models['c'] = {'w': -np.arange(4.0)}
  content = {
    'merge_method': method,
    'base_model': 'a',
    'models': [
      {'model': 'b', 'parameters': {'density': 0}},
      {'model': 'c', 'parameters': {'density': 1.5}},
    ],
    'parameters': {'weight': 1},
  }
  merged = tree.read(build(content, models).params)['w']
  np.testing.assert_array_equal(merged, -np.arange(4.0))


ONE = {'w': np.ones(2)}


@pytest.mark.parametrize(
  ('content', 'models', 'message'),
  [
    (linear(1.0), {'a': ONE} | {}, None),
    (linear(1.0, None) | {}, {'a': ONE, 'b': ONE}, 'expected a number'),
    (linear('heavy'), {'a': ONE}, "weight='heavy': expected a number"),
    (
      linear(1.0) | {'parameters': {'normalize': 'no'}},
      {'a': ONE},
      "normalize='no': expected a number",
    ),
    (
      {
        'merge_method': 'passthrough',
        'slices': [
          {'sources': [{'model': x, 'layer_range': [0, 1]} for x in 'ab']}
        ],
      },
      {'a': numbered(0), 'b': {**numbered(0), 'layers.0.b': np.ones(1)}},
      "a has no tensor '.b' in its layer, which another source has",
    ),
    (
      {
        'merge_method': 'linear',
        'slices': [
          {'sources': [{'model': x, 'layer_range': [0, 1]} for x in 'ab']}
        ],
        'parameters': {'weight': 1},
      },
      {'a': numbered(0), 'b': {**numbered(0), 'norm': np.ones(1)}},
      "a has no tensor 'norm', which others have",
    ),
    (
      {'merge_method': 'linear', 'models': [{'model': 'a'}]},
      {'a': ONE},
      "'weight' of a is not set for tensor 'w'",
    ),
    (
      {'merge_method': 'linera', 'models': [{'model': 'a'}]},
      {'a': ONE},
      r"no 'linera' \(did you mean 'linear'",
    ),
    (
      linear(1.0) | {'parameters': {'wieght': 1}},
      {'a': ONE},
      r"no method has 'wieght' \(did you mean 'weight'",
    ),
    (
      {'merge_method': 'ties', 'models': [{'model': 'a'}]},
      {'a': ONE},
      'ties needs a base among its inputs: set base_model',
    ),
    (
      {
        'merge_method': 'slerp',
        'base_model': 'a',
        'models': [{'model': 'a'}],
        'parameters': {'t': 0.5},
      },
      {'a': ONE},
      'slerp merges 2 inputs, found 1',
    ),
    (
      linear(1.0, 1.0) | {'parameters': {}} | {},
      {'a': ONE, 'b': {'w': np.ones(3)}},
      r"tensor 'w' of b has shape \(3,\), of a \(2,\): align vocabularies",
    ),
    (
      linear(1.0, -1.0) | {'parameters': {'normalize': True}},
      {'a': ONE, 'b': ONE},
      r'^linear: the weights \(1.0, -1.0\) sum to 0',
    ),
    (
      {
        'merge_method': 'passthrough',
        'slices': [{'sources': [{'model': 'a', 'layer_range': [1, 3]}]}],
      },
      {'a': numbered(0, 1)},
      "a has no layer 'layers.2': it has 2 layers",
    ),
    (
      {
        'merge_method': 'linear',
        'modules': {'enq': {'models': [{'model': 'a'}]}},
        'parameters': {'weight': 1},
      },
      {'a': {'enc.0.w': np.ones(1)}},
      r"a has no part 'enq' \(did you mean 'enc'",
    ),
  ],
)
def test_what_does_not_fit_is_named(
  content: Any, models: Any, message: str | None
) -> None:
  if message is None:
    build(content, models)
    return
  with pytest.raises(ValueError, match=message) as error:
    build(content, models)
  assert '\n' not in str(error.value)
