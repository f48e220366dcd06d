"""LoRA folders: what save_lora writes is what load_lora and PEFT read."""

import json
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tests.checkpoint.saving import peft_cases
from wsl import adapters, checkpoint, deltas, tree

# Some tensors of the models that PEFT has merged from these folders.
GOLDEN = pathlib.Path(__file__).parents[2] / 'golden' / 'lora' / 'saved.npz'


def draw(seed: int, *shape: int) -> np.ndarray:
  return np.float32(np.random.default_rng(seed).standard_normal(shape))


def options(folder: pathlib.Path) -> dict[str, Any]:
  return json.loads((folder / 'adapter_config.json').read_text())


@pytest.mark.parametrize('case', peft_cases.CASES)
def test_the_models_of_peft(case: str, tmp_path: pathlib.Path) -> None:
  arguments = peft_cases.arguments(case)
  base, folder = arguments['base'], tmp_path / 'lora'
  checkpoint.save_lora(folder, **arguments)
  merged = tree.read(deltas.apply(base, checkpoint.load_lora(base, folder)))
  with np.load(GOLDEN) as stored:
    assert 'peft 0.21.2' in str(stored['provenance'])
    wanted = {
      key.removeprefix(f'{case}/'): stored[key]
      for key in stored
      if key.startswith(f'{case}/') and not key.endswith('lm_head.weight')
    }
  changed = [name for name, x in wanted.items() if np.any(x != base[name])]
  assert len(changed) >= 7
  for name, x in wanted.items():
    np.testing.assert_allclose(merged[name], x, rtol=0, atol=1e-6)
  # Exactly the factors, and the weights that were given.
  raw = checkpoint.load(folder / 'adapter_model.safetensors')
  for name, factors in arguments['factors'].items():
    at = f'base_model.model.{name.removesuffix(".weight")}.lora_'
    if f'{at}A.weight' in raw:
      np.testing.assert_array_equal(raw[f'{at}A.weight'], factors.a)
    else:
      np.testing.assert_array_equal(raw[f'{at}embedding_B'], factors.b)
  for name, x in arguments['whole'].items():
    np.testing.assert_array_equal(merged[name], x)


def test_convolutions_and_names_of_trees(tmp_path: pathlib.Path) -> None:
  delta = {
    'body': {
      'conv': {'weight': draw(0, 5, 3, 2, 2)},
      'conv1': {'weight': draw(1, 5, 3, 1, 1)},
      'line_conv': {'weight': draw(2, 5, 3, 2)},
      'q': {'weight': draw(3, 6, 4)},
    }
  }
  factors = {}
  for name, x in tree.named(delta).items():
    view = tree.torch(name, x.shape)
    _, m, n = view.sizes(x.shape)
    rank = min(m, n)
    full = np.moveaxis(x, 0, -1).reshape(m, n).T
    one = np.eye(rank, dtype=np.float32)
    a, b = (full, one) if n < m else (one, full)
    factors[name] = adapters.Factors(a, b, 1.0, x.shape, view)
  checkpoint.save_lora(tmp_path / 'lora', factors)
  raw = checkpoint.load(tmp_path / 'lora' / 'adapter_model.safetensors')
  at = 'base_model.model.body.conv.lora_'
  assert raw[f'{at}A.weight'].shape == (5, 3, 2, 2)
  assert raw[f'{at}B.weight'].shape == (5, 5, 1, 1)
  zeros = tree.map(jnp.zeros_like, delta)
  loaded = tree.read(checkpoint.load_lora(zeros, tmp_path / 'lora'))
  for name, x in tree.named(delta).items():
    np.testing.assert_allclose(tree.named(loaded)[name], x, atol=1e-5)
  # The commonest rank has no pattern unless another rank occurs.
  assert options(tmp_path / 'lora')['rank_pattern'][r'body\.conv1'] == 3


def linear(seed: int, scale: float = 1.0, rank: int = 2) -> adapters.Factors:
  view = tree.Matrix(rows=(1,), columns=(0,))
  a, b = draw(seed, rank, 4), draw(seed + 1, 3, rank)
  return adapters.Factors(a, b, scale, (3, 4), view)


def test_scales_and_names_that_end_alike(tmp_path: pathlib.Path) -> None:
  factors = {
    'dense.weight': linear(0, 0.3, rank=1),
    'pooler.dense.weight': linear(2, 1.7),
    'x.weight': linear(4, 1.7),
  }
  checkpoint.save_lora(tmp_path / 'a', factors, config={'task_type': 'X'})
  base = {name: np.zeros((3, 4), np.float32) for name in factors}
  loaded = tree.read(checkpoint.load_lora(base, tmp_path / 'a'))
  for name, x in factors.items():
    np.testing.assert_allclose(loaded[name], adapters.dense(x), rtol=1e-6)
  assert options(tmp_path / 'a')['task_type'] == 'X'
  alike = {name: linear(i) for i, name in enumerate(factors)}
  checkpoint.save_lora(tmp_path / 'b', alike)
  assert options(tmp_path / 'b')['rank_pattern'] == {}
  assert options(tmp_path / 'b')['lora_alpha'] == 2


def test_a_tied_head_has_the_factors_of_the_embedding(
  tmp_path: pathlib.Path,
) -> None:
  view = tree.Matrix(rows=(0,), columns=(1,))
  x = adapters.Factors(draw(0, 2, 5), draw(1, 3, 2), 0.5, (5, 3), view)
  tied = {'lm_head': 'wte'}
  checkpoint.save_lora(tmp_path / 'lora', {'wte.weight': x}, tied=tied)
  base = {'wte.weight': np.zeros((5, 3), np.float32)}
  alone = tree.read(checkpoint.load_lora(base, tmp_path / 'lora'))
  untied = base | {'lm_head.weight': base['wte.weight']}
  both = tree.read(checkpoint.load_lora(untied, tmp_path / 'lora'))
  for delta in (alone['wte.weight'], *both.values()):
    np.testing.assert_allclose(delta, adapters.dense(x), rtol=1e-6)
  with pytest.raises(ValueError, match='has no factors'):
    checkpoint.save_lora(tmp_path / 'b', {'q.weight': linear(0)}, tied=tied)


def test_a_folder_appears_when_it_is_complete(tmp_path: pathlib.Path) -> None:
  bad = linear(0)
  bad.b[0, 0] = np.nan
  with pytest.raises(ValueError, match='NaN'):
    checkpoint.save_lora(tmp_path / 'lora', {'q.weight': bad})
  assert not list(tmp_path.iterdir())
  # What a killed writer left is removed; an empty folder may be there.
  (tmp_path / '.lora.save' / 'part').mkdir(parents=True)
  (tmp_path / '.lora.save' / 'part' / 'old').write_text('')
  (tmp_path / 'lora').mkdir()
  checkpoint.save_lora(tmp_path / 'lora', {'q.weight': linear(0)})
  names = {path.name for path in (tmp_path / 'lora').iterdir()}
  assert names == {'adapter_config.json', 'adapter_model.safetensors'}
  assert [path.name for path in tmp_path.iterdir()] == ['lora']
  before = (tmp_path / 'lora' / 'adapter_model.safetensors').read_bytes()
  with pytest.raises(FileExistsError, match='remove it, or give a new folder'):
    checkpoint.save_lora(tmp_path / 'lora', {'q.weight': linear(5)})
  after = (tmp_path / 'lora' / 'adapter_model.safetensors').read_bytes()
  assert before == after


def of_view(shape: tuple[int, ...], **axes: Any) -> adapters.Factors:
  lead, (m, n) = shape[:-2], shape[-2:]
  a, b = draw(0, *lead, 1, m), draw(1, *lead, n, 1)
  return adapters.Factors(a, b, 1.0, shape, tree.Matrix(**axes))


@pytest.mark.parametrize(
  ('factors', 'more', 'message'),
  [
    ({}, {}, 'there are no factors'),
    ({'q': linear(0)}, {}, "'q' has factors and is no weight"),
    ({'wte.weight': linear(0)}, {}, 'is an embedding by its name'),
    (
      {'q.weight': of_view((2, 3, 4), rows=(1,), columns=(2,), batch=(0,))},
      {},
      'PEFT has factors of',
    ),
    (
      {
        'q.weight': linear(0),
        'k.weight': of_view((3, 4), rows=(0,), columns=(1,)),
      },
      {},
      r'is \[in, out\] and others',
    ),
    ({'q.weight': linear(0)}, {'whole': {'n.weight': 1}}, 'give base='),
    (
      {'a.q.weight': linear(0)},
      {'whole': {'a.token': 1}},
      "and 'a.q.weight' is in it",
    ),
  ],
)
def test_mistakes(
  factors: Any, more: Any, message: str, tmp_path: pathlib.Path
) -> None:
  with pytest.raises(ValueError, match=message) as found:
    checkpoint.save_lora(tmp_path / 'lora', factors, **more)
  assert '\n' not in str(found.value)
  assert not list(tmp_path.iterdir())
