import importlib
import pkgutil
from types import ModuleType

import pytest

import lorablend.adapters

MODULES = (
    lorablend.adapters,
    *(
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(lorablend.adapters.__path__, "lorablend.adapters.")
        if not module.ispkg
    ),
)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_all_is_sorted_and_exists(module: ModuleType) -> None:
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


def test_the_package_exports_what_its_modules_have_for_users() -> None:
    assert lorablend.adapters.__all__ == [
        "Adapter",
        "BiasDelta",
        "Blend",
        "BlendItem",
        "BlockWeights",
        "Delta",
        "Entry",
        "Gated",
        "Mask",
        "RawFactors",
        "Schedule",
        "inspect_adapter",
        "load_adapter",
        "parse_lora_option",
        "parse_prompt",
        "read_blend_json",
        "resolve_blend",
        "write_tags",
    ]
