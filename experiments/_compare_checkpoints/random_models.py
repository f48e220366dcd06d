"""Two small models that differ in most ways, for a test."""

import json
import pathlib
from typing import Any

import ml_dtypes
import numpy as np

from wsl import checkpoint, tree

_WIDTH, _TOKENS = 16, 32


def write(folder: pathlib.Path, *, layers: int, seed: int) -> dict[str, Any]:
  """Writes a/, shards as Hugging Face has them, and b/, an Orbax checkpoint.

  b differs from a: entries of layer 1 by one ulp or a few, the sign of a zero,
  a flipped sign in the last layer, a dtype, a leaf less, one more, one of
  another shape; and its names are nested.

  Returns:
    The paths.
  """
  rng = np.random.default_rng(seed)

  def draw(*shape: int) -> np.ndarray:
    return np.asarray(rng.normal(size=shape)).astype(ml_dtypes.bfloat16)

  a: dict[str, np.ndarray] = {}
  a['model.embed_tokens.weight'] = draw(_TOKENS, _WIDTH)
  for i in range(layers):
    at = f'model.layers.{i}.'
    a[f'{at}mlp.up_proj.weight'] = draw(4 * _WIDTH, _WIDTH)
    a[f'{at}self_attn.q_proj.weight'] = draw(_WIDTH, _WIDTH)
    a[f'{at}norm.weight'] = draw(_WIDTH)
  a['model.norm.weight'] = np.zeros(_WIDTH, ml_dtypes.bfloat16)
  a['lm_head.weight'] = a['model.embed_tokens.weight'].copy()
  b = {name: x.copy() for name, x in a.items() if name != 'lm_head.weight'}
  b['model.layers.1.mlp.up_proj.weight'].view(np.uint16)[::2] ^= 1
  b['model.layers.1.norm.weight'].view(np.uint16)[:] += np.arange(
    _WIDTH, dtype=np.uint16
  )
  b['model.norm.weight'].view(np.uint16)[0] ^= 1 << 15
  last = f'model.layers.{layers - 1}.self_attn.q_proj.weight'
  b[last].view(np.uint16)[0, 0] ^= 1 << 15
  b['model.layers.0.norm.weight'] = b['model.layers.0.norm.weight'].astype('f')
  name = 'model.layers.0.self_attn.q_proj.weight'
  b[name] = b[name][:-1]
  b['extra.weight'] = draw(3)
  a['a_only.weight'] = draw(3)
  first, second = folder / 'a', folder / 'b'
  config = {'model_type': 'llama', 'num_hidden_layers': layers}
  _write_json(first / 'config.json', config | {'rope_theta': 1e4})
  _write_json(first / 'tokenizer.json', {'model': {'vocab': {'a': 0}}})
  checkpoint.save(first, a, metadata={'format': 'pt'}, shard_bytes=1 << 12)
  checkpoint.save_run(second, tree.nest(b), step=0)
  _write_json(second / 'config.json', config | {'rope_theta': 5e5})
  return {'a': str(first), 'b': str(second)}


def _write_json(file: pathlib.Path, value: Any) -> None:
  file.parent.mkdir(parents=True, exist_ok=True)
  file.write_text(json.dumps(value))
