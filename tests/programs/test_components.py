"""Every folder of recorded components is somebody's: named in the test module that holds it."""

from pathlib import Path

import pytest
from recordings import RECORDED, SHIPPED, needs_shared

HOLDERS = {
    "act_*": "test_activations.py",
    "image_load": "test_torch7_image.py",
    "image_save": "test_torch7_image.py",
    "image_scale": "test_torch7_image.py",
    "losses": "test_losses.py",
    "names": "test_names.py",
    "optim": "test_torch7_optim.py",
    "preprocess": "test_pixels.py",
    "rng": "test_torch7_random.py",
}


@needs_shared
def test_every_recorded_component_has_a_test():
    folders = {path.name for path in (RECORDED / "components").iterdir()}
    held = {path.name for pattern in HOLDERS for path in (RECORDED / "components").glob(pattern)}
    assert folders == held
    assert len(folders) >= 21


@pytest.mark.parametrize(("folder", "module"), HOLDERS.items())
def test_the_test_names_the_component_that_it_holds(folder, module):
    (path,) = Path(__file__).parents[1].rglob(module)
    assert f'"{folder}"' in path.read_text()


def test_whatever_needs_no_photograph_is_shipped():
    """image_load's arrays are photographs, and so are the inputs of all activations."""
    shipped = {path.name for path in (SHIPPED / "components").iterdir()}
    assert shipped == set(HOLDERS) - {"act_*", "image_load"}
