"""Published language models, where a folder of them is given: RMAS_REAL_MODELS=<folder>.

CI has no such folder, and this test does not exist there.
"""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import real_models

FOLDER = os.environ.get("RMAS_REAL_MODELS")
MODELS = sorted(p.parent for p in Path(FOLDER).glob("*/config.json")) if FOLDER else []

if MODELS:

    @pytest.mark.slow
    @pytest.mark.parametrize("dtype", real_models.DTYPES)
    @pytest.mark.parametrize("folder", MODELS, ids=lambda path: path.name)
    def test_a_published_model_loads_quietly_and_writes_what_the_library_writes(folder, dtype):
        found = real_models.examine(folder, dtype)
        assert found["warnings"] == [] and found["prefix_reuse"]
        assert found["same_ids"] == found["same_texts"] == found["prompts"]
