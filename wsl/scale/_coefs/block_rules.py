"""Rules that assign leaves to blocks and split blocks into cells."""

from collections.abc import Callable, Sequence
import re
from typing import Any

from wsl import tree
from wsl.scale._bank import banks

_WORDS = (
  *('all', 'task', 'layer', 'leaf'),
  *('head', 'channel', 'random', 'masks', 'entry'),
)


def parse(
  bank: banks.Bank, by: Any, depth: str | None
) -> list[tuple[str, Callable[[str], str], Any]]:
  """Parses ``by`` into rules (regex, leaf name -> block name, split)."""
  own = lambda name: name
  if isinstance(by, list):
    return [_rule(rule) for rule in by]
  kind = by if isinstance(by, str) else by[0] if isinstance(by, tuple) else by
  if kind not in _WORDS:
    hint = tree.nearest(str(kind), _WORDS)
    raise ValueError(
      f'init(by={by!r}): no such rule{hint}: expected one of {list(_WORDS)}, '
      'or a list of (regex, block)'
    )
  if kind in ('all', 'task'):
    return [('', lambda name: kind, None)]
  if kind == 'leaf':
    return [('', own, None)]
  if kind != 'layer':
    return [('', own, by)]
  if depth is None:
    raise ValueError(
      "init(by='layer'): depth= is missing, a regular expression that captures "
      r"the layer's number, such as r'block_(\d+)/'"
    )
  layers = {
    name: tree.layer(f"init(depth='{depth}')", depth, name)
    for name in bank.leaves
  }
  if max(layers.values()) < 0:
    raise ValueError(
      f"init(depth='{depth}'): covers no leaf: the names are {list(layers)[:4]}"
    )
  block_of = lambda n: f'layer_{n}' if n >= 0 else 'rest'
  return [('', lambda name: block_of(layers[name]), None)]


def _rule(rule: Any) -> tuple[str, Callable[[str], str], Any]:
  """Parses one user rule (regex, block) or (regex, block, split)."""
  if not isinstance(rule, tuple) or len(rule) not in (2, 3):
    raise ValueError(
      f'init: rule {rule!r}: expected (regex, block) or (regex, block, split)'
    )
  pattern, template, *split = rule
  regex = tree.compiled(pattern)

  def block(name: str) -> str:
    if template is None:
      return name
    match = regex.search(name)
    assert match is not None  # a rule names only what it matches
    try:
      return match.expand(template)
    except (re.error, IndexError) as error:
      raise ValueError(
        f"init: rule ('{pattern}', '{template}'): {error}"
      ) from None

  return pattern, block, split[0] if split else None


def cover(
  bank: banks.Bank, rules: Sequence[tuple[str, Callable[[str], str], Any]]
) -> dict[str, tuple[str, Any]]:
  """Returns block and split of each leaf; coverage is total both ways."""
  flat = {name: 0 for name in bank.leaves}
  indexed = [(pattern, i) for i, (pattern, _, _) in enumerate(rules)]
  try:
    chosen = tree.named(tree.by_regex(flat, indexed))
  except ValueError as error:
    raise ValueError(f'init: {error}') from None
  return {name: (rules[i][1](name), rules[i][2]) for name, i in chosen.items()}
