"""Every setting, written out: a new one is a decision, and shows up here."""

from configs.loading import setting_names
from configs.schema import RunConfig, Section

SETTINGS = """
game seed
network.blocks network.channels network.soft_policy network.layers network.precision
search.algorithm search.simulations search.cheap_simulations search.full_share search.root_symmetry
search.gumbel_considered_actions search.gumbel_visit_offset search.gumbel_value_scale
search.puct_exploration search.dirichlet_alpha search.dirichlet_share search.minimax_widths
search.temperature search.temperature_plies
actors.count actors.spares actors.groups_per_actor actors.games_per_group actors.random_opening_plies
actors.chunk_rows actors.flush_seconds
rollout.envs_per_group rollout.unroll_steps rollout.vectorization rollout.step_timeout_seconds
rollout.env_options rollout.discount
rollout.normalise_observations rollout.normalise_rewards
inference.idle_wait_ms inference.max_queued_rows inference.cache_positions inference.models_in_memory
inference.servers inference.max_batch_rows
replay.capacity_rows replay.min_rows replay.window_exponent replay.window_growth
replay.samples_per_insert replay.samples_per_insert_slack_rows
replay.sampler replay.max_uses replay.priority_exponent replay.importance_exponent replay.capacity_bytes
replay.persisted
learner.batch_rows learner.microbatch_rows learner.learning_rate learner.weight_decay
learner.clip_norm learner.ema_decay learner.policy_weight learner.value_weight
learner.soft_policy_weight learner.checkpoint_every_seconds learner.checkpoints_kept
learner.warmup_steps learner.schedule learner.schedule_steps learner.final_learning_rate_share
learner.value_mix learner.publish_every_steps learner.max_lag_versions learner.num_learners
policy_gradient.algorithm policy_gradient.epochs policy_gradient.minibatch_steps policy_gradient.gae_lambda
policy_gradient.ratio_clip policy_gradient.value_clip policy_gradient.target_kl
policy_gradient.normalise_advantages policy_gradient.entropy_weight policy_gradient.value_weight
policy_gradient.vtrace_rho_clip policy_gradient.vtrace_c_clip
evaluation.every_seconds evaluation.games evaluation.simulations evaluation.opponents evaluation.episodes
evaluation.env_options
mirror.url mirror.every_seconds mirror.max_uploads mirror.timeout_seconds mirror.finish_seconds
mirror.take
stop.minutes stop.games stop.learner_steps
"""


def test_the_settings_are_these() -> None:
    assert setting_names() == SETTINGS.split()


def test_no_section_has_more_than_twenty_settings() -> None:
    sections = [field.annotation for field in RunConfig.model_fields.values()]
    sizes = [
        len(section.model_fields)
        for section in sections
        if isinstance(section, type) and issubclass(section, Section)
    ]
    assert len(sizes) == 11
    assert max(sizes) <= 20


def test_names_of_times_carry_their_unit() -> None:
    bare = {"timeout", "interval", "every", "wait", "delay", "period"}
    assert [name for name in setting_names() if name.rpartition("_")[2] in bare] == []
