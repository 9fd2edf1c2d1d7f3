from types import ModuleType

import pytest

import lorablend.adapters
from lorablend.adapters import (
    adapter,
    base_model,
    blend,
    delta,
    errors,
    file,
    inspect,
    keys,
    lora,
    metadata,
    modules,
    patterns,
    prompt,
    scale,
)

MODULES = (
    lorablend.adapters, adapter, base_model, blend, delta, errors, file, inspect, keys, lora, metadata, modules,
    patterns, prompt, scale,
)  # fmt: skip


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_all_is_sorted_and_true(module: ModuleType) -> None:
    assert module.__all__ == sorted(set(module.__all__), key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("module", MODULES[1:], ids=lambda module: module.__name__)
def test_all_names_everything_public_that_the_module_defines(module: ModuleType) -> None:
    defined = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }
    assert defined <= set(module.__all__)


def test_the_package_offers_what_its_modules_offer_to_users() -> None:
    assert lorablend.adapters.__all__ == [
        "Adapter",
        "Blend",
        "BlendItem",
        "Delta",
        "RawFactors",
        "inspect_adapter",
        "load_adapter",
        "parse_lora_option",
        "parse_prompt",
        "resolve_blend",
    ]
