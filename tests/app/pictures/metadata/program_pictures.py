"""Pictures of many programs, made by their public formats, with what is to be read from them."""

from __future__ import annotations

import json
from typing import Any

from tests.app.pictures.metadata.written import A1111, comfy_graph, exif_file, png_file, xmp

WANTED = {
    "prompt": "a red boat",
    "negative_prompt": "blurry",
    "width": 512,
    "height": 768,
    "steps": 20,
    "guidance_scale": 6.0,
    "seed": 12,
    "scheduler": "euler_a",
}
KARRAS = {"spacing": "karras"}
INK = [{"adapter": "ink", "weight": 0.8}]


def as_utf16(text: str) -> bytes:
    return b"UNICODE\0" + text.encode("utf-16-le")


SWARM: dict[str, Any] = {
    "sui_image_params": {
        "prompt": "a red boat",
        "negativeprompt": "blurry",
        "model": "SDXL/foo",
        "seed": 12,
        "steps": 20,
        "cfgscale": "6.0",
        "aspectratio": "Custom",
        "width": 512,
        "height": 768,
        "sampler": "euler_ancestral",
        "scheduler": "karras",
        "loras": ["styles/ink"],
        "loraweights": ["0.8"],
        "swarm_version": "0.9.2",
    },
    "sui_extra_data": {"date": "2024-01-01"},
}
SWARM_TAG = json.loads(json.dumps(SWARM))
SWARM_TAG["sui_image_params"] |= {"prompt": "a red boat <lora:ink:0.8:0.3>", "loratencweights": "0.3"}
FOOOCUS = {
    "base_model": "foo",
    "guidance_scale": 6,
    "loras": [["ink", 0.8, "ab"]],
    "lora_combined_1": "ink : 0.8",
    "metadata_scheme": "fooocus",
    "negative_prompt": "blurry",
    "performance": "Speed",
    "prompt": "a red boat",
    "full_prompt": ["a red boat"],
    "resolution": "(512, 768)",
    "sampler": "euler_ancestral",
    "scheduler": "karras",
    "seed": "12",
    "steps": 20,
    "styles": "[]",
    "version": "Fooocus v2.5.0",
    "refiner_model": "None",
}
RUINED = {
    "Prompt": "a red boat",
    "Negative": "blurry",
    "steps": 20,
    "cfg": 6,
    "width": 512,
    "height": 768,
    "seed": 12,
    "sampler_name": "euler_ancestral",
    "scheduler": "karras",
    "base_model_name": "foo.safetensors",
    "loras": "Loras:<styles/ink.safetensors:0.8>",
    "software": "RuinedFooocus",
}
INVOKE = {
    "generation_mode": "sdxl_txt2img",
    "positive_prompt": "a red boat",
    "negative_prompt": "blurry",
    "width": 512,
    "height": 768,
    "seed": 12,
    "cfg_scale": 6.0,
    "steps": 20,
    "scheduler": "euler_a",
    "model": {"name": "foo", "base": "sdxl", "type": "main"},
    "loras": [{"model": {"name": "ink", "base": "sdxl", "type": "lora"}, "weight": 0.8}],
    "app_version": "5.4.3",
}
INVOKE_3 = INVOKE | {
    "model": {"model_name": "foo", "base_model": "sdxl"},
    "loras": [{"lora": {"model_name": "ink", "base_model": "sdxl"}, "weight": 0.8}],
}
INVOKE_2 = {
    "model": "stable diffusion",
    "model_weights": "foo",
    "image": {
        "prompt": [{"prompt": "a red boat withLora(ink,0.8) [blurry]", "weight": 1.0}],
        "steps": 20,
        "cfg_scale": 6.0,
        "seed": 12,
        "width": 512,
        "height": 768,
        "sampler": "k_euler_a",
    },
}
NOVELAI = {
    "prompt": "a red boat",
    "steps": 20,
    "height": 768,
    "width": 512,
    "scale": 6.0,
    "seed": 12,
    "sampler": "k_euler_ancestral",
    "uc": "blurry",
    "noise_schedule": "karras",
    "request_type": "PromptGenerateRequest",
    "lora_unet_weights": None,
}
NOVELAI_CHUNKS = {
    "Title": "NovelAI generated image",
    "Description": "a red boat",
    "Software": "NovelAI",
    "Source": "NovelAI Diffusion V3",
}
EASY = {
    "prompt": "a red boat",
    "negative_prompt": "blurry",
    "seed": "12",
    "num_inference_steps": "20",
    "guidance_scale": "6",
    "width": "512",
    "height": "768",
    "sampler_name": "euler_a",
    "use_stable_diffusion_model": "foo",
    "use_vae_model": "None",
    "use_lora_model": "ink",
    "lora_alpha": "0.8",
}
EASY_LISTS = EASY | {"use_lora_model": "['ink', 'comic']", "lora_alpha": "[0.8, 0.5]"}
EASY_TITLES = {
    "Prompt": "a red boat",
    "Negative Prompt": "blurry",
    "Seed": "12",
    "Steps": "20",
    "Guidance Scale": "6",
    "Width": "512",
    "Height": "768",
    "Sampler": "euler_a",
    "Stable Diffusion model": "foo",
    "LoRA model": "ink",
    "LoRA Strength": "0.8",
}
DRAW_THINGS = {
    "c": "a red boat",
    "uc": "blurry",
    "model": "foo.ckpt",
    "sampler": "Euler A",
    "scale": 6,
    "seed": 12,
    "size": "512x768",
    "steps": 20,
    "strength": 1,
    "lora": [{"model": "ink", "weight": 0.8}],
}
TENSORART = {
    "models": [
        {
            "label": "Ink",
            "type": "LORA",
            "modelId": "1",
            "weight": 0.8,
            "modelFileName": "ink",
            "baseModel": "SDXL 1.0",
        },
    ],
    "prompt": "a red boat",
    "negativePrompt": "blurry",
    "width": 512,
    "height": 768,
    "imageCount": 1,
    "samplerName": "Euler a",
    "steps": 20,
    "cfgScale": 6,
    "seed": "12",
    "clipSkip": 1,
    "baseModel": {"label": "Foo", "type": "BASE_MODEL", "modelFileName": "foo"},
    "sdVae": "Automatic",
}
STABILITY_MATRIX = {
    "PositivePrompt": "a red boat <lora:ink:0.8>",
    "NegativePrompt": "blurry",
    "Width": 512,
    "Height": 768,
    "Seed": 12,
    "Steps": 20,
    "CfgScale": 6.0,
    "Sampler": "Euler Ancestral",
    "ModelName": "foo.safetensors",
    "ModelHash": "ab",
}
MRE = {
    "prompt": "a red boat",
    "real_prompt": ["a red boat"],
    "negative_prompt": "blurry",
    "real_negative_prompt": ["blurry"],
    "seed": 12,
    "width": 512,
    "height": 768,
    "performance": "Speed",
    "steps": 20,
    "img2img_mode": False,
    "cfg": 6.0,
    "sampler": "euler_ancestral",
    "scheduler": "karras",
    "base_model": "foo.safetensors",
    "l1": "ink.safetensors",
    "w1": 0.8,
    "l2": "None",
    "w2": 0.5,
    "software": "Fooocus 2.0.78.5 MRE",
}
SPACE = {
    "prompt": "a red boat",
    "negative_prompt": "blurry",
    "resolution": "512 x 768",
    "guidance_scale": 6,
    "num_inference_steps": 20,
    "seed": 12,
    "sampler": "Euler a",
    "sdxl_style": "(None)",
    "use_lora": {"selected": "ink", "Lora weight": 0.8},
    "use_upscaler": None,
    "Model": {"Model": "foo", "Model hash": "ab"},
}
SD_SCRIPTS = {
    "prompt": "a red boat",
    "seed": "12",
    "sampler": "euler_a",
    "steps": "20",
    "scale": "6.0",
    "negative-prompt": "blurry",
    "original-height": "768",
    "crop-top": "0",
}
SYGIL = {
    "SD:prompt": "a red boat",
    "SD:negative_prompt": "blurry",
    "SD:seed": "12",
    "SD:width": "512",
    "SD:height": "768",
    "SD:steps": "20",
    "SD:cfg_scale": "6",
    "SD:sampler_name": "k_euler_a",
    "SD:normalize_prompt_weights": "True",
    "SD:denoising_strength": "0.0",
    "SD:GFPGAN": "False",
}
MOCHI = (
    "Include in Image: a red boat; Exclude from Image: blurry; Model: foo; Steps: 20; Guidance Scale: 6.0; Seed: 12; "
    "Size: 512x768; Upscaler: none; Scheduler: Euler Ancestral; ML Compute Unit: CPU; Generator: Mochi Diffusion 4"
)
CIVITAI = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    "extra": {"airs": ["urn:air:sdxl:checkpoint:civitai:1@2", "urn:air:sdxl:lora:civitai:3@4"]},
    "extraMetadata": json.dumps(
        {
            "prompt": "a red boat",
            "negativePrompt": "blurry",
            "steps": 20,
            "cfgScale": 6,
            "sampler": "Euler a",
            "seed": 12,
            "width": 512,
            "height": 768,
            "workflowId": "txt2img",
            "resources": [{"modelVersionId": 2, "strength": 1}, {"modelVersionId": 4, "strength": 0.8}],
        }
    ),
}
COMFY = json.dumps(comfy_graph())

# name, file, program, what differs from WANTED, adapters
Case = tuple[str, bytes, str, dict[str, Any], list[dict[str, Any]]]
CASES: list[Case] = [
    ("A1111 PNG", png_file({"parameters": A1111}), "AUTOMATIC1111 (or its form)", {}, INK),
    ("A1111 JPEG", exif_file("JPEG", b"UNICODE\0" + A1111.encode("utf-16-be")), "AUTOMATIC1111 (or its form)", {}, INK),
    ("A1111 WebP", exif_file("WEBP", b"ASCII\0\0\0" + A1111.encode()), "AUTOMATIC1111 (or its form)", {}, INK),
    (
        "Forge",
        png_file({"parameters": f"{A1111}, Schedule type: Karras, Version: f2.0.1v1.10.1"}),
        "Forge",
        KARRAS,
        INK,
    ),
    ("SD.Next", exif_file("JPEG", as_utf16(f"{A1111}, App: SD.Next, Version: 1a2b")), "SD.Next", {}, INK),
    ("SwarmUI PNG", png_file({"parameters": json.dumps(SWARM, indent=2)}), "SwarmUI", KARRAS, INK),
    ("SwarmUI JPEG", exif_file("JPEG", as_utf16(json.dumps(SWARM))), "SwarmUI", KARRAS, INK),
    ("SwarmUI WebP", exif_file("WEBP", as_utf16(json.dumps(SWARM))), "SwarmUI", KARRAS, INK),
    (
        "SwarmUI, a tag in its own order",
        png_file({"parameters": json.dumps(SWARM_TAG)}),
        "SwarmUI",
        KARRAS,
        [{"adapter": "ink", "weight": 0.8, "text_encoder": 0.3}],
    ),
    ("Fooocus PNG", png_file({"parameters": json.dumps(FOOOCUS), "fooocus_scheme": "fooocus"}), "Fooocus", KARRAS, INK),
    ("Fooocus JPEG", exif_file("JPEG", json.dumps(FOOOCUS), first=True), "Fooocus", KARRAS, INK),
    ("RuinedFooocus", png_file({"parameters": json.dumps(RUINED)}), "RuinedFooocus", KARRAS, INK),
    (
        "RuinedFooocus 2",
        png_file({"parameters": json.dumps(RUINED | {"loras": [["0123456789abcdef", "0.8 - ink.safetensors"]]})}),
        "RuinedFooocus",
        KARRAS,
        INK,
    ),
    ("InvokeAI 5", png_file({"invokeai_metadata": json.dumps(INVOKE), "invokeai_graph": "{}"}), "InvokeAI", {}, INK),
    ("InvokeAI 3", png_file({"invokeai_metadata": json.dumps(INVOKE_3)}), "InvokeAI", {}, INK),
    ("InvokeAI 2", png_file({"sd-metadata": json.dumps(INVOKE_2)}), "InvokeAI", {}, INK),
    (
        "InvokeAI 1",
        png_file({"Dream": '"a red boat withLora(ink,0.8) [blurry]" -s 20 -S 12 -W 512 -H 768 -C 6.0 -A k_euler_a'}),
        "InvokeAI",
        {},
        INK,
    ),
    ("NovelAI PNG", png_file({**NOVELAI_CHUNKS, "Comment": json.dumps(NOVELAI)}), "NovelAI", KARRAS, []),
    (
        "NovelAI WebP",
        exif_file("WEBP", as_utf16(json.dumps({"Software": "NovelAI", "Comment": json.dumps(NOVELAI)}))),
        "NovelAI",
        KARRAS,
        [],
    ),
    ("Easy Diffusion PNG", png_file(EASY), "Easy Diffusion", {}, INK),
    ("Easy Diffusion PNG, titles", png_file(EASY_TITLES), "Easy Diffusion", {}, INK),
    ("Easy Diffusion JPEG", exif_file("JPEG", as_utf16(json.dumps(EASY))), "Easy Diffusion", {}, INK),
    (
        "Easy Diffusion, two",
        png_file(EASY_LISTS),
        "Easy Diffusion",
        {},
        [*INK, {"adapter": "comic", "weight": 0.5}],
    ),
    ("Draw Things PNG", png_file({"XML:com.adobe.xmp": xmp(json.dumps(DRAW_THINGS))}), "Draw Things", {}, INK),
    (
        "Draw Things JPEG",
        exif_file("JPEG", xmp=xmp(json.dumps(DRAW_THINGS), as_attribute=True).encode()),
        "Draw Things",
        {},
        INK,
    ),
    ("ComfyUI PNG", png_file({"prompt": COMFY, "workflow": "{}"}), "ComfyUI", KARRAS, INK),
    (
        "ComfyUI WebP",
        exif_file("WEBP", tags={0x010F: "workflow:{}", 0x0110: f"prompt:{COMFY}"}),
        "ComfyUI",
        KARRAS,
        INK,
    ),
    (
        "ComfyUI JPEG",
        exif_file("JPEG", as_utf16(json.dumps({"prompt": comfy_graph(), "workflow": {}}))),
        "ComfyUI",
        KARRAS,
        INK,
    ),
    ("TensorArt PNG", png_file({"generation_data": json.dumps(TENSORART)}), "TensorArt", {}, INK),
    (
        "TensorArt, with its graph",
        png_file({"prompt": COMFY.replace("ink", "EMS-1-EMS"), "generation_data": json.dumps(TENSORART)}),
        "TensorArt",
        {},
        INK,
    ),
    ("Stability Matrix", png_file({"parameters-json": json.dumps(STABILITY_MATRIX)}), "Stability Matrix", {}, INK),
    ("Fooocus-MRE PNG", png_file({"Comment": json.dumps(MRE)}), "Fooocus-MRE", KARRAS, INK),
    ("a Space with diffusers", png_file({"parameters": json.dumps(SPACE)}), "diffusers", {}, INK),
    ("sd-scripts", png_file(SD_SCRIPTS), "sd-scripts", {"width": 64, "height": 96}, []),
    ("Sygil", png_file(SYGIL), "Sygil", {}, []),
    ("Mochi Diffusion", png_file({"XML:com.adobe.xmp": xmp(MOCHI)}), "Mochi Diffusion", {}, []),
    (
        "Civitai, enlarged",
        exif_file("JPEG", as_utf16(json.dumps(CIVITAI))),
        "Civitai",
        {},
        [{"adapter": "urn:air:sdxl:lora:civitai:3@4", "weight": 0.8}],
    ),
    (
        "InvokeAI 1, joined options",
        png_file({"Dream": '"a red boat withLora(ink,0.8) [blurry]" -s20 -S12 -W512 -H768 -C6.0 -Ak_euler_a'}),
        "InvokeAI",
        {},
        INK,
    ),
    (
        "Fooocus, objects",
        png_file({"parameters": json.dumps(FOOOCUS | {"loras": [{"name": "ink", "weight": 0.8}]})}),
        "Fooocus",
        KARRAS,
        INK,
    ),
    (
        "Civitai's generator",
        png_file(
            {
                "parameters": A1111.replace(" <lora:ink:0.8>", "")
                + ', Civitai resources: [{"type":"checkpoint","modelVersionId":1,"modelName":"foo"},'
                '{"type":"lora","weight":0.8,"modelVersionId":2,"modelName":"ink"}], Civitai metadata: {}'
            }
        ),
        "Civitai",
        {},
        INK,
    ),
]
