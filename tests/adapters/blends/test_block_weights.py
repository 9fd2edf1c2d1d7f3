"""Blocks, lists and presets, compared to tables that were written by hand from the SGM and diffusers names."""

from __future__ import annotations

import pytest

from lorablend.adapters import BlockWeights
from lorablend.adapters.blends.block_weights import BLOCKS, LISTS, PRESETS, block_of
from lorablend.adapters.errors import BlendError
from lorablend.adapters.names.modules import TOPOLOGIES, unet_modules
from tests.adapter_files import message_of

# Block -> its contents in SD 1.5 and in SDXL; "" if that model has no such block. Written from the table in
# section 3 of the specification: R resnets, A attentions, D the downsampler, U the upsampler.
TABLE = {
    "IN00": ("conv_in", "conv_in"),
    "IN01": ("down_blocks.0 R0 A0", "down_blocks.0 R0"),
    "IN02": ("down_blocks.0 R1 A1", "down_blocks.0 R1"),
    "IN03": ("down_blocks.0 D", "down_blocks.0 D"),
    "IN04": ("down_blocks.1 R0 A0", "down_blocks.1 R0 A0"),
    "IN05": ("down_blocks.1 R1 A1", "down_blocks.1 R1 A1"),
    "IN06": ("down_blocks.1 D", "down_blocks.1 D"),
    "IN07": ("down_blocks.2 R0 A0", "down_blocks.2 R0 A0"),
    "IN08": ("down_blocks.2 R1 A1", "down_blocks.2 R1 A1"),
    "IN09": ("down_blocks.2 D", ""),
    "IN10": ("down_blocks.3 R0", ""),
    "IN11": ("down_blocks.3 R1", ""),
    "M00": ("mid_block R0 R1 A0", "mid_block R0 R1 A0"),
    "OUT00": ("up_blocks.0 R0", "up_blocks.0 R0 A0"),
    "OUT01": ("up_blocks.0 R1", "up_blocks.0 R1 A1"),
    "OUT02": ("up_blocks.0 R2 U", "up_blocks.0 R2 A2 U"),
    "OUT03": ("up_blocks.1 R0 A0", "up_blocks.1 R0 A0"),
    "OUT04": ("up_blocks.1 R1 A1", "up_blocks.1 R1 A1"),
    "OUT05": ("up_blocks.1 R2 A2 U", "up_blocks.1 R2 A2 U"),
    "OUT06": ("up_blocks.2 R0 A0", "up_blocks.2 R0"),
    "OUT07": ("up_blocks.2 R1 A1", "up_blocks.2 R1"),
    "OUT08": ("up_blocks.2 R2 A2 U", "up_blocks.2 R2"),
    "OUT09": ("up_blocks.3 R0 A0", ""),
    "OUT10": ("up_blocks.3 R1 A1", ""),
    "OUT11": ("up_blocks.3 R2 A2", ""),
}
_PARTS = {"R": "resnets.", "A": "attentions.", "D": "downsamplers.0", "U": "upsamplers.0"}


def prefixes(row: str) -> set[str]:
    """ "mid_block R0 A0" -> {"mid_block.resnets.0", "mid_block.attentions.0"}."""
    parent, *parts = row.split() or [""]
    return {f"{parent}.{_PARTS[part[0]]}{part[1:]}" for part in parts} or ({parent} if parent else set())


def parent_of(path: str) -> str:
    """The resnet, attention or sampler that a module belongs to."""
    parts = path.split(".")
    return ".".join(parts[: 3 if parts[0] == "mid_block" else 4 if parts[0].endswith("blocks") else 1])


@pytest.mark.parametrize(("base", "column"), [("sd15", 0), ("sdxl", 1)])
@pytest.mark.parametrize("block", TABLE)
def test_the_contents_of_every_block(block: str, base: str, column: int) -> None:
    paths = [path for path, _ in unet_modules(TOPOLOGIES[base])]
    assert {parent_of(path) for path in paths if block_of("unet", path) == block} == prefixes(TABLE[block][column])


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_modules_outside_of_all_blocks(base: str) -> None:
    paths = [path for path, _ in unet_modules(TOPOLOGIES[base]) if block_of("unet", path) is None]
    expected = {"conv_norm_out", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"}
    expected |= {"add_embedding.linear_1", "add_embedding.linear_2"} if base == "sdxl" else set()
    assert set(paths) == expected


def test_text_encoders_are_base() -> None:
    path = "text_model.encoder.layers.0.mlp.fc1"
    assert block_of("text_encoder", path) == block_of("text_encoder_2", path) == "BASE"
    assert {"BASE", *TABLE} == set(BLOCKS)


# As in the extension's source: BLOCKID12, BLOCKID17, BLOCKID20, BLOCKID26.
BLOCK_IDS = {
    12: "BASE IN04 IN05 IN07 IN08 M00 OUT00 OUT01 OUT02 OUT03 OUT04 OUT05",
    17: "BASE IN01 IN02 IN04 IN05 IN07 IN08 M00 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11",
    20: (
        "BASE IN00 IN01 IN02 IN03 IN04 IN05 IN06 IN07 IN08 M00 "
        "OUT00 OUT01 OUT02 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08"
    ),
    26: (
        "BASE IN00 IN01 IN02 IN03 IN04 IN05 IN06 IN07 IN08 IN09 IN10 IN11 M00 "
        "OUT00 OUT01 OUT02 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11"
    ),
}  # fmt: skip


def weight_in(blocks: BlockWeights, block: str, base: str = "sd15") -> float:
    """The weight of a module in the block, if the adapter's is 1."""
    if block == "BASE":
        return blocks.weight("text_encoder", "text_model.encoder.layers.0.mlp.fc1", 1.0)
    path = next(path for path, _ in unet_modules(TOPOLOGIES[base]) if block_of("unet", path) == block)
    return blocks.weight("unet", path, 1.0)


@pytest.mark.parametrize("length", LISTS)
def test_positions_of_every_list(length: int) -> None:
    names = BLOCK_IDS[length].split()
    base = "sdxl" if length in (12, 20) else "sd15"
    blocks = BlockWeights(tuple(float(position + 1) for position in range(length)))
    blocks.check_base(base)
    assert [weight_in(blocks, name, base) for name in names] == [position + 1 for position in range(length)]
    others = {name for name in TABLE if TABLE[name][base == "sdxl"]} - set(names)
    assert {weight_in(blocks, name, base) for name in others} <= {0.0}
    assert blocks.weight("unet", "conv_out", 0.7) == 0.7


# The extension's own presets: DEF_WEIGHT_PRESET of its source, lists of 17.
STOCK = {
    "NONE": "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0",
    "ALL": "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1",
    "INS": "1,1,1,1,0,0,0,0,0,0,0,0,0,0,0,0,0",
    "IND": "1,0,0,0,1,1,1,0,0,0,0,0,0,0,0,0,0",
    "INALL": "1,1,1,1,1,1,1,0,0,0,0,0,0,0,0,0,0",
    "MIDD": "1,0,0,0,1,1,1,1,1,1,1,1,0,0,0,0,0",
    "OUTD": "1,0,0,0,0,0,0,0,1,1,1,1,0,0,0,0,0",
    "OUTS": "1,0,0,0,0,0,0,0,0,0,0,0,1,1,1,1,1",
    "OUTALL": "1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1",
    "ALL0.5": ",".join(["0.5"] * 17),
}
# What our presets give beyond the stock lists: blocks by name, so that no convolution is lost.
BEYOND = {
    "NONE": "",
    "ALL": "IN00 IN03 IN06 IN09 IN10 IN11 OUT00 OUT01 OUT02",
    "INS": "IN00 IN03",
    "IND": "IN06 IN09 IN10 IN11",
    "INALL": "IN00 IN03 IN06 IN09 IN10 IN11",
    "MIDD": "IN06 IN09 IN10 IN11 OUT00 OUT01 OUT02",
    "OUTD": "OUT00 OUT01 OUT02",
    "OUTS": "",
    "OUTALL": "OUT00 OUT01 OUT02",
    "ALL0.5": "IN00 IN03 IN06 IN09 IN10 IN11 OUT00 OUT01 OUT02",
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    blocks = BlockWeights(name)
    numbers = [float(number) for number in STOCK[name].split(",")]
    assert [weight_in(blocks, block) for block in BLOCK_IDS[17].split()] == numbers
    acting = {block for block in BLOCKS if block not in BLOCK_IDS[17].split() and weight_in(blocks, block)}
    assert acting == set(BEYOND[name].split())
    assert all(weight_in(blocks, block) == max(numbers) for block in acting)
    assert BlockWeights(f" {name.lower()} ") == blocks


def test_thirds_replace_the_weight() -> None:
    """As in SD.Next's `NetworkModule.multiplier`, modules outside of all blocks follow in=."""
    blocks = BlockWeights(down=0.5, mid=0.0, up=-2)
    paths = ["down_blocks.0.resnets.0.conv1", "mid_block.resnets.0.conv1", "up_blocks.1.resnets.0.conv1", "conv_out"]
    assert [blocks.weight("unet", path, 0.8) for path in paths] == [0.5, 0.0, -2.0, 0.5]
    assert blocks.weight("text_encoder", "text_model.final_layer_norm", 0.8) == 0.8
    assert BlockWeights(mid=0.5).weight("unet", "conv_out", 0.8) == 0.8


def test_the_longest_path_decides() -> None:
    form = {"down_blocks.2": 0.5, "down_blocks.2.attentions.1": -2, "unet.mid_block": 0, "text_encoder": 3}
    blocks = BlockWeights.from_json(form)
    weights = {
        ("unet", "down_blocks.2.attentions.0.proj_in"): 0.4,
        ("unet", "down_blocks.2.attentions.1.proj_in"): -1.6,
        ("unet", "mid_block.attentions.0.proj_in"): 0.0,
        ("unet", "up_blocks.0.attentions.0.proj_in"): 0.8,
        ("text_encoder", "text_model.encoder.layers.0.mlp.fc1"): 3 * 0.8,
        ("text_encoder_2", "text_model.encoder.layers.0.mlp.fc1"): 0.8,
    }
    assert {key: blocks.weight(*key, 0.8) for key in weights} == weights


def test_all_factors_multiply() -> None:
    blocks = BlockWeights("ALL0.5", (("down_blocks.1", 4.0),), down=3.0)
    assert blocks.weight("unet", "down_blocks.1.resnets.0.conv1", 100.0) == 3 * 0.5 * 4


FORMS = [
    "OUTALL",
    [1.0] * 12,
    {"in": 0.5},
    {"lbw": "INS", "mid": 0.0, "out": 1.0, "down_blocks.2": 0.5},
    {"down_blocks.2": 0.5, "mid_block": 0.0, "up_blocks.0.attentions.1": 1.2},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_json_form_is_read_back(form: object) -> None:
    assert BlockWeights.from_json(form).to_json() == form
    assert hash(BlockWeights.from_json(form)) == hash(BlockWeights.from_json(form))


LENGTHS = "give 12 or 20 for SDXL, 17 or 26 for SD 1.5 and SD 2"


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ([1] * 13, f"lbw has 13 numbers; {LENGTHS}"),
        ([], f"lbw has 0 numbers; {LENGTHS}"),
        ([*[1] * 11, "R"], "lbw R is not a finite number"),
        ([*[1] * 11, float("nan")], "lbw nan is not a finite number"),
        ("OUTAL", 'lbw "OUTAL" is neither a preset nor a list; did you mean "OUTALL"?'),
        (
            "?",
            'lbw "?" is neither a preset nor a list; choose from '
            "NONE, ALL, ALL0.5, INS, IND, INALL, MIDD, OUTD, OUTS, OUTALL",
        ),
        (7, "lbw 7 is neither a preset nor a list"),
        ({"down_block.2": 1}, 'there is no module under "down_block.2"; did you mean "down_blocks.2"?'),
        ({"down_blocks.2": "1"}, "down_blocks.2 1 is not a finite number"),
        ({"": 1}, 'there is no module under ""; write down_blocks.2, mid_block or up_blocks.0.attentions.1'),
        ({"x\ny": 1}, 'there is no module under "x\\ny"; write down_blocks.2, mid_block or up_blocks.0.attentions.1'),
        ({"mid_block": 1, "unet.mid_block": 2}, "mid_block is given twice"),
        ({"in": True}, "in True is not a finite number"),
    ],
    ids=str,
)
def test_refused(form: object, message: str) -> None:
    assert message_of(BlendError, lambda: BlockWeights.from_json(form)) == message


@pytest.mark.parametrize(
    ("form", "base", "message"),
    [
        (
            [1] * 17,
            "sdxl",
            "lbw has 17 numbers, which is for SD 1.5 and SD 2, but the adapter is for SDXL; give 12 or 20 numbers",
        ),
        (
            [1] * 20,
            "sd15",
            "lbw has 20 numbers, which is for SDXL, but the adapter is for SD 1.5; give 17 or 26 numbers",
        ),
        (
            {"up_blocks.3": 1},
            "sdxl",
            "up_blocks.3 is in SD 1.5 and SD 2, but the adapter is for SDXL, which has no such block",
        ),
    ],
    ids=str,
)
def test_the_wrong_base_model(form: object, base: str, message: str) -> None:
    blocks = BlockWeights.from_json(form)
    assert message_of(BlendError, lambda: blocks.check_base(base)) == message
    blocks.check_base("unknown")
