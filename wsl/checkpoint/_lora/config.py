"""The configuration of a LoRA: scales by module, and what is not supported."""

import json
import math
import pathlib
import re
from typing import Any, NamedTuple

from wsl.checkpoint._read import messages

FILE = 'adapter_config.json'
# Options by which the weights are not W + s B A.
_OTHER = (
  ('layer_replication', 'target_parameters')
  + ('alora_invocation_tokens', 'megatron_config', 'use_qalora', 'use_bdlora')
  + ('arrow_config', 'monteclora_config', 'kasa_config')
)
# Initialisations that subtract the first factors from the base.
_RESIDUAL = ('pissa', 'olora', 'corda', 'loftq', 'lora_ga')


class Config(NamedTuple):
  """What a LoRA's configuration says about its weights.

  Attributes:
    rank: the rank of modules without a pattern.
    alpha: their numerator of the scale.
    ranks: rank by a pattern of module names.
    alphas: numerator by a pattern.
    root: whether the scale is ``alpha / sqrt(r)`` (rsLoRA), not ``alpha / r``.
    transposed: whether square weights are ``[in, out]``.
    tokens: the rows of embeddings that are replaced, by the end of the
      module's name; by an empty one, those of any.
  """

  rank: int
  alpha: float
  ranks: dict[str, int]
  alphas: dict[str, float]
  root: bool
  transposed: bool
  tokens: dict[str, tuple[int, ...]]

  def rows(self, module: str, shape: tuple[int, ...], size: int) -> list[int]:
    """Returns the rows of an embedding that are replaced.

    Args:
      module: its name.
      shape: the shape of the new rows.
      size: the number of rows of the base.

    Raises:
      ValueError: if the file has another number of rows, or the base lacks one.
    """
    fits = lambda end: not end or f'.{module}'.endswith(f'.{end}')
    rows = [
      row for end, some in self.tokens.items() if fits(end) for row in some
    ]
    if len(rows) != shape[0] or not all(0 <= row < size for row in rows):
      raise ValueError(
        f'load_lora: {messages.quote(module)} has {shape[0]} new rows, {FILE} '
        f'names {len(rows)}, the base has {size}: it is of another model'
      )
    return rows

  def scale(self, module: str, rank: int) -> float:
    """Returns the factor of B A for a module.

    Raises:
      ValueError: if the factors have another rank than the configuration.
    """
    wanted = _by_pattern(self.ranks, module, self.rank)
    if rank != wanted:
      raise ValueError(
        f'load_lora: the factors of {messages.quote(module)} have rank {rank}, '
        f'{FILE} says {wanted}: copy the folder again'
      )
    alpha = _by_pattern(self.alphas, module, self.alpha)
    return alpha / (math.sqrt(rank) if self.root else rank)


def read(folder: pathlib.Path) -> Config:
  """Reads the configuration of a folder.

  Raises:
    FileNotFoundError: if there is none.
    ValueError: if it is damaged, no LoRA, or has an option whose weights are
      not the base's plus a scaled product.
  """
  path = folder / FILE
  messages.check_regular(path)
  try:
    found = json.loads(path.read_bytes())
    kind = found['peft_type']
    config = Config(
      int(found['r']),
      float(found['lora_alpha']),
      {k: int(v) for k, v in (found.get('rank_pattern') or {}).items()},
      {k: float(v) for k, v in (found.get('alpha_pattern') or {}).items()},
      bool(found.get('use_rslora')),
      bool(found.get('fan_in_fan_out')),
      _tokens(found.get('trainable_token_indices') or {}),
    )
    for pattern in (*config.ranks, *config.alphas):
      re.compile(pattern)
  except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
    raise messages.damaged(path, 'it is no configuration of a LoRA') from None
  except re.error:
    raise messages.damaged(path, 'a pattern in it is malformed') from None
  if kind != 'LORA':
    raise ValueError(
      f'load_lora: {folder} is of type {messages.quote(kind)}, only LORA is '
      'read: merge it with PEFT'
    )
  _check_options(folder, found)
  return config


def _check_options(folder: pathlib.Path, found: dict[str, Any]) -> None:
  """Raises for an option that changes the weights in another way."""
  option = next((name for name in _OTHER if found.get(name)), None)
  if option is not None:
    raise ValueError(
      f'load_lora: {folder} has {option}, which is not supported: merge it '
      'with PEFT'
    )
  start = found.get('init_lora_weights')
  if isinstance(start, str) and start.lower().startswith(_RESIDUAL):
    raise ValueError(
      f'load_lora: {folder} was trained from a base that '
      f'init_lora_weights={start[:20]!r} changed: save it again with '
      'path_initial_model_for_weight_conversion'
    )


def _tokens(found: Any) -> dict[str, tuple[int, ...]]:
  """Returns rows by the end of a module's name; a list is of any module."""
  by_end = found if isinstance(found, dict) else {'': found}
  return {end: tuple(map(int, rows)) for end, rows in by_end.items()}


def _by_pattern(patterns: dict[str, Any], module: str, default: Any) -> Any:
  """Returns the value of the first pattern that matches a module's end."""
  for pattern, value in patterns.items():
    if re.match(rf'(.*\.)?({pattern})$', module):
      return value
  return default
