r"""New networks cut from old ones: layers repeated or left out, fewer units.

A layer program is a value: a list of layers, each made of blocks of a network.
It is stored as JSON and applies to any network of that depth, in memory or in
files::

    program = surgery.passthrough(32, slices=[(0, 24), (8, 32)])
    model = checkpoint.load('model', lazy=True)
    deep = surgery.apply_program(model, program, blocks=r'layers\.(\d+)\.')
    checkpoint.save('deep', deep)

A slice is a smaller network in the leading units of each group. The groups are
found by ``align.find_symmetry``, so that no operation names an architecture::

    symmetry = align.find_symmetry(apply_fn, params, inputs)
    table = surgery.weight_importance(params, symmetry=symmetry)
    order = surgery.importance_order(table, symmetry=symmetry)
    params = align.permute(params, order, symmetry=symmetry)
    half = surgery.slice_size(symmetry, widths=0.5)
    small = surgery.slice(params, half, symmetry=symmetry)

A sparse model keeps its masks in the tree, so that merges keep them too::

    masks = surgery.magnitude_masks(params, sparsity=0.5)
    models = [train(surgery.mask(params, masks), seed) for seed in range(3)]
    soup = deltas.apply(models[0], merge.mean(deltas.stack(models[0], models)))
    apply_fn(surgery.unmask(soup), x)

A perceptron becomes experts by copies (``upcycle``) or by a division of its
units (``split_units``). Bricks are named slices of leaves, which are exchanged
between models.
"""

from wsl.surgery._experts.brick_edits import grow_brick as grow_brick
from wsl.surgery._experts.brick_edits import retrieve_brick as retrieve_brick
from wsl.surgery._experts.brick_edits import update_brick as update_brick
from wsl.surgery._experts.bricks import Brick as Brick
from wsl.surgery._experts.bricks import brick_of_entries as brick_of_entries
from wsl.surgery._experts.bricks import brick_of_units as brick_of_units
from wsl.surgery._experts.bricks import BrickSlice as BrickSlice
from wsl.surgery._experts.clusters import balanced_clusters as balanced_clusters
from wsl.surgery._experts.clusters import center_router as center_router
from wsl.surgery._experts.clusters import random_clusters as random_clusters
from wsl.surgery._experts.clusters import unit_features as unit_features
from wsl.surgery._experts.compress import compress_experts as compress_experts
from wsl.surgery._experts.compress import CompressedExperts as CompressedExperts
from wsl.surgery._experts.compress import ResidualColumns as ResidualColumns
from wsl.surgery._experts.compress import restore_experts as restore_experts
from wsl.surgery._experts.domains import domain_masks as domain_masks
from wsl.surgery._experts.domains import split_domains as split_domains
from wsl.surgery._experts.domains import unit_activity as unit_activity
from wsl.surgery._experts.drop import drop_experts as drop_experts
from wsl.surgery._experts.grouping import ExpertGroups as ExpertGroups
from wsl.surgery._experts.grouping import group_counts as group_counts
from wsl.surgery._experts.grouping import group_experts as group_experts
from wsl.surgery._experts.merging import align_experts as align_experts
from wsl.surgery._experts.merging import merge_experts as merge_experts
from wsl.surgery._experts.merging import tie_experts as tie_experts
from wsl.surgery._experts.pregating import domain_scores as domain_scores
from wsl.surgery._experts.pregating import router_loss as router_loss
from wsl.surgery._experts.routing import router_similarity as router_similarity
from wsl.surgery._experts.routing import Routing as Routing
from wsl.surgery._experts.routing import routing as routing
from wsl.surgery._experts.split import apply_experts as apply_experts
from wsl.surgery._experts.split import Experts as Experts
from wsl.surgery._experts.split import split_units as split_units
from wsl.surgery._experts.stacks import stack_experts as stack_experts
from wsl.surgery._experts.stacks import unstack_experts as unstack_experts
from wsl.surgery._experts.upcycle import upcycle as upcycle
from wsl.surgery._masks.adapters import add_sparse as add_sparse
from wsl.surgery._masks.adapters import unit_factors as unit_factors
from wsl.surgery._masks.magnitude import magnitude_masks as magnitude_masks
from wsl.surgery._masks.magnitude import pattern_masks as pattern_masks
from wsl.surgery._masks.masked import density as density
from wsl.surgery._masks.masked import is_masked as is_masked
from wsl.surgery._masks.masked import mask as mask
from wsl.surgery._masks.masked import Masked as Masked
from wsl.surgery._masks.masked import masks as masks
from wsl.surgery._masks.masked import unmask as unmask
from wsl.surgery._masks.reconstruct import reconstruct as reconstruct
from wsl.surgery._masks.scores import wanda_scores as wanda_scores
from wsl.surgery._masks.soups import phase_sparsities as phase_sparsities
from wsl.surgery._masks.soups import sparse_soups as sparse_soups
from wsl.surgery._nested.activation_importance import (
  activation_importance as activation_importance,
)
from wsl.surgery._nested.draws import draw_size as draw_size
from wsl.surgery._nested.granularities import gradual_choices as gradual_choices
from wsl.surgery._nested.granularities import granularities as granularities
from wsl.surgery._nested.granularities import mix_and_match as mix_and_match
from wsl.surgery._nested.importance import (
  fisher_importance as fisher_importance,
)
from wsl.surgery._nested.importance import (
  gradient_importance as gradient_importance,
)
from wsl.surgery._nested.importance import (
  weight_importance as weight_importance,
)
from wsl.surgery._nested.kernels import elastic_kernel as elastic_kernel
from wsl.surgery._nested.kernels import kernel_transforms as kernel_transforms
from wsl.surgery._nested.matryoshka import (
  matryoshka_logits as matryoshka_logits,
)
from wsl.surgery._nested.matryoshka import matryoshka_loss as matryoshka_loss
from wsl.surgery._nested.nested_loss import nested_loss as nested_loss
from wsl.surgery._nested.order import importance_order as importance_order
from wsl.surgery._nested.size import full_size as full_size
from wsl.surgery._nested.size import Size as Size
from wsl.surgery._nested.size import slice_size as slice_size
from wsl.surgery._nested.slices import slice as slice
from wsl.surgery._nested.slices import slice_symmetry as slice_symmetry
from wsl.surgery._nested.unit_masks import mask_units as mask_units
from wsl.surgery._paths.cola import cola as cola
from wsl.surgery._paths.cola import PathSearch as PathSearch
from wsl.surgery._paths.cola import PathValue as PathValue
from wsl.surgery._paths.follow import follow as follow
from wsl.surgery._program.apply import apply_program as apply_program
from wsl.surgery._program.collapse import collapse as collapse
from wsl.surgery._program.compose import compose_programs as compose_programs
from wsl.surgery._program.concatenate import (
  concatenate_blocks as concatenate_blocks,
)
from wsl.surgery._program.crash import block_clusters as block_clusters
from wsl.surgery._program.crash import block_similarities as block_similarities
from wsl.surgery._program.crash import crash as crash
from wsl.surgery._program.depth import insert_identity as insert_identity
from wsl.surgery._program.depth import loop as loop
from wsl.surgery._program.depth import passthrough as passthrough
from wsl.surgery._program.depth import path_program as path_program
from wsl.surgery._program.depth import skip as skip
from wsl.surgery._program.depth import stack as stack
from wsl.surgery._program.fold import fold as fold
from wsl.surgery._program.gates import block_gates as block_gates
from wsl.surgery._program.gates import gated_apply as gated_apply
from wsl.surgery._program.program import check_program as check_program
from wsl.surgery._program.program import Layer as Layer
from wsl.surgery._program.program import Program as Program
from wsl.surgery._program.program import program_from_json as program_from_json
from wsl.surgery._program.program import program_of as program_of
from wsl.surgery._program.program import program_to_json as program_to_json
from wsl.surgery._program.recursive import recursive as recursive
from wsl.surgery._program.tie import tie as tie
from wsl.surgery._program.tie import Tied as Tied
from wsl.surgery._program.tie import untie as untie
from wsl.surgery._program.widen import widen as widen
from wsl.surgery._recover.failures import Failures as Failures
from wsl.surgery._recover.failures import simulate_failures as simulate_failures
from wsl.surgery._recover.past import merge_past as merge_past
from wsl.surgery._recover.reprogram import channel_patches as channel_patches
from wsl.surgery._recover.reprogram import reprogrammed as reprogrammed
from wsl.surgery._recover.signatures import (
  robust_signatures as robust_signatures,
)
from wsl.surgery._recover.stages import recover_stages as recover_stages
from wsl.surgery._recover.stages import swapped_order as swapped_order
