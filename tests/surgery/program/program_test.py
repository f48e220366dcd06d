"""Programs as values: their text, their checks, and the builders."""

import numpy as np
import pytest

from wsl import surgery

PROGRAMS = {
  'copies': surgery.stack(3, times=2),
  'looped': surgery.loop(4, start=1, stop=3, times=2),
  'recursive': surgery.recursive(
    4, loops=2, init='average', rank=2, untied='norm'
  ),
  'gated': surgery.insert_identity(3, after=[1], gated=r'out/\w+'),
}


@pytest.mark.parametrize('name', PROGRAMS)
def test_a_program_is_what_its_text_says(name):
  program = PROGRAMS[name]
  assert surgery.program_from_json(surgery.program_to_json(program)) == program


BAD_TEXTS = {
  'no JSON': 'a',
  'another format': '{"format": "x", "version": 1}',
  'a later version': '{"format": "wsl.surgery.program", "version": 2}',
  'no layers': '{"format": "wsl.surgery.program", "version": 1, "depth": 2}',
  'a list': '[1]',
  'an unknown field': (
    '{"format": "wsl.surgery.program", "version": 1, "depth": 1, '
    '"layers": [0], "tie": 3}'
  ),
  'half a depth': (
    '{"format": "wsl.surgery.program", "version": 1, "depth": 1, '
    '"layers": [0.5]}'
  ),
  'a word for a layer': (
    '{"format": "wsl.surgery.program", "version": 1, "depth": 1, '
    '"layers": ["a"]}'
  ),
}


@pytest.mark.parametrize('name', BAD_TEXTS)
def test_other_texts_are_refused_in_one_line(name):
  with pytest.raises(ValueError, match='program_from_json: not wri') as error:
    surgery.program_from_json(BAD_TEXTS[name])
  assert len(str(error.value)) <= 200
  assert '\n' not in str(error.value)


LAYER, PROGRAM = surgery.Layer, surgery.Program
PARAMS = {f'b{i}': {'w': np.ones((2, 2 + (i > 1)))} for i in range(3)}
APPLY = lambda program, blocks=r'b(\d)/', params=None: surgery.apply_program(
  PARAMS if params is None else params, program, blocks=blocks
)
IDENTITY = surgery.program_of(3, range(3))
ERRORS = {
  'an absent block': (
    lambda: surgery.check_program(PROGRAM(3, (LAYER((0,)), LAYER((3,))))),
    r'layer 1 names block 3: there are blocks 0\.\.2',
  ),
  'an absent own block': (
    lambda: surgery.check_program(PROGRAM(3, (LAYER((0,), own=-1),))),
    'layer 0 names block -1',
  ),
  'another depth': (
    lambda: APPLY(surgery.program_of(4, [0])),
    r'for 4 blocks, the parameters have 3 that match',
  ),
  'no layer': (lambda: surgery.program_of(3, []), 'it has no layers'),
  'no source': (
    lambda: surgery.check_program(PROGRAM(3, (LAYER(()),))),
    'layer 0 has no sources',
  ),
  'no depth': (lambda: surgery.check_program(PROGRAM(0, ())), 'depth=0'),
  'a residual of nothing': (
    lambda: surgery.check_program(PROGRAM(3, (LAYER((0,), rank=2),))),
    'rank=2 and own=None',
  ),
  'a gate of nothing': (
    lambda: surgery.check_program(PROGRAM(3, (LAYER((0,), gate=2.0),))),
    'gated= must say which leaves',
  ),
  'a gate that is not finite': (
    lambda: surgery.check_program(
      PROGRAM(3, (LAYER((0,), gate=np.inf),), gated='w')
    ),
    'gate=inf: not finite',
  ),
  'ties of different blocks': (
    lambda: surgery.check_program(
      PROGRAM(3, (LAYER((0,), tied=1), LAYER((1,), tied=1)))
    ),
    'layer 1 is tied to group 1, whose sources are',
  ),
  'a malformed rule': (
    lambda: surgery.check_program(PROGRAM(3, (LAYER((0,)),), untied='(')),
    'no regular expression',
  ),
  'a mean of unlike blocks': (
    lambda: APPLY(PROGRAM(3, (LAYER((0, 2)),))),
    r"layer 0: leaf 'b#/w' is \(2, 2\) in one",
  ),
  'a rule of no untied leaf': (
    lambda: APPLY(PROGRAM(3, (LAYER((0,), own=1),), untied='norm')),
    "untied='norm' matches no leaf of block 1",
  ),
  'a rule of no gated leaf': (
    lambda: APPLY(PROGRAM(3, (LAYER((0,), gate=0.0),), gated='out')),
    "gated='out' matches no leaf",
  ),
  'no blocks=': (lambda: APPLY(IDENTITY, None), 'blocks= is missing'),
  'no such blocks': (
    lambda: APPLY(IDENTITY, r'layer(\d)'),
    'matches no leaf, among',
  ),
  'two groups': (lambda: APPLY(IDENTITY, r'(b)(\d)'), 'has 2 groups'),
  'no number': (lambda: APPLY(IDENTITY, r'(b)\d'), 'is no block number'),
  'a gap': (
    lambda: APPLY(IDENTITY, r'b(\d)', {'b0': np.ones(1), 'b2': np.ones(1)}),
    'no leaf of block 1, of blocks 0..2',
  ),
  'stacks of two lengths': (
    lambda: APPLY(
      IDENTITY, 'w', {'w1': np.ones((3, 2)), 'w2': np.ones((2, 2))}
    ),
    'another number of blocks',
  ),
  'a stacked number': (
    lambda: APPLY(IDENTITY, 'w', {'w': np.asarray(1.0)}),
    "leaf 'w' is a number",
  ),
  'programs of other depths': (
    lambda: surgery.compose_programs(IDENTITY, surgery.stack(4, times=2)),
    'the first makes 3 layers, the second is for 4',
  ),
  'a mean of residuals': (
    lambda: surgery.compose_programs(
      PROGRAMS['recursive'], PROGRAM(4, (LAYER((0, 1)),))
    ),
    'apply one program after the other',
  ),
  'two rules': (
    lambda: surgery.compose_programs(
      PROGRAM(3, (LAYER((0,)),), untied='a'),
      PROGRAM(1, (LAYER((0,)),), untied='b'),
    ),
    "untied='a' and 'b' differ",
  ),
  'stack times': (lambda: surgery.stack(3, times=0), 'times=0'),
  'stack order': (
    lambda: surgery.stack(3, times=2, order='hole'),
    r"did you mean 'whole'",
  ),
  'skip all': (lambda: surgery.skip(3, start=0, stop=3), 'no layers'),
  'half a block': (lambda: surgery.program_of(3, [0.5]), '0.5 where a whole'),
  'an empty cluster': (
    lambda: surgery.crash([(0, 0), (0, 3)]),
    'follow each other from 0',
  ),
  'an empty range': (lambda: surgery.skip(3, start=2, stop=2), 'not among'),
  'loop times': (
    lambda: surgery.loop(3, start=0, stop=1, times=0),
    'times=0',
  ),
  'passthrough': (
    lambda: surgery.passthrough(3, slices=[(1, 4)]),
    r'passthrough: blocks 1\.\.3 are not among 0\.\.2',
  ),
  'insert': (
    lambda: surgery.insert_identity(3, after=[3], gated='w'),
    'blocks 3',
  ),
  'loops': (
    lambda: surgery.recursive(4, loops=3, init='lower'),
    'loops=3 does not divide the depth 4',
  ),
  'init': (
    lambda: surgery.recursive(4, loops=2, init='averge'),
    "did you mean 'average'",
  ),
  'clusters': (
    lambda: surgery.block_clusters([0.5], clusters=3),
    'clusters=3 of 2 blocks',
  ),
  'NaN': (lambda: surgery.block_clusters([np.nan], clusters=1), 'NaN'),
  'no partition': (lambda: surgery.crash([(0, 2), (3, 4)]), 'follow each'),
  'crash mode': (lambda: surgery.crash([(0, 2)], mode='x'), "mode='x'"),
}  # fmt: skip


@pytest.mark.parametrize('name', ERRORS)
def test_a_mistake_is_named_in_one_line(name):
  call, message = ERRORS[name]
  with pytest.raises(ValueError, match=message) as error:
    call()
  assert len(str(error.value)) <= 200
  assert '\n' not in str(error.value)


def test_a_group_of_one_cycle_is_the_network():
  program = surgery.recursive(4, loops=1, init='average')
  assert [x.sources for x in program.layers] == [(i,) for i in range(4)]


def test_stepwise_keeps_the_first_and_the_last_block():
  for depth, loops in [(12, 2), (12, 3), (18, 3), (8, 4)]:
    program = surgery.recursive(depth, loops=loops, init='stepwise')
    found = [x.sources[0] for x in program.layers][: depth // loops]
    assert found[0] == 0
    assert found[-1] == depth - 1
    assert len(set(np.diff(found))) <= 2


def test_a_loop_of_one_pass_is_the_network():
  once = surgery.loop(4, start=1, stop=3, times=1)
  assert once == surgery.program_of(4, range(4))
