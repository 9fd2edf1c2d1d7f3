"""Every option of kohya's sd-scripts: accepted as ours, or refused in one line that says what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lorablend.adapters.errors import DataError, TrainError
from lorablend.train.config import SETTINGS, TrainConfig, load_config
from lorablend.train.data.layouts import find_examples
from lorablend.train.other_trainers import HERE, NOT_HERE, NOT_NEEDED, verdicts
from tests.train.data.data_files import save

# Every option of the parsers of sd-scripts' train_network.py and sdxl_train_network.py (commit 48d368f, February 2026).
KOHYA = """
console_log_level console_log_file console_log_simple
v2 v_parameterization pretrained_model_name_or_path tokenizer_cache_dir
metadata_title metadata_author metadata_description metadata_license metadata_tags metadata_usage_hint
metadata_thumbnail metadata_merged_from metadata_trigger_phrase metadata_preprocessor metadata_is_negative_embedding
train_data_dir cache_info shuffle_caption caption_separator caption_extension caption_extention keep_tokens
keep_tokens_separator secondary_separator enable_wildcard caption_prefix caption_suffix color_aug flip_aug
face_crop_aug_range random_crop debug_dataset resolution cache_latents vae_batch_size cache_latents_to_disk
skip_cache_check enable_bucket min_bucket_reso max_bucket_reso bucket_reso_steps bucket_no_upscale
resize_interpolation token_warmup_min token_warmup_step alpha_mask dataset_class caption_dropout_rate
caption_dropout_every_n_epochs caption_tag_dropout_rate reg_data_dir in_json dataset_repeats
output_dir output_name huggingface_repo_id huggingface_repo_type huggingface_path_in_repo huggingface_token
huggingface_repo_visibility save_state_to_huggingface resume_from_huggingface async_upload save_precision
save_every_n_epochs save_every_n_steps save_n_epoch_ratio save_last_n_epochs save_last_n_epochs_state
save_last_n_steps save_last_n_steps_state save_state save_state_on_train_end resume train_batch_size
max_token_length mem_eff_attn torch_compile dynamo_backend xformers sdpa vae max_train_steps max_train_epochs
max_data_loader_n_workers persistent_data_loader_workers seed gradient_checkpointing gradient_accumulation_steps
mixed_precision full_fp16 full_bf16 fp8_base ddp_timeout ddp_gradient_as_bucket_view ddp_static_graph clip_skip
logging_dir log_with log_prefix log_tracker_name wandb_run_name log_tracker_config wandb_api_key log_config
noise_offset noise_offset_random_strength multires_noise_iterations ip_noise_gamma ip_noise_gamma_random_strength
multires_noise_discount adaptive_noise_scale zero_terminal_snr min_timestep max_timestep loss_type huber_schedule
huber_c huber_scale lowram highvram sample_every_n_steps sample_at_first sample_every_n_epochs sample_prompts
sample_sampler config_file output_config prior_loss_weight
conditioning_data_dir masked_loss
deepspeed zero_stage offload_optimizer_device offload_optimizer_nvme_path offload_param_device
offload_param_nvme_path zero3_init_flag zero3_save_16bit_model fp16_master_weights_and_gradients
optimizer_type use_8bit_adam use_lion_optimizer learning_rate max_grad_norm optimizer_args lr_scheduler_type
lr_scheduler_args lr_scheduler lr_warmup_steps lr_decay_steps lr_scheduler_num_cycles lr_scheduler_power
fused_backward_pass lr_scheduler_timescale lr_scheduler_min_lr_ratio
dataset_config
min_snr_gamma scale_v_pred_loss_like_noise_pred v_pred_like_loss debiased_estimation_loss weighted_captions
cpu_offload_checkpointing no_metadata save_model_as unet_lr text_encoder_lr fp8_base_unet network_weights
network_module network_dim network_alpha network_dropout network_args network_train_unet_only
network_train_text_encoder_only training_comment dim_from_weights scale_weight_norms base_weights
base_weights_multiplier no_half_vae skip_until_initial_step initial_epoch initial_step validation_seed
validation_split validate_every_n_steps validate_every_n_epochs max_validation_steps
cache_text_encoder_outputs cache_text_encoder_outputs_to_disk disable_mmap_load_safetensors
""".split()  # noqa: SIM905

# Options of the command line, and settings of a file, that lorablend has under the same name.
SAME_OPTION = {"seed", "resolution", "resume"}
SAME_SETTING: dict[str, Any] = {
    "gradient_checkpointing": True,
    "keep_tokens": 2,
    "learning_rate": 0.003,
    "max_grad_norm": 2.0,
    "min_snr_gamma": 3.0,
    "noise_offset": 0.05,
    "resolution": 512,
    "seed": 42,
}
TABLES = (HERE, NOT_NEEDED, NOT_HERE)

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: photos/ with a picture in it."""
    save(tmp_path / "photos" / "1.png", 1, (64, 64), "a fox")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(arguments: list[str]) -> int:
    from lorablend.app.cli.commands import run as run_command_line

    return run_command_line(["train", *arguments])


def refusal(error: type[Exception], path: str) -> str:
    with pytest.raises(error) as caught:
        load_config(Path(path), {}) if error is TrainError else find_examples(Path(path))
    return str(caught.value)


def test_every_option_has_one_verdict() -> None:
    assert len(KOHYA) == len(set(KOHYA))
    for name in KOHYA:
        assert sum(name in table for table in TABLES) == 1, name
    assert (set(NOT_NEEDED) | set(NOT_HERE)) <= set(KOHYA)


def test_what_verdicts_name_exists() -> None:
    flags = {part for setting in SETTINGS.values() for part in setting.flag.split("/")} | {"--resume", "--dry-run"}
    for text in HERE.values():
        name = text.partition(",")[0]
        assert name in SETTINGS or f"--{name}" in {*flags, "--config"}, text
    for text in (text for table in TABLES for text in table.values()):
        assert set(re.findall(r"--[a-z-]+", text)) <= flags, text


@pytest.mark.parametrize("name", [name for name in KOHYA if name not in SAME_OPTION])
def test_an_option_on_the_command_line(here: Path, capsys: Capture, name: str) -> None:
    assert run(["photos", f"--{name}", "1"]) == 1
    error = capsys.readouterr().err
    assert error == f"error: these are options of kohya's sd-scripts: {verdicts([name], '--')}\n"
    assert error.startswith(f"error: these are options of kohya's sd-scripts: --{name} (")
    assert "unknown" not in error


@pytest.mark.parametrize("name", KOHYA)
def test_a_setting_in_a_file(here: Path, name: str) -> None:
    own = {"data": here, "model": "demo", "out": here / "a.safetensors"}
    if name in SAME_SETTING:
        (here / "train.toml").write_text(f"{name} = {json.dumps(SAME_SETTING[name])}\n")
        assert getattr(load_config(here / "train.toml", own), name) == SAME_SETTING[name]
        return
    (here / "train.toml").write_text(f"[arguments]\n{name} = 1\n")
    with pytest.raises(TrainError) as caught:
        load_config(here / "train.toml", own)
    assert str(caught.value) == f"{here / 'train.toml'} has settings of kohya's sd-scripts: {verdicts([name])}"


def test_all_of_a_command_at_once(here: Path, capsys: Capture) -> None:
    """The verdicts that are the same are said once; what nobody knows is said too."""
    arguments = "--network_dim=16 --learning_rate 1e-4 --xformers --sdpa --lr_warmup_steps 100 --train_data_dir x --foo"
    assert run([*arguments.split(), "--seed", "1", "--network_dropout", "0.1"]) == 1
    assert capsys.readouterr().err == (
        "error: these are options of kohya's sd-scripts: --network_dim (here --rank); --learning_rate (here "
        "--learning-rate); --xformers, --sdpa (not needed: torch's own attention is used); --lr_warmup_steps (here "
        "--warmup, a fraction of the steps); --train_data_dir (here DATA); --foo (unknown); --network_dropout (not "
        "here: no factor is left out at random)\n"
    )


def test_an_option_that_nobody_knows(here: Path, capsys: Capture) -> None:
    assert run(["photos", "--foo"]) == 1
    assert "kohya" not in capsys.readouterr().err


def test_a_setting_in_python(here: Path) -> None:
    own: dict[str, Any] = {"data": here, "model": "demo", "out": here / "a.safetensors"}
    with pytest.raises(TrainError) as caught:
        TrainConfig(**own, network_dim=16)
    assert str(caught.value) == "not a setting of a training: network_dim (here rank)"


SETTINGS_OF_A_GUI: dict[str, Any] = {
    "LoRA_type": "Standard",
    "network_dim": 64,
    "max_resolution": "1024,1024",
    "xformers": True,
    "color_aug": False,  # what is off is not said
    "network_dropout": 0,
    "reg_data_dir": "",
    "sdxl": True,
}


def test_files_of_kohyas_gui(here: Path) -> None:
    (here / "gui.json").write_text(json.dumps(SETTINGS_OF_A_GUI))
    assert refusal(TrainError, "gui.json") == (
        "gui.json has settings of kohya's sd-scripts: LoRA_type (here algorithm); network_dim (here rank); "
        "max_resolution (here resolution, the side of a square); xformers (not needed: torch's own attention is used); "
        "sdxl (unknown)"
    )


@pytest.mark.parametrize("name", ["gui.json", "train.toml"])
def test_settings_in_place_of_a_data_set(here: Path, name: str) -> None:
    (here / "gui.json").write_text(json.dumps(SETTINGS_OF_A_GUI))
    (here / "train.toml").write_text("[folders]\ntrain_data_dir = 'photos'\n")
    assert refusal(DataError, name) == (
        f"{name} has the settings of a training with kohya's sd-scripts; give the folder or data set file that it "
        "names, and its settings as options"
    )


def test_a_data_set_in_place_of_settings(here: Path) -> None:
    (here / "set.toml").write_text("[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'photos'\n")
    assert refusal(TrainError, "set.toml") == "set.toml is a data set file of kohya's sd-scripts; give it as DATA"


@pytest.mark.parametrize("text", ["[]", "{", '{"a": {"b": 1}}'])
def test_other_json_is_no_toml(here: Path, text: str) -> None:
    (here / "other.json").write_text(text)
    assert refusal(TrainError, "other.json").startswith("other.json is not readable as TOML: ")
