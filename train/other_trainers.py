"""The options of kohya's sd-scripts, and a few of diffusers' scripts: what each is called here, or why it is not here.

People paste them, with all that a guide or a program told them to set. None is translated: names that mean the same
have other defaults, so that a training with half of its settings translated would be neither of the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lorablend.adapters.wording import shown

__all__ = ["HERE", "NOT_HERE", "NOT_NEEDED", "foreign_keys", "verdicts"]

# sd-scripts' option -> the setting here, and after a comma what differs. (data is the argument DATA.)
HERE: Mapping[str, str] = {
    "pretrained_model_name_or_path": "model",
    "train_data_dir": "data",
    "dataset_config": "data",
    "in_json": "data",
    "reg_data_dir": "data, whose folder reg holds the regularization pictures",
    "conditioning_data_dir": "data, whose .toml file names the folder of masks",
    "alpha_mask": "data, whose .toml file may say so",
    "masked_loss": "data, whose masks are always used",
    "output_dir": "out",
    "output_name": "out",
    "config_file": "config, whose settings have lorablend's names",
    "network_module": "algorithm",
    "network_args": "algorithm",
    "network_dim": "rank",
    "network_alpha": "alpha",
    "network_train_unet_only": "no-text-encoder, which is the default",
    "unet_lr": "learning_rate",
    "text_encoder_lr": "text_encoder_learning_rate, with --text-encoder",
    "optimizer_type": "optimizer",
    "use_8bit_adam": "optimizer",
    "use_lion_optimizer": "optimizer",
    "optimizer_args": "weight_decay, the only one of them",
    "lr_scheduler": "schedule",
    "lr_warmup_steps": "warmup, a fraction of the steps",
    "max_train_steps": "steps",
    "max_train_epochs": "steps, which are epochs × pictures / pictures per step",
    "train_batch_size": "batch",
    "gradient_accumulation_steps": "accumulation",
    "mixed_precision": "precision",
    "full_bf16": "precision",
    "enable_bucket": "buckets, which is the default",
    "dataset_repeats": "repeats",
    "shuffle_caption": "shuffle_tags",
    "caption_dropout_rate": "caption_dropout",
    "flip_aug": "flip",
    "validation_split": "validation_fraction",
    "sample_every_n_steps": "sample_every",
    "sample_every_n_epochs": "sample_every, in steps",
    "sample_prompts": "validation_prompts, one prompt each time",
    "save_every_n_steps": "checkpoints, how many in the whole training",
    "save_every_n_epochs": "checkpoints, how many in the whole training",
    "save_n_epoch_ratio": "checkpoints, how many in the whole training",
    "save_last_n_steps": "keep, how many checkpoints stay",
    "save_last_n_epochs": "keep, how many checkpoints stay",
    "save_last_n_steps_state": "keep, how many checkpoints stay",
    "save_last_n_epochs_state": "keep, how many checkpoints stay",
    "caption_extension": "data, whose .toml file may say so",
    "caption_extention": "data, whose .toml file may say so",
    "caption_prefix": "data, whose .toml file may say so",
    "caption_suffix": "data, whose .toml file may say so",
    "keep_tokens_separator": "data, whose .toml file may say so",
    "secondary_separator": "data, whose .toml file may say so",
    "enable_wildcard": "data, whose .toml file may say so",
    "metadata_trigger_phrase": "trigger",
    # These have the same names, but for the hyphens of the command line.
    "gradient_checkpointing": "gradient_checkpointing",
    "keep_tokens": "keep_tokens",
    "learning_rate": "learning_rate",
    "max_grad_norm": "max_grad_norm",
    "min_snr_gamma": "min_snr_gamma",
    "noise_offset": "noise_offset",
    "resolution": "resolution, the side of a square",
    "resume": "resume, a switch of the command line",
    "seed": "seed",
    # kohya's GUI, which has names of its own for these
    "LoRA_type": "algorithm",
    "epoch": "steps, which are epochs × pictures / pictures per step",
    "lr_warmup": "warmup, a fraction of the steps",
    "max_resolution": "resolution, the side of a square",
    # diffusers' scripts
    "instance_data_dir": "data",
    "class_data_dir": "data, whose folder reg holds the regularization pictures",
    "instance_prompt": "trigger",
    "lora_alpha": "alpha",
    "num_train_epochs": "steps, which are epochs × pictures / pictures per step",
    "train_text_encoder": "text_encoder",
    "random_flip": "flip",
    "snr_gamma": "min_snr_gamma",
    "checkpointing_steps": "checkpoints, how many in the whole training",
    "checkpoints_total_limit": "keep, how many checkpoints stay",
    "resume_from_checkpoint": "resume",
    "validation_prompt": "validation_prompts",
    "adam_weight_decay": "weight_decay",
}

_MODEL_SAYS = "the model's own configuration says it"
_MEMORY = "what fits in memory is found out"
_ATTENTION = "torch's own attention is used"
_CACHED = "always done"
_LOGS = "the log is in the folder beside the file"
_CHECKPOINTS = "every checkpoint has it"
_STATE = "--resume goes on from the newest checkpoint"
_BUCKETS = "the sizes follow from the resolution"
_FACTS = "the file has its facts without it"

NOT_NEEDED: Mapping[str, str] = {
    **dict.fromkeys(("v2", "v_parameterization", "zero_terminal_snr"), _MODEL_SAYS),
    **dict.fromkeys(("no_half_vae", "lowram", "highvram", "vae_batch_size", "full_fp16"), _MEMORY),
    **dict.fromkeys(("xformers", "sdpa", "mem_eff_attn"), _ATTENTION),
    **dict.fromkeys(("cache_latents", "cache_latents_to_disk", "cache_info", "skip_cache_check"), _CACHED),
    **dict.fromkeys(("cache_text_encoder_outputs", "cache_text_encoder_outputs_to_disk"), _CACHED),
    **dict.fromkeys(("save_state", "save_state_on_train_end"), _CHECKPOINTS),
    **dict.fromkeys(("skip_until_initial_step", "initial_epoch", "initial_step"), _STATE),
    **dict.fromkeys(("min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale"), _BUCKETS),
    **dict.fromkeys(("resize_interpolation",), _BUCKETS),
    **dict.fromkeys(("logging_dir", "log_prefix", "log_tracker_name", "log_config", "console_log_file"), _LOGS),
    **dict.fromkeys(("console_log_level", "console_log_simple"), _LOGS),
    **dict.fromkeys(("metadata_title", "no_metadata", "training_comment"), _FACTS),
    "save_model_as": "the file is a .safetensors file",
    "save_precision": "f16 where that loses nothing",
    "sample_at_first": "the base model's picture is what it was",
    "validation_seed": "--seed chooses them too",
    "disable_mmap_load_safetensors": "it is fast without",
    "max_data_loader_n_workers": "latents are read from the cache",
    "persistent_data_loader_workers": "latents are read from the cache",
    "tokenizer_cache_dir": "the model brings its tokenizers",
    "debug_dataset": "lorablend dataset check tells what is trained on",
    "output_config": "--dry-run prints the settings as TOML",
    "caption_separator": "it is a comma",
    **dict.fromkeys(("ddp_timeout", "ddp_gradient_as_bucket_view", "ddp_static_graph"), "accelerate's defaults do"),
}

_LOSS = "the loss is the squared error, with --min-snr-gamma"
_NOISE = "the noise is plain, but for --noise-offset"
_SCHEDULES = "--schedule is cosine or constant"
_UPLOAD = "nothing is sent anywhere"
_FROM_FILE = "a training starts from the base model alone, or with --resume"
_PICTURES = "pictures stay as they are, but for --flip"
_TAGS = "captions change by --caption-dropout and --shuffle-tags alone"
_TIMES = "all timesteps are trained"
_TEXT = "a caption has 75 tokens, unweighted"
_FLOATS = "--precision is f32 or bf16"
_DEEPSPEED = "several GPUs work by accelerate alone"
_BOARDS = "tensorboard reads the log; no account is used"
_OPTIMIZERS = "--optimizer is adamw or prodigy"
_FACTS_ONLY = "the file says only how it was trained"

NOT_HERE: Mapping[str, str] = {
    **dict.fromkeys(("loss_type", "huber_schedule", "huber_c", "huber_scale", "prior_loss_weight"), _LOSS),
    **dict.fromkeys(("debiased_estimation_loss", "scale_v_pred_loss_like_noise_pred", "v_pred_like_loss"), _LOSS),
    **dict.fromkeys(("noise_offset_random_strength", "adaptive_noise_scale", "ip_noise_gamma"), _NOISE),
    **dict.fromkeys(("multires_noise_iterations", "multires_noise_discount", "ip_noise_gamma_random_strength"), _NOISE),
    **dict.fromkeys(("lr_scheduler_type", "lr_scheduler_args", "lr_decay_steps", "lr_scheduler_power"), _SCHEDULES),
    **dict.fromkeys(("lr_scheduler_num_cycles", "lr_scheduler_timescale", "lr_scheduler_min_lr_ratio"), _SCHEDULES),
    **dict.fromkeys(("huggingface_repo_id", "huggingface_repo_type", "huggingface_path_in_repo"), _UPLOAD),
    **dict.fromkeys(("huggingface_token", "huggingface_repo_visibility", "save_state_to_huggingface"), _UPLOAD),
    **dict.fromkeys(("resume_from_huggingface", "async_upload"), _UPLOAD),
    "network_dropout": "no factor is left out at random",
    "scale_weight_norms": "the factors are not limited",
    "network_train_text_encoder_only": "the UNet is always trained",
    **dict.fromkeys(("network_weights", "dim_from_weights", "base_weights", "base_weights_multiplier"), _FROM_FILE),
    **dict.fromkeys(("color_aug", "face_crop_aug_range", "random_crop"), _PICTURES),
    **dict.fromkeys(("caption_dropout_every_n_epochs", "caption_tag_dropout_rate"), _TAGS),
    **dict.fromkeys(("token_warmup_min", "token_warmup_step"), _TAGS),
    **dict.fromkeys(("min_timestep", "max_timestep"), _TIMES),
    **dict.fromkeys(
        ("validate_every_n_steps", "validate_every_n_epochs", "max_validation_steps"),
        "it happens with every checkpoint",
    ),
    "sample_sampler": "samples are drawn with the model's own",
    **dict.fromkeys(("clip_skip", "max_token_length", "weighted_captions"), _TEXT),
    **dict.fromkeys(("fp8_base", "fp8_base_unet"), _FLOATS),
    **dict.fromkeys(("deepspeed", "zero_stage", "offload_optimizer_device", "offload_optimizer_nvme_path"), _DEEPSPEED),
    **dict.fromkeys(("offload_param_device", "offload_param_nvme_path", "zero3_init_flag"), _DEEPSPEED),
    **dict.fromkeys(("zero3_save_16bit_model", "fp16_master_weights_and_gradients"), _DEEPSPEED),
    **dict.fromkeys(("log_with", "wandb_run_name", "log_tracker_config", "wandb_api_key"), _BOARDS),
    "fused_backward_pass": _OPTIMIZERS,
    **dict.fromkeys(("metadata_author", "metadata_description", "metadata_license", "metadata_tags"), _FACTS_ONLY),
    **dict.fromkeys(("metadata_usage_hint", "metadata_thumbnail", "metadata_merged_from"), _FACTS_ONLY),
    **dict.fromkeys(("metadata_preprocessor", "metadata_is_negative_embedding"), _FACTS_ONLY),
    "vae": "the model's own is used",
    "torch_compile": "the graph is run as it is",
    "dynamo_backend": "the graph is run as it is",
    "cpu_offload_checkpointing": "to save memory there is --gradient-checkpointing",
    "dataset_class": "data sets are folders, archives and lists",
}


def foreign_keys(settings: Mapping[str, Any], own: Iterable[str]) -> dict[str, Any]:
    """The settings of a file that another trainer's options or program wrote, without those that are off.

    kohya's files may have their settings in sections, whose names mean nothing. Empty if none of them is known here.
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= value if isinstance(value, Mapping) else {key: value}
    others = {key: value for key, value in flat.items() if key not in own}
    if not any(key in known for key in others for known in (HERE, NOT_NEEDED, NOT_HERE)):
        return {}
    return {key: value for key, value in others.items() if value not in (None, False, "", "0", 0, [])}


def verdicts(names: Iterable[str], dash: str = "") -> str:
    """What to do with each option, in words; `dash` is "--" on the command line, whose options have no underscores."""

    def ours(text: str) -> str:
        name, comma, rest = text.partition(",")
        if name == "data" and dash:  # the one that is no option
            return f"DATA{comma}{rest}"
        return f"{dash}{name.replace('_', '-') if dash else name}{comma}{rest}"

    def verdict(name: str) -> str:
        if name in HERE:
            return f"here {ours(HERE[name])}"
        if name in NOT_NEEDED:
            return f"not needed: {NOT_NEEDED[name]}"
        return f"not here: {NOT_HERE[name]}" if name in NOT_HERE else "unknown"

    of_verdict: dict[str, list[str]] = {}
    for name in names:
        of_verdict.setdefault(verdict(name), []).append(f"{dash}{shown(name)}")
    return "; ".join(f"{', '.join(dict.fromkeys(names))} ({text})" for text, names in of_verdict.items())
