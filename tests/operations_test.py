"""The table of operations has every public function that can be traced."""

from collections.abc import Iterator
import importlib
import inspect
import re

from tests import operations

ROOMS = (
  *('deltas', 'merge', 'scale', 'stats', 'align', 'stitch', 'landscape'),
  *('adapters', 'codecs', 'search', 'surgery', 'train'),
)
# Functions that are not traced by users, by reason. A new function is in the
# table or here.
NOT_TRACED = {
  'chooses what to compute from values, on the host': (
    *(
      'adapters.extract',
      'adapters.factorise',
      'adapters.stack',
      'align.activation_matching',
      'align.agreement',
    ),
    *('codecs.bitstack', 'codecs.block_order', 'codecs.compeft'),
    *('codecs.load', 'codecs.save', 'codecs.size', 'codecs.skillpack'),
    'codecs.truncate',
    'align.assign_lapx',
    *('align.assign_scipy', 'align.check', 'align.match_many'),
    *('align.balance', 'align.learned_matching', 'align.transport'),
    *('align.merge_many', 'align.mismatch', 'align.partial_cost'),
    *('align.pleas', 'align.repair'),
    *('align.straight_through', 'align.weight_matching', 'align.width_weights'),
    *('align.widths', 'scale.few_shot', 'scale.select', 'scale.shots'),
    *('scale.trusted', 'search.cmaes', 'search.evo_merging'),
    *('search.at_levels', 'search.layerwise', 'search.level_switch'),
    *('search.map_nested', 'search.mm_mo'),
    *('search.fit_surrogate', 'search.greedy_soup', 'search.hypervolume'),
    *('search.journal', 'search.map_front', 'search.non_dominated'),
    *('search.random_search', 'stats.leaf_statistics'),
    *('stats.leaf_differences', 'stats.ulps'),
    *('stitch.align_tokens', 'stitch.average_compatibility'),
    'stitch.map_vocabulary',
    *('surgery.align_experts', 'surgery.balanced_clusters'),
    *('surgery.center_router', 'surgery.compress_experts'),
    *('surgery.domain_masks', 'surgery.group_counts'),
    *('surgery.group_experts', 'surgery.router_similarity'),
    *('surgery.split_domains', 'surgery.unit_features'),
    *('stitch.compatibility_matrix', 'stitch.pareto', 'stitch.partition'),
    *('stitch.penalty', 'stitch.reassemble', 'stitch.retrieval'),
    *('stitch.route_probabilities', 'stitch.select_routes', 'stitch.simplex'),
    'surgery.importance_order',
  ),
  'traces a function, or reads shapes and names': (
    *('adapters.call', 'adapters.mos', 'adapters.orthogonal_bases'),
    *('align.absorb_norms', 'align.check_leaves', 'align.explain'),
    'align.find_symmetry',
    *(
      'deltas.check_shapes',
      'deltas.check_stacked',
      'deltas.is_factors',
      'deltas.on_models',
    ),
    *('deltas.on_stacks', 'deltas.placeholders', 'deltas.times'),
    'align.from_json',
    *('align.to_json', 'deltas.check', 'deltas.unmatched', 'scale.as_bank'),
    *('scale.bank', 'scale.init', 'scale.subset', 'stats.cost'),
    'stats.linear_maps',
    *('stats.matrix_views', 'stitch.check_anchors', 'stitch.check_route'),
    *('stitch.cost', 'stitch.cut', 'stitch.joints', 'stitch.route_cost'),
    *('stitch.routes', 'stitch.sn_net_routes', 'stitch.sn_net_v2_routes'),
    *('surgery.block_clusters', 'surgery.check_program', 'surgery.density'),
    *('surgery.channel_patches', 'surgery.is_masked', 'surgery.masks'),
    *('surgery.phase_sparsities', 'surgery.sparse_soups'),
    *('surgery.swapped_order', 'surgery.unit_factors'),
    *(
      'surgery.compose_programs',
      'surgery.concatenate_blocks',
      'surgery.crash',
      'surgery.insert_identity',
    ),
    *('surgery.loop', 'surgery.passthrough', 'surgery.path_program'),
    *('surgery.program_from_json', 'surgery.program_of'),
    *('surgery.program_to_json', 'surgery.recursive', 'surgery.skip'),
    'surgery.stack',
    *('surgery.full_size', 'surgery.granularities', 'surgery.gradual_choices'),
    *('surgery.kernel_transforms', 'surgery.mix_and_match'),
    *('surgery.slice_size', 'surgery.slice_symmetry'),
    *('surgery.brick_of_entries', 'surgery.brick_of_units'),
    *('surgery.fold', 'surgery.stack', 'surgery.widen'),
  ),
  'is a loop of compiled steps over batches': (
    *('align.reset_batch_stats', 'merge.frank_wolfe', 'merge.localize'),
    *('surgery.routing', 'surgery.unit_activity'),
    *('merge.regmean_plus', 'scale.fit', 'stitch.cut_errors'),
    *('stitch.fit_family', 'stitch.fit_pairs', 'stitch.joint_moments'),
    *('stitch.moments', 'surgery.block_similarities', 'train.average'),
    *('surgery.block_gates', 'surgery.cola'),
  ),
  'rearranges what another operation computes': (
    *('align.assign_optax', 'align.repair_in_closed_form'),
    *('surgery.random_clusters', 'surgery.stack_experts'),
    'surgery.unstack_experts',
    'merge.layerwise',
    *('merge.exponential_mean', 'merge.fold', 'merge.order_sensitivity'),
    *('merge.running_mean', 'scale.identity'),
    *('scale.line', 'scale.linear_probe', 'scale.tip_adapter'),
    *('stitch.anchors', 'stitch.assemble', 'stitch.auxiliary'),
    *('stitch.build_descendant', 'stitch.cut_outputs'),
    *('stitch.dense_distillation', 'stitch.fit_joints', 'stitch.incubation'),
    *('stitch.insert_module', 'stitch.m2m', 'stitch.materialize'),
    *('stitch.meta_model', 'stitch.random_basis', 'stitch.route_similarity'),
    *('stitch.set_norm_moments', 'stitch.split', 'stitch.stack_modules'),
    *('stitch.stitch', 'stitch.trainable', 'stitch.unstack_modules'),
    'surgery.activation_importance',
    *('train.adamw', 'train.start'),
    *('surgery.collapse', 'train.adamw', 'train.start'),
  ),
}


def public() -> Iterator[str]:
  """Yields the names of all public functions of the rooms."""
  for room in ROOMS:
    module = importlib.import_module(f'wsl.{room}')
    for name, value in vars(module).items():
      if name.startswith('_') or not inspect.isfunction(value):
        continue
      old = (inspect.getdoc(value) or '').startswith('Deprecated')
      if value.__module__.startswith(module.__name__) and not old:
        yield f'{room}.{name}'


def test_every_function_is_in_the_table_or_has_a_reason_not_to_be() -> None:
  table = operations.table('float32')
  traced = {re.match(r'[\w.]+', name)[0] for name in table}  # type: ignore[index]
  excluded = {name for names in NOT_TRACED.values() for name in names}
  names = set(public())
  assert sorted(names - traced - excluded) == []
  assert sorted(excluded - names) == []
  assert sorted(excluded & traced) == []
