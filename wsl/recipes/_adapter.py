"""A merged model as a LoRA of the recipe's base."""

from collections.abc import Callable, Iterator, Mapping
import pathlib
import re
from typing import Any

import numpy as np

from wsl import adapters, checkpoint, deltas, tree, types
from wsl.recipes import _build, _folder, _recipe, _tensors

# Architectures whose linear maps are [in, out] (Conv1D of transformers), and
# the last part of their names.
_TURNED = ('gpt2', 'openai-gpt', 'imagegpt', 'decision_transformer')
_MAPS = ('c_attn', 'c_proj', 'c_fc', 'q_attn')
_EMBEDDING = re.compile(r'(embed_tokens|wte|word_embeddings)[.]weight$')
_SHOWN = 10
_COPIES = 4


def widen(recipe: _recipe.Recipe) -> _recipe.Recipe:
  """Returns a recipe without the rounding of a merged model.

  Rounding to bfloat16 adds noise of full rank to the difference.

  Args:
    recipe: any recipe.

  Returns:
    The recipe with float32 throughout, or float64 if it says so.

  Raises:
    ValueError: if the recipe has no base.
  """
  if recipe.base is None:
    raise ValueError('--lora_rank: the LoRA is one of the base: set base_model')
  dtype = 'float64' if recipe.dtype == 'float64' else 'float32'
  return recipe._replace(dtype=dtype, out_dtype=None)


def memory(merged: _build.Merged, dtype: str | None) -> int:
  """Returns the memory of the extraction of the largest tensor, in bytes.

  It holds the difference, a copy that is scaled and turned, another for
  products with its transpose, and what the factors leave out.
  """
  width = np.dtype(dtype or 'float32').itemsize
  sizes = (x.size for x in merged.params.values())
  return _COPIES * width * max(sizes, default=0)


def write(
  out: pathlib.Path,
  recipe: _recipe.Recipe,
  folders: Mapping[_recipe.Model, _folder.Folder],
  merged: _build.Merged,
  *,
  rank: int,
  key: types.PRNGKey,
  check_finite: bool = True,
  checksums: bool = False,
  progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[str]:
  """Writes the difference of a merged model to its base as a LoRA of PEFT.

  Args:
    out: the folder, which must be new.
    recipe: the recipe, see ``widen``.
    folders: its models.
    merged: the merged model.
    rank: of the factors.
    key: for the randomised decompositions.
    check_finite: whether a value that is not finite is an error.
    checksums: see ``checkpoint.save_lora``.
    progress: see ``adapters.extract``.

  Yields:
    Lines that say how large the errors are.

  Raises:
    ValueError: if a tensor differs from the base in shape, or belongs to no
      module that PEFT has; or if no matrix differs from the base.
  """
  assert recipe.base is not None
  base = folders[recipe.base]
  delta = _difference(base.params, merged.params, recipe.dtype)
  config = base.config or {}
  view = lambda name, shape: _view(config, name, shape)
  found = adapters.extract(
    delta, rank=rank, matrices=view, key=key, progress=progress
  )
  if not found.factors:
    raise ValueError(
      f'--lora_rank: no matrix of the merged model differs from {recipe.base}: '
      'check models and weights, or leave --lora_rank out'
    )
  whole = {
    name: _tensors.cast_leaf(merged.params[name], base.params[name].dtype)
    for name in found.rest
  }
  prefix = _prefix(base)
  named = lambda x: {prefix + name: leaf for name, leaf in x.items()}
  checkpoint.save_lora(
    out,
    named(found.factors),
    whole=named(whole),
    base=named(base.params),
    tied=_tied(base, named(found.factors)),
    config={
      'base_model_name_or_path': recipe.base.path,
      'task_type': _task(config),
    },
    check_finite=check_finite,
    checksums=checksums,
  )
  yield from _report(found, rank)


def _difference(
  base: Mapping[str, Any], merged: Mapping[str, Any], dtype: str | None
) -> dict[str, Any]:
  """Returns the task vector of the merged model in a dtype, on demand."""
  if missing := sorted(set(base) ^ set(merged)):
    where = 'base' if missing[0] in merged else 'merged model'
    raise ValueError(
      f"--lora_rank: the {where} has no tensor '{missing[0]}': a LoRA has the "
      'tensors of its base'
    )
  for name, x in merged.items():
    if tuple(x.shape) != tuple(base[name].shape):
      raise ValueError(
        f"--lora_rank: tensor '{name}' has shape {tuple(x.shape)}, in the base "
        f'{tuple(base[name].shape)}: a LoRA has the shapes of its base'
      )
  stacked = deltas.stack(dict(base), [dict(merged)], dtype=dtype)
  return tree.map(_first, stacked)


def _first(x: Any) -> Any:
  return x[0]


def _view(
  config: Mapping[str, Any], name: str, shape: tuple[int, ...]
) -> tree.Matrix | None:
  """Returns the view of a tensor of an architecture of transformers."""
  parts = name.split('.')
  if parts[-1] != 'weight' or len(shape) == 3:  # fused experts, tokens
    return None
  if config.get('model_type') in _TURNED and parts[-2] in _MAPS:
    return tree.Matrix(rows=(0,), columns=(1,))
  return tree.torch(name, shape)


def _prefix(base: _folder.Folder) -> str:
  """Returns what the names of modules have before the names in the file.

  GPT-2's files hold the inner model, without the name that its class has.
  """
  config = base.config or {}
  inner = 'LMHead' in _class(config) and config.get('model_type') == 'gpt2'
  whole = any(name.startswith('transformer.') for name in base.params)
  return 'transformer.' if inner and not whole else ''


def _tied(base: _folder.Folder, factors: Mapping[str, Any]) -> dict[str, str]:
  """Returns the output head that is the input embedding, and its module."""
  config = base.config or {}
  head = (
    'cls.predictions.decoder' if 'MaskedLM' in _class(config) else 'lm_head'
  )
  has_head = any(name.endswith(f'{head}.weight') for name in base.params)
  names = [name for name in factors if _EMBEDDING.search(name)]
  if has_head or not names or not config.get('tie_word_embeddings', True):
    return {}
  return {head: names[0].removesuffix('.weight')}


def _class(config: Mapping[str, Any]) -> str:
  """Returns the class of a model in transformers."""
  return ' '.join(map(str, config.get('architectures') or []))


def _task(config: Mapping[str, Any]) -> str | None:
  """Returns PEFT's name of the task of an architecture."""
  name = _class(config)
  return 'CAUSAL_LM' if 'CausalLM' in name or 'LMHead' in name else None


def _report(found: adapters.Extraction, rank: int) -> Iterator[str]:
  """Yields lines about the errors, the largest first."""
  errors = {name: found.errors[name] for name in found.factors}
  order = sorted(errors, key=lambda name: -errors[name])
  median = float(np.median(list(errors.values())))
  size = sum(x.a.size + x.b.size for x in found.factors.values())
  whole = sum(x.size for x in found.rest.values())
  yield (
    f'{len(errors)} tensors have factors of rank {rank} or less, {size} '
    f'numbers; {len(found.rest)} are saved whole, {whole} numbers'
  )
  yield f'relative errors of the difference: median {median:.3g}, the largest:'
  for name in order[:_SHOWN]:
    yield f'  {errors[name]:.3g}  {name}, rank {found.factors[name].rank}'
