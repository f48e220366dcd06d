"""Small random folders of models, for the variant ``tiny``."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np

from wsl import checkpoint

_WIDTH, _HIDDEN, _TOKENS = 16, 24, 40
# The module that the adapter changes.
_ADAPTED = 'model.layers.1.self_attn.q_proj'


def write(folder: pathlib.Path, *, layers: int, seed: int) -> None:
  """Writes ``base``, two experts and an adapter, unless they are there.

  The experts are the base with random changes, larger in later layers; one is
  bfloat16 and in shards. The adapter is a LoRA of the base.

  Args:
    folder: the parent of the four folders.
    layers: the number of layers.
    seed: of the random numbers.
  """
  if (folder / 'adapter' / 'adapter_config.json').exists():
    return
  rng = np.random.default_rng(seed)
  shapes = _shapes(layers)
  base = {n: rng.normal(size=s) / s[-1] ** 0.5 for n, s in shapes.items()}
  common = {n: rng.normal(size=s) for n, s in shapes.items()}
  for name in ('base', 'expert_1', 'expert_2'):
    params = dict(base)
    for i, n in enumerate(params if name != 'base' else ()):
      own = rng.normal(size=shapes[n])
      size = 0.02 + 0.1 * i / len(params)
      params[n] = params[n] + size * (0.6 * common[n] + 0.8 * own)
    _write_model(folder / name, params, layers, shards=name == 'expert_2')
  _write_adapter(folder / 'adapter', rng)


def _write_model(
  folder: pathlib.Path,
  params: dict[str, np.ndarray],
  layers: int,
  *,
  shards: bool,
) -> None:
  """Writes the tensors, a config and a card."""
  dtype = jnp.bfloat16 if shards else np.float32
  leaves = {n: x.astype(dtype) for n, x in params.items()}
  leaves['model.position_ids'] = np.arange(_TOKENS)
  checkpoint.save(folder, leaves, shard_bytes=4000 if shards else None)
  config = {'model_type': 'llama', 'num_hidden_layers': layers}
  (folder / 'config.json').write_text(json.dumps(config))
  (folder / 'README.md').write_text('---\nlicense: cc0-1.0\n---\n')


def _write_adapter(folder: pathlib.Path, rng: np.random.Generator) -> None:
  """Writes a LoRA of rank 2."""
  a, b = rng.normal(size=(2, 1, 2, _WIDTH)).astype(np.float32)
  factors = {'A': a[0], 'B': 0.1 * b[0].T}
  checkpoint.save(
    folder / 'adapter_model.safetensors',
    {f'base_model.model.{_ADAPTED}.lora_{k}.weight': x
     for k, x in factors.items()},
  )  # fmt: skip
  options = {'peft_type': 'LORA', 'r': 2, 'lora_alpha': 4}
  (folder / 'adapter_config.json').write_text(json.dumps(options))


def _shapes(layers: int) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of a Llama."""
  found: dict[str, tuple[int, ...]] = {
    'model.embed_tokens.weight': (_TOKENS, _WIDTH)
  }
  for i in range(layers):
    at = f'model.layers.{i}.'
    found |= {
      f'{at}self_attn.{x}_proj.weight': (_WIDTH, _WIDTH) for x in 'qkvo'
    }
    found |= {
      f'{at}mlp.up_proj.weight': (_HIDDEN, _WIDTH),
      f'{at}mlp.down_proj.weight': (_WIDTH, _HIDDEN),
      f'{at}input_layernorm.weight': (_WIDTH,),
    }
  return {**found, 'model.norm.weight': (_WIDTH,)}
