"""Llama folders of random weights: a base, and experts beside it."""

import json
import pathlib

_CONFIG = {
  'architectures': ['LlamaForCausalLM'],
  'model_type': 'llama',
  'num_attention_heads': 16,
  'num_key_value_heads': 16,
  'max_position_embeddings': 2048,
  'rms_norm_eps': 1e-5,
  'torch_dtype': 'bfloat16',
  'tie_word_embeddings': False,
}
_WIDTH, _HIDDEN, _VOCABULARY, _SHARDS = 1024, 2816, 32000, 3


def shapes(millions: float) -> dict[str, tuple[int, ...]]:
  """Returns the leaves of a Llama of about so many million parameters."""
  block = {
    **{f'self_attn.{x}_proj.weight': (_WIDTH, _WIDTH) for x in 'qkvo'},
    'mlp.gate_proj.weight': (_HIDDEN, _WIDTH),
    'mlp.up_proj.weight': (_HIDDEN, _WIDTH),
    'mlp.down_proj.weight': (_WIDTH, _HIDDEN),
    'input_layernorm.weight': (_WIDTH,),
    'post_attention_layernorm.weight': (_WIDTH,),
  }
  size = lambda shape: shape[0] * (shape[1] if len(shape) > 1 else 1)
  per_block = sum(map(size, block.values()))
  rest = millions * 1e6 - 2 * _WIDTH * _VOCABULARY
  leaves = {'model.embed_tokens.weight': (_VOCABULARY, _WIDTH)}
  for i in range(max(1, round(rest / per_block))):
    leaves |= {f'model.layers.{i}.{n}': s for n, s in block.items()}
  return leaves | {
    'model.norm.weight': (_WIDTH,),
    'lm_head.weight': (_VOCABULARY, _WIDTH),
  }


def generate(folder: pathlib.Path, millions: float, seed: int) -> None:
  """Writes a model of random weights: a base, or a small change of it."""
  import jax.numpy as jnp
  import numpy as np

  from wsl import checkpoint, tree

  draw = lambda seed: np.random.default_rng(seed).standard_normal(
    3_000_017, np.float32
  )
  noise = 0.02 * draw(0) + 0.002 * draw(seed) * (seed > 0)
  noise = noise.astype(jnp.bfloat16)

  def leaf(i: int, shape: tuple[int, ...]) -> tree.Stored:
    # Each leaf starts at another place, so that leaves are not alike.
    fetch = lambda: np.resize(np.roll(noise, 7_919_003 * i), shape)
    return tree.Stored(fetch, shape, noise.dtype)

  names = shapes(millions).items()
  leaves = {name: leaf(i, s) for i, (name, s) in enumerate(names)}
  size = sum(leaf.size for leaf in leaves.values())
  folder.mkdir()
  checkpoint.save(
    folder, leaves, metadata={'format': 'pt'}, shard_bytes=2 * size // _SHARDS
  )
  config = _CONFIG | {
    'hidden_size': _WIDTH,
    'intermediate_size': _HIDDEN,
    'vocab_size': _VOCABULARY,
    'num_hidden_layers': sum('q_proj' in name for name in leaves),
  }
  (folder / 'config.json').write_text(json.dumps(config))
