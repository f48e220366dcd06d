"""The leaves of a LoRA by module: factors, magnitudes, replaced weights."""

import pathlib
import re
from typing import Any

from wsl.checkpoint._read import messages

_PREFIX = re.compile(r'base_model\.(model\.)?')
# A factor; PEFT wrote the adapter's name before the end until 2023.
_PART = re.compile(
  r'(?P<module>.+)\.lora_(?P<part>A|B|embedding_A|embedding_B|'
  r'magnitude_vector)(\.(?!weight$|bias$)[^.]+)?(\.(?P<end>weight|bias))?'
)
_SAVED = re.compile(r'(.*)\.(modules_to_save(\.default)?|base_layer)\.([^.]+)')
_ORIGINAL = '.original_module.'
_TOKENS = re.compile(r'(.+)\.token_adapter\.trainable_tokens_delta(\.[^.]+)?')
_PAIRS = ({'A', 'B'}, {'embedding_A', 'embedding_B'})
_FACTORS = set.union(*_PAIRS)


def sort(
  path: pathlib.Path, leaves: dict[str, Any]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any], dict[str, Any]]:
  """Sorts the leaves of a LoRA.

  Args:
    path: the folder, for messages.
    leaves: the leaves under PEFT's names.

  Returns:
    The parts of each module (``'A'``, ``'B'``, ``'embedding_A'``,
    ``'embedding_B'``, ``'magnitude_vector'``, ``'bias'`` of B); the weights
    that replace the base's, under its names; new rows of embeddings by module.

  Raises:
    ValueError: if a leaf belongs to none of them, or a factor lacks the other.
  """
  modules: dict[str, dict[str, Any]] = {}
  replaced: dict[str, Any] = {}
  tokens: dict[str, Any] = {}
  for full, leaf in leaves.items():
    name = _PREFIX.sub('', full, count=1)
    if _ORIGINAL in name:
      continue
    part = _PART.fullmatch(name)
    if part is not None:
      kind = 'bias' if part['end'] == 'bias' else part['part']
      modules.setdefault(part['module'], {})[kind] = leaf
      continue
    if (embedding := _TOKENS.fullmatch(name)) is not None:
      tokens[embedding[1]] = leaf
      continue
    if 'lora_' in name or 'token_adapter' in name:
      raise ValueError(
        f'load_lora: {path} has a leaf {messages.quote(full)}, which is not '
        'supported: merge it with PEFT'
      )
    saved = _SAVED.fullmatch(name)
    replaced[f'{saved[1]}.{saved[4]}' if saved else name] = leaf
  for module, parts in modules.items():
    if _FACTORS & set(parts) not in (
      {'A', 'B'},
      {'embedding_A', 'embedding_B'},
    ):
      raise ValueError(
        f'load_lora: {path} lacks a factor of {messages.quote(module)}, it has '
        f'{sorted(parts)}: copy it again'
      )
  return modules, replaced, tokens
