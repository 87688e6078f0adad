"""A folder with a model of GPT-2's smallest size at random weights, 498 MB, made once and kept for the next runs.

Both libraries open the same file, as they would the published one.
"""

import tempfile
from pathlib import Path

FOLDER = Path(tempfile.gettempdir()) / "sprint-to-gpt-random-124m"


def folder():
    """The folder; its first call writes it, in another process, whose memory is not counted."""
    import subprocess
    import sys

    if not (FOLDER / "model.safetensors").exists():
        root = str(Path(__file__).resolve().parent.parent)
        code = (
            f"import sys; sys.path.insert(0, {root!r}); import shared; shared.manual_seed(0); "
            f"from shared.models import GPT, GPTConfig, save_pretrained; "
            f"save_pretrained(GPT(GPTConfig.preset('gpt2', dropout=0.0)), {str(FOLDER)!r})"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
    return FOLDER


def load(library):
    """The model by the library's own loader, in eval mode; PyTorch's is transformers' GPT2LMHeadModel."""
    if library.name == "torch":
        from transformers import GPT2LMHeadModel

        return GPT2LMHeadModel.from_pretrained(folder()).eval()
    from shared.models import load_pretrained

    return load_pretrained(folder())


def continuing(library, prompt, new):
    """A function that continues a random prompt by `new` likeliest tokens, with a KV cache, at batch 1."""
    import numpy as np

    model = load(library)
    ids = np.random.default_rng(0).integers(0, 50257, (1, prompt))
    if library.name == "torch":
        torch = library.tensor
        given = torch.from_numpy(ids)
        options = {"do_sample": False, "max_new_tokens": new, "min_new_tokens": new, "pad_token_id": 50256}
        mask = torch.ones_like(given)

        def run():
            with torch.inference_mode():
                found = model.generate(given, attention_mask=mask, **options)
            assert found.shape[1] == prompt + new

        return run
    from shared.generation import GenerationConfig, generate

    config = GenerationConfig(max_new_tokens=new, temperature=0.0)

    def run():
        found = generate(model, ids.tolist(), config)
        assert len(found[0]) == new

    return run
