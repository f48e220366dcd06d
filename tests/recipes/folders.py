"""Tiny folders of models, with the names and shapes of real architectures."""

from collections.abc import Mapping
import json
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from wsl import checkpoint

WIDTH, HIDDEN, LAYERS, VOCABULARY = 8, 12, 3, 16


def llama(vocabulary: int = VOCABULARY) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of a Llama with grouped queries: 2 heads, 1 of keys."""
  found: dict[str, tuple[int, ...]] = {
    'model.embed_tokens.weight': (vocabulary, WIDTH),
    'model.norm.weight': (WIDTH,),
    'lm_head.weight': (vocabulary, WIDTH),
  }
  for i in range(LAYERS):
    at = f'model.layers.{i}.'
    found |= {
      f'{at}self_attn.q_proj.weight': (WIDTH, WIDTH),
      f'{at}self_attn.k_proj.weight': (WIDTH // 2, WIDTH),
      f'{at}self_attn.v_proj.weight': (WIDTH // 2, WIDTH),
      f'{at}self_attn.o_proj.weight': (WIDTH, WIDTH),
      f'{at}mlp.gate_proj.weight': (HIDDEN, WIDTH),
      f'{at}mlp.up_proj.weight': (HIDDEN, WIDTH),
      f'{at}mlp.down_proj.weight': (WIDTH, HIDDEN),
      f'{at}input_layernorm.weight': (WIDTH,),
      f'{at}post_attention_layernorm.weight': (WIDTH,),
    }
  return found


def mixtral() -> dict[str, tuple[int, ...]]:
  """Returns the shapes of a Mixtral of two experts."""
  found = {k: v for k, v in llama().items() if '.mlp.' not in k}
  for i in range(LAYERS):
    at = f'model.layers.{i}.block_sparse_moe.'
    found[f'{at}gate.weight'] = (2, WIDTH)
    for j in range(2):
      found[f'{at}experts.{j}.w1.weight'] = (HIDDEN, WIDTH)
      found[f'{at}experts.{j}.w2.weight'] = (WIDTH, HIDDEN)
      found[f'{at}experts.{j}.w3.weight'] = (HIDDEN, WIDTH)
  return found


def gpt2() -> dict[str, tuple[int, ...]]:
  """Returns the shapes of a GPT-2; its head is tied."""
  found: dict[str, tuple[int, ...]] = {
    'wte.weight': (VOCABULARY, WIDTH),
    'wpe.weight': (10, WIDTH),
    'ln_f.weight': (WIDTH,),
    'ln_f.bias': (WIDTH,),
  }
  for i in range(LAYERS):
    for name, shape in {
      'ln_1': (WIDTH,),
      'ln_2': (WIDTH,),
      'attn.c_attn': (WIDTH, 3 * WIDTH),
      'attn.c_proj': (WIDTH, WIDTH),
      'mlp.c_fc': (WIDTH, 4 * WIDTH),
      'mlp.c_proj': (4 * WIDTH, WIDTH),
    }.items():
      found[f'h.{i}.{name}.weight'] = shape
      found[f'h.{i}.{name}.bias'] = shape[-1:]
  return found


def bert() -> dict[str, tuple[int, ...]]:
  """Returns the shapes of a BERT for masked language modelling."""
  found: dict[str, tuple[int, ...]] = {
    'bert.embeddings.word_embeddings.weight': (VOCABULARY, WIDTH),
    'bert.embeddings.position_embeddings.weight': (10, WIDTH),
    'bert.embeddings.token_type_embeddings.weight': (2, WIDTH),
    'bert.embeddings.LayerNorm.weight': (WIDTH,),
    'bert.embeddings.LayerNorm.bias': (WIDTH,),
    'bert.pooler.dense.weight': (WIDTH, WIDTH),
    'bert.pooler.dense.bias': (WIDTH,),
    'cls.predictions.bias': (VOCABULARY,),
    'cls.predictions.transform.dense.weight': (WIDTH, WIDTH),
    'cls.predictions.transform.dense.bias': (WIDTH,),
    'cls.predictions.transform.LayerNorm.weight': (WIDTH,),
    'cls.predictions.transform.LayerNorm.bias': (WIDTH,),
    'cls.predictions.decoder.weight': (VOCABULARY, WIDTH),
    'cls.predictions.decoder.bias': (VOCABULARY,),
  }
  for i in range(LAYERS):
    for name, shape in {
      'attention.self.query': (WIDTH, WIDTH),
      'attention.self.key': (WIDTH, WIDTH),
      'attention.self.value': (WIDTH, WIDTH),
      'attention.output.dense': (WIDTH, WIDTH),
      'attention.output.LayerNorm': (WIDTH,),
      'intermediate.dense': (HIDDEN, WIDTH),
      'output.dense': (WIDTH, HIDDEN),
      'output.LayerNorm': (WIDTH,),
    }.items():
      found[f'bert.encoder.layer.{i}.{name}.weight'] = shape
      found[f'bert.encoder.layer.{i}.{name}.bias'] = shape[:1]
  return found


CONFIGS: dict[str, dict[str, Any]] = {
  'llama': {
    'architectures': ['LlamaForCausalLM'],
    'model_type': 'llama',
    'hidden_size': WIDTH,
    'intermediate_size': HIDDEN,
    'num_hidden_layers': LAYERS,
    'num_attention_heads': 2,
    'num_key_value_heads': 1,
    'vocab_size': VOCABULARY,
    'max_position_embeddings': 32,
    'rms_norm_eps': 1e-6,
    'tie_word_embeddings': False,
    'bos_token_id': 1,
    'eos_token_id': 2,
  },
  'gpt2': {
    'architectures': ['GPT2LMHeadModel'],
    'model_type': 'gpt2',
    'n_embd': WIDTH,
    'n_layer': LAYERS,
    'n_head': 2,
    'n_positions': 10,
    'vocab_size': VOCABULARY,
    'bos_token_id': 1,
    'eos_token_id': 2,
  },
  'bert': {
    'architectures': ['BertForMaskedLM'],
    'model_type': 'bert',
    'hidden_size': WIDTH,
    'intermediate_size': HIDDEN,
    'num_hidden_layers': LAYERS,
    'num_attention_heads': 2,
    'vocab_size': VOCABULARY,
    'max_position_embeddings': 10,
    'pad_token_id': 0,
  },
}
CONFIGS['mixtral'] = CONFIGS['llama'] | {
  'architectures': ['MixtralForCausalLM'],
  'model_type': 'mixtral',
  'num_local_experts': 2,
  'num_experts_per_tok': 1,
}
SHAPES = {'llama': llama, 'mixtral': mixtral, 'gpt2': gpt2, 'bert': bert}


def tensors(
  shapes: Mapping[str, tuple[int, ...]], seed: int, dtype: str = 'float32'
) -> dict[str, np.ndarray]:
  """Returns a model near that of seed 0, which all others start from."""
  base, own = np.random.default_rng(0), np.random.default_rng(seed)
  found = {}
  for name, shape in shapes.items():
    x = base.standard_normal(shape)
    x = x + (0.3 * own.standard_normal(shape) if seed else 0)
    found[name] = np.asarray(x, np.float32).astype(jnp.dtype(dtype))
  return found


def write(
  path: pathlib.Path, architecture: str, seed: int, dtype: str = 'float32'
) -> pathlib.Path:
  """Writes a folder as Hugging Face has it; returns its path."""
  path.mkdir(parents=True)
  params = tensors(SHAPES[architecture](), seed, dtype)
  checkpoint.save(path / 'model.safetensors', params, metadata={'format': 'pt'})
  config = CONFIGS[architecture] | {'torch_dtype': dtype}
  (path / 'config.json').write_text(json.dumps(config))
  return path
