"""Factors and weights under the names and in the layouts of PEFT."""

import collections
from collections.abc import Iterable, Mapping
import re
from typing import Any

from wsl import adapters, tree, types
from wsl.checkpoint._read import messages

EMBEDDINGS = 'emb|wte|wpe'
# The key of the metadata that names modules whose weight is an embedding.
TIED = 'wsl.tied'
_PREFIX = 'base_model.model.'


def encode(
  factors: Mapping[str, adapters.Factors],
  whole: Mapping[str, Any],
  base: types.Params,
  *,
  embeddings: str,
  tied: Mapping[str, str],
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns the tensors of a LoRA by their names, and its configuration.

  Args:
    factors: by the name of the weight.
    whole: replaced weights by name.
    base: the model, for the other weights of the modules of ``whole``.
    embeddings: see ``save_lora``.
    tied: see there.

  Raises:
    ValueError: naming the leaf for which PEFT has no module.
  """
  modules = {_module(name): x for name, x in factors.items()}
  if not modules:
    raise ValueError('save_lora: there are no factors: nothing to save')
  pattern = tree.compiled(embeddings)
  is_embedding = lambda module: pattern.search(module.rpartition('.')[2])
  tensors: dict[str, Any] = {}
  turned = {}
  for module, x in modules.items():
    at = f'{_PREFIX}{module}.lora_'
    if is_embedding(module):
      _check_embedding(module, x)
      tensors |= {f'{at}embedding_A': x.a, f'{at}embedding_B': x.b}
      continue
    first, second, turned[module] = _linear(module, x)
    tensors |= {f'{at}A.weight': first, f'{at}B.weight': second}
  if len(set(turned.values())) > 1:
    one = next(m for m in turned if turned[m])
    raise ValueError(
      f'save_lora: {messages.quote(one)} is [in, out] and others [out, in], '
      'which PEFT has no option for: view all by matrices=tree.torch, or name '
      'embeddings by embeddings='
    )
  saved, biases = _whole(modules, whole, base)
  tensors |= saved | biases
  for head, embedding in tied.items():
    if embedding not in modules or head in modules:
      raise ValueError(
        f'save_lora(tied=): {messages.quote(embedding)} has no factors, or '
        f'{messages.quote(head)} has: leave it out'
      )
    x = modules[head] = modules[embedding]
    at = f'{_PREFIX}{head}.lora_'
    # The embedding [entries, d] is the map [out, in]: s (B A)^T = s A^T B^T.
    tensors |= {f'{at}A.weight': x.b.T, f'{at}B.weight': x.a.T}
  entries = _ranks(modules) | {
    'peft_type': 'LORA',
    'task_type': None,
    'base_model_name_or_path': None,
    'inference_mode': True,
    'init_lora_weights': True,
    'lora_dropout': 0.0,
    'use_rslora': False,
    'use_dora': False,
    'bias': 'all' if biases else 'none',
    'fan_in_fan_out': any(turned.values()),
    'target_modules': sorted(modules),
    'modules_to_save': sorted({_parent(_strip(k)) for k in saved}) or None,
  }
  return tensors, entries


def _module(name: str) -> str:
  """Returns the module of a weight; names may be joined by '/'."""
  dotted = name.replace('/', '.')
  module, _, last = dotted.rpartition('.')
  if last != 'weight' or not module:
    raise ValueError(
      f'save_lora: leaf {messages.quote(name)} has factors and is no weight of '
      'a module, NAME.weight: give it in whole=, or give names of PyTorch'
    )
  return module


def _linear(module: str, x: adapters.Factors) -> tuple[Any, Any, bool]:
  """Returns A and B in the layout of a layer, and if it is ``[in, out]``."""
  rank, axes = x.rank, len(x.shape)
  turned = axes == 2 and x.view.rows == (0,)
  rows = (0,) if turned else tuple(range(1, axes))
  if x.a.ndim != 2 or x.view.rows != rows:
    raise ValueError(
      f'save_lora: leaf {messages.quote(module)}.weight of shape {x.shape} has '
      f'the view {x.view}, PEFT has factors of [out, in, *window] only: take '
      'matrices=tree.torch, and layers one by one'
    )
  if axes == 2:
    return x.a, x.b, turned
  window = x.shape[2:]
  first = x.a.reshape(rank, x.shape[1], *window)
  return first, x.b.reshape(*x.b.shape, *(1 for _ in window)), False


def _check_embedding(module: str, x: adapters.Factors) -> None:
  """Checks that factors are those of an embedding ``[entries, d]``."""
  if x.a.ndim != 2 or len(x.shape) != 2 or x.view.rows != (0,):
    raise ValueError(
      f'save_lora: {messages.quote(module)} is an embedding by its name, and '
      f'its view is {x.view}: take tree.Matrix(rows=(0,), columns=(1,)), or '
      "embeddings='...'"
    )


def _ranks(modules: Mapping[str, adapters.Factors]) -> dict[str, Any]:
  """Returns the commonest rank and alpha, and the others by module."""
  pairs = {m: (x.rank, _alpha(x)) for m, x in modules.items()}
  ((rank, alpha), _), *others = collections.Counter(
    pairs.values()
  ).most_common()
  ranks: dict[str, int] = {}
  alphas: dict[str, float] = {}
  if others:
    # A pattern applies to every module whose name ends in it, and the first
    # that applies counts: the longest names come first.
    for module in sorted(pairs, key=lambda m: (-len(m), m)):
      ranks[re.escape(module)], alphas[re.escape(module)] = pairs[module]
  return {
    'r': rank,
    'lora_alpha': alpha,
    'rank_pattern': ranks,
    'alpha_pattern': alphas,
  }


def _alpha(x: adapters.Factors) -> float:
  """Returns alpha with ``alpha / r`` the scale."""
  alpha = float(x.scale) * x.rank
  return int(alpha) if alpha == int(alpha) else alpha


def _whole(
  modules: Mapping[str, adapters.Factors],
  whole: Mapping[str, Any],
  base: types.Params,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns replaced weights by their names: with modules, and biases."""
  weights = {name.replace('/', '.'): x for name, x in whole.items()}
  # PEFT saves a bias alone; any other weight with all weights of its module.
  parents = {_parent(k) for k in weights if not k.endswith('.bias')}
  held = {name.replace('/', '.'): x for name, x in tree.named(base).items()}
  names = [*held, *weights, *(f'{m}.weight' for m in modules)]
  for parent in parents:
    _check_saved(parent, names, modules, base is None)
  saved = {k: x for k, x in (held | weights).items() if _parent(k) in parents}
  biases = {}
  for name in weights.keys() - saved.keys():
    parent = _parent(name)
    at = f'{parent}.base_layer.bias' if parent in modules else name
    biases[_PREFIX + at] = weights[name]
  return {_PREFIX + name: x for name, x in saved.items()}, biases


def _check_saved(
  module: str,
  names: Iterable[str],
  modules: Mapping[str, adapters.Factors],
  baseless: bool,
) -> None:
  """Checks that a module can be saved as a whole."""
  inner = [k for k in names if k.startswith(f'{module}.')]
  deeper = next((k for k in inner if _parent(k) != module), None)
  if not module or deeper is not None or module in modules:
    other = deeper or f'{module}.weight'
    raise ValueError(
      f'save_lora: whole= has a weight of the module {messages.quote(module)}, '
      f'which PEFT saves as one, and {messages.quote(other)} is in it: leave '
      'the weight out'
    )
  if baseless:
    raise ValueError(
      f'save_lora: whole= has a weight of the module {messages.quote(module)}, '
      'which PEFT saves as one: give base='
    )


def _parent(name: str) -> str:
  """Returns the module of a leaf."""
  return name.rpartition('.')[0]


def _strip(name: str) -> str:
  """Returns a name without PEFT's prefix."""
  return name.removeprefix(_PREFIX)
