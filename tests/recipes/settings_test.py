"""Filters, gradients and precedence of parameters."""

from typing import Any

import pytest

from wsl.recipes import _settings


def resolve(
  *levels: Any, tensor: str = 'a.mlp.w', position: float = 0.5
) -> Any:
  found = _settings.resolve(
    'p', [{} if x is None else {'p': x} for x in levels],
    tensor=tensor, position=position,
  )  # fmt: skip
  return found and found.value


@pytest.mark.parametrize(
  ('setting', 'position', 'wanted'),
  [
    (0.3, 0.9, 0.3),
    ('1e-4', 0.0, 1e-4),
    ([0, 1], 0.25, 0.25),
    ([0, 1, 0], 0.25, 0.5),
    ([0, 1, 0], 1.0, 0.0),
    ([2], 0.7, 2),
    ([True, False], 0.9, True),
    ([True, False], 1.0, False),
    (['1', '3'], 0.5, 2.0),
    ([], 0.5, None),
  ],
)
def test_a_list_is_a_gradient(
  setting: Any, position: float, wanted: Any
) -> None:
  assert resolve(setting, position=position) == wanted


def test_the_first_filter_in_the_name_wins() -> None:
  setting = [
    {'filter': 'attn', 'value': 1},
    {'filter': 'mlp', 'value': [2, 4]},
    {'filter': '*', 'value': 5},
  ]
  assert resolve(setting, tensor='0.attn.w') == 1
  assert resolve(setting, tensor='0.mlp.w', position=0.5) == 3
  assert resolve(setting, tensor='norm') == 5
  assert resolve({'filter': 'attn', 'value': 1}, tensor='0.attn.w') == 1


def test_where_no_filter_matches_the_next_level_decides() -> None:
  inner = [{'filter': 'attn', 'value': 1}]
  assert resolve(inner, 7, tensor='0.mlp.w') == 7
  assert resolve(inner, 7, tensor='0.attn.w') == 1
  assert resolve(None, inner, [], 8, tensor='0.mlp.w') == 8
  assert resolve(inner, tensor='0.mlp.w') is None


def test_a_regex_is_searched_in_the_name() -> None:
  setting = [{'regex': r'^0\..*w$', 'value': 1}, {'value': 2}]
  assert resolve(setting, tensor='0.mlp.w') == 1
  assert resolve(setting, tensor='10.mlp.w') == 2
  assert _settings.rules(setting) == [r"regex '^0\..*w$'"]


@pytest.mark.parametrize(
  ('setting', 'message'),
  [
    ([1, {'value': 2}], 'mixes values with conditions'),
    ([{'filter': 'a'}], 'expected value and filter'),
    ([{'value': 1, 'filtre': 'a'}], 'expected value and filter'),
    ([{'filter': 'a', 'regex': 'a', 'value': 1}], 'expected value and filter'),
    ([{'regex': '(', 'value': 1}], r"'\(' is no regular expression"),
    (None, 'expected a number'),
    ([[1, 2]], 'expected a number'),
    ('heavy', 'expected a number'),
    ('nan', 'expected a number'),
  ],
)
def test_malformed_settings_are_named(setting: Any, message: str) -> None:
  with pytest.raises(ValueError, match=message) as error:
    _settings.resolve('p', [{'p': setting}], tensor='a', position=0)
  assert str(error.value).startswith('p')
