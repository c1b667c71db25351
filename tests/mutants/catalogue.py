"""Mutants of the science: faults that a change could bring in, each of which some test must find.

Chosen by subject (spans, masks, controls, folds, intervals, losses, resuming), not by what is tested already. Each is a
real fault: it changes a number that a user reads, or loses what a run has.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A fault, and the tests that should find it."""

    name: str
    """Package and subject."""
    file: str
    """Under ``safekey_interp/``."""
    old: str
    """Text that is there exactly once."""
    new: str
    """What stands in its place."""
    tests: str
    """Files and options of pytest under ``tests/``, the fastest first."""
    why: str
    """What a user would read that is wrong."""


_ATTENTION = "measures/test_attention.py"
_ROWS = "capture/test_attention_rows.py capture/test_attention_hook.py"
_KEYS = "capture/test_key_sets.py capture/test_recording.py"
_STATES = "capture/test_recording.py capture/test_hidden_states.py capture/test_component_states.py"
_EDITS = "capture/test_residual_edits.py interventions/test_activation_patching.py"
_KNOCKOUT = "interventions/test_attention_knockout.py"
_ESTIMATORS = "measures/test_probes.py measures/test_separability.py measures/test_estimators.py"
_LOSSES = "training/test_losses.py"
_EFFECTS = "interventions/test_metrics.py interventions/test_steering.py"
MUTANTS = (
    # capture: rows, masks, spans, sites
    Mutant(
        "capture-causal-off-by-one", "capture/attention_rows.py",
        'keys <= rearrange(last, "b r -> b r 1")', 'keys < rearrange(last, "b r -> b r 1")',
        _ROWS, "a query no longer sees itself",
    ),
    Mutant(
        "capture-past-dropped", "capture/attention_rows.py",
        "last = rows + (n_keys - n_queries)", "last = rows",
        _ROWS + " generation/test_edited_generation.py", "behind a cache, rows see too little",
    ),
    Mutant(
        "capture-bias-dropped", "capture/attention_rows.py",
        "        scores = scores + mask.bias\n", "        pass\n",
        _ROWS + " capture/test_capture_exactness.py", "a mask with finite biases (ALiBi) is measured without them",
    ),
    Mutant(
        "capture-softcap-once", "capture/attention_rows.py",
        'torch.tanh(scores / options["softcap"]) * options["softcap"]', 'torch.tanh(scores / options["softcap"])',
        _ROWS + " capture/test_capture_exactness.py", "Gemma 2's pattern is far too even",
    ),
    Mutant(
        "capture-sink-dropped", "capture/attention_rows.py",
        'pattern = pattern * rearrange(off_sink, "b h r -> b h r 1")', "pass",
        _ROWS + " capture/test_capture_exactness.py", "GPT-OSS's rows sum to 1, as if it had no sink",
    ),
    Mutant(
        "capture-scaling-dropped", "capture/attention_rows.py",
        "query[batch, :, rows].float() * scaling", "query[batch, :, rows].float()",
        _ROWS + " " + _ATTENTION, "every pattern is too sharp",
    ),
    Mutant(
        "capture-entropy-sign", "capture/attention_rows.py",
        "entropy = -torch.xlogy(seen, seen).sum(dim=-1)", "entropy = torch.xlogy(seen, seen).sum(dim=-1)",
        _ROWS + " capture/test_capture_exactness.py", "entropy below 0 through the bridge",
    ),
    Mutant(
        "capture-sum-for-mean", "capture/key_sets.py",
        "weights[b, f, np.searchsorted(rows, positions)] = 1 / len(positions)",
        "weights[b, f, np.searchsorted(rows, positions)] = 1.0",
        _KEYS + " " + _ATTENTION, "mass grows with the length of the query span",
    ),
    Mutant(
        "capture-first-token-in-pool", "capture/key_sets.py",
        "            seen[start] = False\n", "",
        _KEYS + " " + _ATTENTION, "random keys soak up the first token's mass",
    ),
    Mutant(
        "capture-random-inside-span", "capture/key_sets.py",
        "np.flatnonzero(seen & (held[b, :, t] == 0))", "np.flatnonzero(seen)",
        _KEYS + " " + _ATTENTION, "random keys are partly those of the span that they control",
    ),
    Mutant(
        "capture-same-draws-for-all", "capture/key_sets.py",
        "np.random.default_rng([seed, *words_of(encoding.trace_id)])", "np.random.default_rng([seed, len(encodings)])",
        _KEYS + " capture/test_streaming.py experiments/test_probe_chunks.py", "draws depend on what else is in the batch",
    ),
    Mutant(
        "capture-padding-not-shifted", "capture/key_sets.py",
        "held[b, where[where < encoding.end] + start, t] = True", "held[b, where[where < encoding.end], t] = True",
        _KEYS + " " + _ATTENTION, "with left padding, keys are those of other tokens",
    ),
    Mutant(
        "capture-distance-from-zero", "capture/distance_baseline.py",
        "behind = np.clip(start + rearrange(positions", "behind = np.clip(rearrange(positions",
        "capture/test_distance_baseline.py " + _KEYS, "with left padding, distances are off by the padding",
    ),
    Mutant(
        "capture-mean-off-by-one", "capture/position_means.py",
        "dtype=np.int64) + start\n", "dtype=np.int64) + start - 1\n",
        _STATES, "states are those of the token before",
    ),
    Mutant(
        "capture-mean-is-sum", "capture/position_means.py",
        "weights[b, p, where] = 1 / len(where)", "weights[b, p, where] = 1.0",
        _STATES, "states of longer spans are larger",
    ),
    Mutant(
        "capture-site-before-layer", "capture/residual_edits.py",
        'if place.component in ("resid_post", "ln_final"):\n        return [layer.register_forward_hook(_on_output(edit))]',
        'if place.component in ("resid_post", "ln_final"):\n'
        "        return [layer.register_forward_pre_hook(_on_input(edit), with_kwargs=True)]",
        _EDITS, "resid_post is the state before its layer",
    ),
    Mutant(
        "capture-edit-of-all-heads", "capture/residual_edits.py",
        "new[..., head, :] = one", "new[:] = rearrange(one, 'b p d -> b p 1 d')",
        _EDITS, "patching one head patches all",
    ),
    Mutant(
        "capture-ablation-halved", "capture/direction_edits.py",
        "(wide - einsum(along, vector,", "(wide - 0.5 * einsum(along, vector,",
        "capture/test_residual_edits.py interventions/test_steering.py", "a direction that is ablated is still there",
    ),
    Mutant(
        "capture-knockout-reference", "capture/attention_mask.py",
        "np.flatnonzero(seen[: cut.reference])", "np.flatnonzero(seen)",
        _KNOCKOUT, "random keys lie behind the query, where nothing is hidden",
    ),
    Mutant(
        "capture-knockout-spans-not-avoided", "capture/attention_mask.py",
        "[*cut.keys, *cut.avoid, 0]", "[*cut.keys, 0]",
        _KNOCKOUT, "random keys of X are those of U",
    ),
    # data, segmentation, models: where spans are
    Mutant(
        "models-decision-is-key", "models/encoding.py",
        "TokenSpan(key.start - 1, key.start)", "TokenSpan(key.start, key.start + 1)",
        "models/test_encoding.py", "the decision token already is K's first",
    ),
    Mutant(
        "models-span-not-shifted", "models/encoding.py",
        "CharSpan(span.start + shift, span.end + shift)\n\n    understanding",
        "CharSpan(span.start, span.end)\n\n    understanding",
        "models/test_encoding.py", "spans of the response lie in the prompt",
    ),
    Mutant(
        "segmentation-understanding-one-too-long", "segmentation/rules_finder.py",
        "return Spans(CharSpan(first.span.start, end), sentence.span, *_verdict(first, n))",
        "return Spans(CharSpan(first.span.start, sentence.span.end), sentence.span, *_verdict(first, n))",
        "segmentation/test_rules_finder.py", "U holds K",
    ),
    Mutant(
        "segmentation-reasoning-keeps-tag", "segmentation/reasoning_span.py",
        "begin = at + len(family.opening)", "begin = at",
        "segmentation/test_reasoning_span.py", "the first sentence begins with the tag",
    ),
    # measures
    Mutant(
        "measures-spans-swapped", "measures/attention.py",
        "mass, uniform = arrays.mass[..., q, k], arrays.uniform[..., q, k]",
        "mass, uniform = arrays.mass[..., q, k[::-1]], arrays.uniform[..., q, k[::-1]]",
        _ATTENTION, "attention to X is called attention to U",
    ),
    Mutant(
        "measures-renormalisation-dropped", "measures/attention.py",
        "np.divide(others, total[..., None], out=", "np.multiply(others, 1.0, out=",
        _ATTENTION, "mass_rest is not renormalised without the first token",
    ),
    Mutant(
        "measures-first-token-kept", "measures/attention_summary.py",
        "others = arrays.mass - np.where(arrays.holds_first, first[..., None], 0.0)", "others = arrays.mass",
        _ATTENTION + " measures/test_attention_summary.py", "the first token's mass stays in mass_rest",
    ),
    Mutant(
        "measures-random-of-other-size", "measures/attention_summary.py",
        "return arrays.random * scale[:, None]", "return arrays.random",
        "measures/test_attention_summary.py", "lift over random compares sets of different sizes",
    ),
    Mutant(
        "measures-sums-of-all", "measures/attention_summary.py",
        "means = self.sums[subset] / self.counts[subset]",
        "means = self.sums[subset] / self.counts[subset].max()",
        "measures/test_attention_summary.py", "what few traces have is divided by the number of all",
    ),
    Mutant(
        "measures-auroc-ties", "measures/auroc.py",
        "ranked = (below + upto) / 2", "ranked = upto.astype(float)",
        "measures/test_auroc.py measures/test_auroc_intervals.py", "ties count as wins",
    ),
    Mutant(
        "measures-auroc-across-folds", "measures/auroc.py",
        "        rows = np.flatnonzero(fold == number)\n        order =",
        "        rows = np.arange(len(fold))\n        order =",
        "measures/test_auroc.py measures/test_separability.py", "scores of different folds are ranked together",
    ),
    Mutant(
        "measures-threshold-off-by-one", "measures/auroc.py",
        "no[int(max_fpr * len(no) + 1e-9)]", "no[int(max_fpr * len(no) + 1e-9) + 1]",
        "measures/test_auroc.py", "more false positives than 1 %",
    ),
    Mutant(
        "measures-groups-ignored-in-folds", "measures/folds.py",
        "splitter.split(codes, strata, codes)", "splitter.split(codes, strata, np.arange(len(codes)))",
        "measures/test_folds.py", "twins are in training and in test",
    ),
    Mutant(
        "measures-labels-not-shuffled", "measures/label_permutations.py",
        "        traded = blocks[order]\n", "        traded = np.repeat(blocks[None], n_permutations, axis=0)\n",
        "measures/test_label_permutations.py measures/test_separability.py", "the null is the observed value",
    ),
    Mutant(
        "measures-shuffled-in-groups-alone", "measures/label_permutations.py",
        "of_group[:, groups] = rng.permuted(np.tile(classes, (n_permutations, 1)), axis=1)",
        "of_group[:, groups] = np.tile(classes, (n_permutations, 1))",
        "measures/test_label_permutations.py measures/test_control_directions.py", "no class changes its group",
    ),
    Mutant(
        "measures-groups-ignored-in-interval", "measures/intervals.py",
        "    codes = group_codes(groups)\n    order =", "    codes = np.arange(len(defined))\n    order =",
        "measures/test_intervals.py", "intervals are those of independent rows",
    ),
    Mutant(
        "measures-step-down-not-monotone", "measures/step_down.py",
        "found[there[order]] = np.maximum.accumulate(p)", "found[there[order]] = p",
        "measures/test_step_down.py", "a smaller effect has the smaller p",
    ),
    Mutant(
        "measures-step-down-of-one", "measures/step_down.py",
        "largest = np.maximum.accumulate(away[1:, order][:, ::-1], axis=1)[:, ::-1]", "largest = away[1:, order]",
        "measures/test_step_down.py", "p over places is p of one place",
    ),
    Mutant(
        "measures-step-down-p-zero", "measures/step_down.py",
        "p = (1 + (largest >=", "p = (0 + (largest >=",
        "measures/test_step_down.py", "p can be 0",
    ),
    Mutant(
        "measures-auroc-interval-of-rows", "measures/auroc_intervals.py",
        "least = min(len(np.unique(codes[positive])), len(np.unique(codes[~positive])))",
        "least = min(int(positive.sum()), int((~positive).sum()))",
        "measures/test_auroc_intervals.py", "twins narrow the interval",
    ),
    Mutant(
        "measures-trained-on-test", "measures/layer_scores.py",
        "train = ~test if fitted_on is None else ~test & fitted_on",
        "train = np.ones_like(test) if fitted_on is None else ~test & fitted_on",
        _ESTIMATORS, "AUROC of what the probe was fitted on",
    ),
    Mutant(
        "measures-controls-not-unit", "measures/control_directions.py",
        "covariance=units(drawn).astype(np.float32)", "covariance=drawn.astype(np.float32)",
        "measures/test_control_directions.py", "random directions are longer than the tested one",
    ),
    Mutant(
        "measures-trajectory-bias-dropped", "measures/trajectory.py",
        'products[..., 0] + scorer.bias', 'products[..., 0]',
        "measures/test_trajectory.py", "scores have another zero than the probe's",
    ),
    # training
    Mutant(
        "training-lm-not-shifted", "training/batch_loss.py",
        "states[:, :-1][chosen], input_ids[:, 1:][chosen]", "states[:, 1:][chosen], input_ids[:, 1:][chosen]",
        _LOSSES, "each token is predicted from itself",
    ),
    Mutant(
        "training-head-layer-embedding", "training/batch_loss.py",
        "out.hidden_states[self.head_layer + 1]", "out.hidden_states[self.head_layer]",
        _LOSSES + " training/test_training_run.py", "the head reads one layer too early",
    ),
    Mutant(
        "training-query-mask-weight", "training/losses.py",
        "head_weight * head + query_mask_weight * query_mask", "head_weight * head + head_weight * query_mask",
        _LOSSES, "the weight of query-mask modelling does nothing",
    ),
    Mutant(
        "training-theta-swapped", "training/losses.py",
        "theta * by_u + (1 - theta) * by_c", "theta * by_c + (1 - theta) * by_u",
        _LOSSES, "theta weighs the other path",
    ),
    Mutant(
        "training-mean-over-rows-without-label", "training/losses.py",
        "return torch.where(counted, theta", "return torch.where(counted | True, theta",
        _LOSSES, "rows without a label are trained as benign",
    ),
    Mutant(
        "training-states-detached", "training/losses.py",
        "by_states = torch.empty_like(states) if wants_states else None", "by_states = None",
        _LOSSES, "no gradient reaches the model",
    ),
    Mutant(
        "training-softcap-gradient", "training/losses.py",
        "(1 - (bounded / unembedding.softcap) ** 2)", "1.0",
        _LOSSES, "Gemma 2's gradients lack the softcap",
    ),
    Mutant(
        "training-response-begins-early", "training/batch.py",
        "max(1, encoding.response_start) : behind", "1 : behind",
        _LOSSES, "the prompt is trained, too",
    ),
    Mutant(
        "training-mask-dropped", "training/batch.py",
        "mask[row, : second.n_masked] = 0", "pass",
        _LOSSES, "the masked pass sees the prompt",
    ),
    Mutant(
        "training-labels-swapped", "training/batch.py",
        'float(label == "harmful")', 'float(label != "harmful")',
        _LOSSES + " training/test_training_run.py", "the head learns the opposite",
    ),
    Mutant(
        "training-auxiliary-from-the-start", "training/schedule.py",
        "auxiliary_from=steps - round(share * steps)", "auxiliary_from=0",
        "training/test_training_config.py training/test_training_run.py", "both losses count from the first step",
    ),
    # interventions
    Mutant(
        "interventions-effect-sign", "interventions/knockout_plan.py",
        '"effect": value - baseline', '"effect": baseline - value',
        _KNOCKOUT, "what lowers the metric is said to raise it",
    ),
    Mutant(
        "interventions-p-zero", "interventions/effects.py",
        "(1 + np.sum(away[1:] >= away[0], axis=0)) / (1 + n)", "np.sum(away[1:] >= away[0], axis=0) / n",
        _EFFECTS + " " + _KNOCKOUT, "p can be 0",
    ),
    Mutant(
        "interventions-control-left-out", "interventions/effects.py",
        "ratio_of_means(value - control, over, groups)", "ratio_of_means(value, over, groups)",
        _EFFECTS + " " + _KNOCKOUT, "the excess is the effect itself",
    ),
    Mutant(
        "interventions-norm-dropped", "interventions/steering_variants.py",
        "scale * direction.norm", "scale",
        "interventions/test_steering.py", "scales are in no unit of the direction",
    ),
    Mutant(
        "interventions-fitted-on-held-out", "interventions/cross_fitting.py",
        "plan.fold != fold", "plan.fold >= 0",
        "interventions/test_steering.py experiments/test_intervene_run.py", "directions are fitted on what they change",
    ),
    Mutant(
        "interventions-patched-one-off", "interventions/activation_swaps.py",
        "[swap.where[i] - begin for i in inside]", "[max(0, swap.where[i] - begin - 1) for i in inside]",
        "interventions/test_activation_patching.py", "states are put at the token before",
    ),
    # generation, evaluation
    Mutant(
        "generation-likelihood-begins-late", "generation/likelihood.py",
        "where[0] - begin, encoding)", "where[0] + 1 - begin, encoding)",
        "generation/test_aha_score.py interventions/test_metrics.py", "K's first token does not count",
    ),
    Mutant(
        "evaluation-over-refusal-of-harmful", "evaluation/judge_metrics.py",
        '"over_refusal", "benign"', '"over_refusal", "harmful"',
        "evaluation/test_judge_metrics.py", "refusals of harmful prompts are over-refusals",
    ),
    Mutant(
        "evaluation-unlabelled-count", "evaluation/judge_metrics.py",
        'labelled = part[part["label"].notna()]', "labelled = part",
        "evaluation/test_judge_metrics.py", "answers without a verdict count as safe",
    ),
    Mutant(
        "evaluation-difference-sign", "evaluation/paired_tests.py",
        "interval = difference_of_shares((shares, groups), (others, groups))",
        "interval = difference_of_shares((others, groups), (shares, groups))",
        "evaluation/test_judge_metrics.py", "the interval is that of the opposite difference",
    ),
    # runs
    Mutant(
        "runs-rename-before-write", "runs/storage.py",
        "        fill(folder)\n        folder.rename(path)\n", "        folder.rename(path)\n        fill(path)\n",
        "runs/test_run_folder.py", "half a chunk counts as done",
    ),
    Mutant(
        "runs-parts-not-checked", "runs/run_writer.py",
        "if isinstance(contents, dict) and contents == _contents(folder):", "if isinstance(contents, dict):",
        "runs/test_run_folder.py", "a damaged chunk is taken for done",
    ),
    Mutant(
        "runs-identity-ignored", "runs/run_writer.py",
        '    changed = differences(known.get("identity", {}), asked["identity"])\n    if changed:',
        '    changed = differences(known.get("identity", {}), asked["identity"])\n    if False:',
        "runs/test_run_folder.py", "chunks of two settings become one table",
    ),
    Mutant(
        "runs-lock-dropped", "runs/storage.py",
        "        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "        pass\n",
        "runs/test_run_folder.py", "two processes write one folder",
    ),
    Mutant(
        "runs-work-shared-twice", "runs/processes.py",
        "return list(items[self.rank :: self.world_size])", "return list(items[self.rank :])",
        "runs/test_multiprocess.py", "chunks are measured by several processes",
    ),
)
