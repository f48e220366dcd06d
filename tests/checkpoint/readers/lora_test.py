"""LoRA folders: the models that PEFT merges, computed leaf by leaf."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from tests.checkpoint.readers import writers
from wsl import adapters, checkpoint, deltas, merge, tree

# Folders and merged models were written by peft 0.21.2, from one base.
GOLDEN = pathlib.Path(__file__).parents[2] / 'golden' / 'lora'
CASES = ('plain', 'patterns', 'dora', 'bias', 'lora_only', 'tokens')


@pytest.mark.parametrize('nested', [False, True])
@pytest.mark.parametrize('lazy', [False, True])
@pytest.mark.parametrize('case', CASES)
def test_the_models_of_peft(case, lazy, nested):
  base = checkpoint.load(GOLDEN / 'base.safetensors', lazy=lazy)
  base = tree.nest(base) if nested else base
  delta = checkpoint.load_lora(base, GOLDEN / case)
  merged = tree.flatten(tree.read(deltas.apply(base, delta)))
  wanted = checkpoint.load(GOLDEN / case / 'merged.safetensors')
  assert merged.keys() == wanted.keys()
  start = tree.flatten(tree.read(base))
  changed = 0
  for name, want in wanted.items():
    np.testing.assert_allclose(merged[name], want, rtol=0, atol=2e-6)
    changed += not np.array_equal(want, start[name])
  assert changed == {'plain': 8, 'patterns': 11, 'dora': 7}.get(case, changed)
  assert changed > 0


def test_leaves_that_no_lora_changes_are_none():
  base = checkpoint.load(GOLDEN / 'base.safetensors', lazy=True)
  delta = checkpoint.load_lora(base, GOLDEN / 'bias')
  assert delta['conv.weight'] is None
  assert isinstance(delta['layers.0.q.weight'], tree.Computed)
  # A product reads its factors only.
  inputs = tree.inputs(delta['layers.0.q.weight'])
  shapes = [x.shape for x in inputs if isinstance(x, tree.Stored)]
  assert shapes == [(2, 6), (5, 2)]
  merged = deltas.apply(base, delta)
  assert merged['conv.weight'] is base['conv.weight']


def test_a_stack_of_loras_is_exact():
  base = checkpoint.load(GOLDEN / 'base.safetensors')
  folders = [GOLDEN / 'plain', GOLDEN / 'bias']
  stacked = checkpoint.load_lora(base, folders)
  one, two = (checkpoint.load_lora(base, folder) for folder in folders)
  mean = tree.read(merge.mean(stacked))
  for name, leaf in base.items():
    parts = [d[name] for d in (one, two) if d[name] is not None]
    if not parts:
      assert mean[name] is None
      continue
    assert stacked[name].shape == (2, *leaf.shape)
    want = sum(np.asarray(tree.read(part)) for part in parts) / 2
    np.testing.assert_allclose(mean[name], want, atol=1e-7)
  with pytest.raises(ValueError, match='no folders given'):
    checkpoint.load_lora(base, [])


@pytest.mark.same_under_defaults('factors are of float32 in both runs')
def test_factors_have_the_products_of_dense_task_vectors():
  is_factors = lambda x: isinstance(x, adapters.Factors)
  seen = set()
  base = checkpoint.load(GOLDEN / 'base.safetensors')
  for case in CASES:
    wanted = tree.named(tree.read(checkpoint.load_lora(base, GOLDEN / case)))
    found = checkpoint.load_lora(base, GOLDEN / case, form='factors')
    leaves = tree.named(found, is_leaf=is_factors)
    assert set(leaves) == set(wanted)
    for name, x in leaves.items():
      seen.add(type(x).__name__)
      x = adapters.dense(x) if is_factors(x) else x
      np.testing.assert_allclose(tree.read(x), wanted[name], atol=1e-6)
  assert seen == {'Factors', 'Computed'}
  with pytest.raises(ValueError, match="form='factor'"):
    checkpoint.load_lora(base, GOLDEN / case, form='factor')


@pytest.mark.same_under_defaults('factors are of float32 in both runs')
def test_a_stack_of_factors_is_merged_without_products():
  base = checkpoint.load(GOLDEN / 'base.safetensors')
  folders = [GOLDEN / 'plain', GOLDEN / 'patterns']
  stacked = checkpoint.load_lora(base, folders, form='factors')
  dense = checkpoint.load_lora(base, folders)
  found = tree.named(tree.read(merge.materialize(stacked, 1)))
  for name, x in tree.named(tree.read(dense)).items():
    np.testing.assert_allclose(found[name], x[1], atol=1e-6)
  both = merge.cat(stacked, weights=[1.0, -0.5])
  for name, x in tree.named(tree.read(dense)).items():
    found = tree.read(both[name])
    is_factors = isinstance(found, adapters.Factors)
    product = adapters.dense(found) if is_factors else found
    np.testing.assert_allclose(product, x[0] - 0.5 * x[1], atol=1e-5)


@pytest.mark.same_under_defaults('messages do not depend on dtypes')
def test_new_rows_of_an_embedding_are_named_by_a_list_too(tmp_path):
  base = checkpoint.load(GOLDEN / 'base.safetensors')
  wanted = checkpoint.load(GOLDEN / 'tokens' / 'merged.safetensors')
  folder = _copy(tmp_path, 'tokens', trainable_token_indices=[1, 4, 2])
  delta = tree.read(checkpoint.load_lora(base, folder))
  merged = deltas.apply(base, delta)
  np.testing.assert_allclose(
    merged['emb.weight'], wanted['emb.weight'], atol=1e-6
  )
  changed = np.flatnonzero(np.asarray(delta['emb.weight']).any(1))
  assert changed.tolist() == [1, 2, 4]
  for rows, message in (([1, 4], 'names 2'), ([1, 2, 7], 'the base has 7')):
    options = {'trainable_token_indices': {'emb': rows}}
    bad = _copy(tmp_path / str(len(rows)), 'tokens', **options)
    with pytest.raises(ValueError, match=f"'emb' has 3 new rows, .*{message}"):
      checkpoint.load_lora(base, bad)


@pytest.mark.same_under_defaults('factors are of float32 in both runs')
def test_factors_beside_modules_of_dora_are_stacked_as_products():
  base = checkpoint.load(GOLDEN / 'base.safetensors')
  folders = [GOLDEN / 'plain', GOLDEN / 'dora', GOLDEN / 'bias']
  stacked = checkpoint.load_lora(base, folders, form='factors')
  wanted = tree.named(tree.read(checkpoint.load_lora(base, folders)))
  leaves = tree.named(stacked, is_leaf=deltas.is_factors)
  kinds = {type(x).__name__ for x in leaves.values()}
  assert kinds == {'Factors', 'Computed'}
  merged = tree.read(deltas.dense(merge.sum(stacked, weights=[1, 2, -1])))
  for name, x in wanted.items():
    total = np.einsum('t,t...->...', [1, 2, -1], x)
    np.testing.assert_allclose(merged[name], total, atol=1e-5)


def test_averages_of_factors_are_wrong_and_refused():
  file = GOLDEN / 'plain' / 'adapter_model.safetensors'
  factors = checkpoint.load(file, lazy=True)
  with pytest.raises(ValueError, match='factor of a LoRA'):
    deltas.stack(factors, [factors])
  with pytest.raises(ValueError, match='no weights'):
    checkpoint.load(GOLDEN / 'plain')


def _copy(tmp_path, case='plain', **options):
  folder = tmp_path / 'lora'
  shutil.copytree(GOLDEN / case, folder)
  config = json.loads((folder / 'adapter_config.json').read_text())
  (folder / 'adapter_config.json').write_text(json.dumps(config | options))
  return folder


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'peft_type': 'IA3'}, "of type 'IA3', only LORA"),
    ({'peft_type': None}, "of type 'None', only LORA"),
    ({'r': 4}, r"factors of '.*' have rank 2, adapter_config.json says 4"),
    ({'r': 'x'}, 'is no configuration of a LoRA'),
    ({'lora_alpha': None}, 'is no configuration of a LoRA'),
    ({'rank_pattern': [1]}, 'is no configuration of a LoRA'),
    ({'rank_pattern': {'(': 1}}, 'a pattern in it is malformed'),
    ({'layer_replication': [[0, 1]]}, 'has layer_replication, which is not'),
    ({'target_parameters': ['w']}, 'has target_parameters'),
    ({'init_lora_weights': 'pissa_niter_4'}, "='pissa_niter_4' changed: save"),
  ],
)
def test_what_is_not_supported_is_named(tmp_path, options, message):
  base = checkpoint.load(GOLDEN / 'base.safetensors', lazy=True)
  with pytest.raises(ValueError, match=message) as caught:
    checkpoint.load_lora(base, _copy(tmp_path, **options))
  assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
  ('name', 'shape', 'message'),
  [
    ('layers.0.q.lora_C.weight', (1,), 'which is not supported'),
    ('emb.token_adapter.trainable_tokens_delta', (1,), 'not supported'),
    (
      'layers.0.q.lora_A.weight',
      None,
      "lacks a factor of 'layers.0.q'",
    ),
    ('layers.0.q.lora_A.weight', (2, 7), r'have shapes \(2, 7\) and \(5, 2\)'),
    ('layers.9.q.weight', (1,), "no leaf 'layers.9.q.weight' .did you mean"),
    ('head.weight', (3, 6), r"'head.weight' has shape \(3, 6\), in the base"),
    ('layers.0.q.lora_magnitude_vector', (4,), 'has 4 magnitudes, the base 5'),
  ],
)
def test_leaves_that_do_not_fit_are_named(tmp_path, name, shape, message):
  folder = _copy(tmp_path)
  file = folder / 'adapter_model.safetensors'
  leaves = checkpoint.load(file)
  name = f'base_model.model.{name}'
  leaves.pop(name, None)
  if shape is not None:
    leaves[name] = np.ones(shape, np.float32)
  checkpoint.save(file, leaves)
  base = checkpoint.load(GOLDEN / 'base.safetensors', lazy=True)
  with pytest.raises(ValueError, match=message) as caught:
    checkpoint.load_lora(base, folder)
  assert len(str(caught.value).splitlines()) == 1


def test_missing_files_are_named(tmp_path):
  base = checkpoint.load(GOLDEN / 'base.safetensors', lazy=True)
  with pytest.raises(FileNotFoundError, match=r'no file .*config\.json'):
    checkpoint.load_lora(base, tmp_path)
  folder = _copy(tmp_path)
  (folder / 'adapter_model.safetensors').unlink()
  with pytest.raises(FileNotFoundError, match=r'holds none of adapter_'):
    checkpoint.load_lora(base, folder)


@pytest.mark.parametrize('alpha', [1, 3])
@pytest.mark.parametrize('root', [False, True])
def test_scales(tmp_path, alpha, root):
  base = {'q.weight': np.zeros((3, 4), np.float32)}
  rng = np.random.default_rng(0)
  first, second = rng.normal(size=(2, 4)), rng.normal(size=(3, 2))
  factors = {
    'q.lora_A.default.weight': first,
    'q.lora_B.default.weight': second,
  }
  checkpoint.save(tmp_path / 'adapter_model.safetensors', factors)
  config = {'peft_type': 'LORA', 'r': 2, 'lora_alpha': alpha}
  config['use_rslora'] = root
  (tmp_path / 'adapter_config.json').write_text(json.dumps(config))
  found = tree.read(checkpoint.load_lora(base, tmp_path))['q.weight']
  scale = alpha / (np.sqrt(2) if root else 2)
  np.testing.assert_allclose(found, scale * second @ first, rtol=1e-6)


def test_factors_in_a_file_of_pytorch(tmp_path):
  folder = _copy(tmp_path)
  file = folder / 'adapter_model.safetensors'
  factors = checkpoint.load(file)
  file.unlink()
  content = {name: writers.whole(x) for name, x in factors.items()}
  writers.torch_zip(folder / 'adapter_model.bin', content)
  base = checkpoint.load(GOLDEN / 'base.safetensors')
  found = tree.read(checkpoint.load_lora(base, folder))
  want = tree.read(checkpoint.load_lora(base, GOLDEN / 'plain'))
  for name in base:
    if want[name] is not None:
      np.testing.assert_array_equal(found[name], want[name])


def test_a_factor_that_is_not_finite_is_named(tmp_path):
  folder = _copy(tmp_path)
  file = folder / 'adapter_model.safetensors'
  factors = checkpoint.load(file)
  name = 'base_model.model.layers.0.q.lora_A.weight'
  factors[name] = np.full_like(factors[name], np.inf)
  checkpoint.save(file, factors, check_finite=False)
  base = checkpoint.load(GOLDEN / 'base.safetensors')
  delta = checkpoint.load_lora(base, folder)
  with pytest.raises(ValueError, match=r'lora_A\.weight.* is inf at \[0, 0\]'):
    tree.read(delta['layers.0.q.weight'])
