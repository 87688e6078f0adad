"""A folder like that of the published GPT-2, its smallest size, at random weights: 548 MB, made once and then kept.

As in the published file, names have no "transformer." before them, each block has its mask (which nobody needs) among
the tensors, and the numbers begin 3 bytes after a multiple of four: they cannot be used where they lie. Both libraries
open the same file.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(tempfile.gettempdir()) / "sprint-to-gpt-like-gpt2"
ROOT = str(Path(__file__).resolve().parent.parent)


def folder():
    """The folder; its first call writes it, in another process, whose memory is not counted."""
    if not (FOLDER / "model.safetensors").exists():
        code = f"import sys; sys.path[:0] = {[ROOT, ROOT + '/benchmarks']!r}; import gpt2_files; gpt2_files.write()"
        subprocess.run([sys.executable, "-c", code], check=True)
    return FOLDER


def write():
    """Writes the folder; the file with the weights last."""
    import json
    import struct

    import numpy as np
    from safetensors.numpy import load_file, save

    import shared
    from shared.models import GPT, GPTConfig, save_pretrained

    shared.manual_seed(0)
    config = GPTConfig.preset("gpt2", dropout=0.0)
    with tempfile.TemporaryDirectory() as made:
        save_pretrained(GPT(config), made)
        tensors = {k.removeprefix("transformer."): a for k, a in load_file(f"{made}/model.safetensors").items()}
        settings = json.loads(Path(made, "config.json").read_text())
    mask = np.tril(np.ones((1, 1, 1024, 1024), np.float32))
    tensors |= {f"h.{i}.attn.bias": mask for i in range(config.n_layer)}
    content = save(tensors, metadata={"format": "pt"})
    (length,) = struct.unpack("<Q", content[:8])
    filler = b" " * ((3 - 8 - length) % 4)  # allowed behind the header's JSON
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "config.json").write_text(json.dumps(settings))
    temporary = FOLDER / "model.tmp"
    with open(temporary, "wb") as file:
        file.write(struct.pack("<Q", length + len(filler)) + content[8 : 8 + length] + filler)
        file.write(memoryview(content)[8 + length :])
    temporary.rename(FOLDER / "model.safetensors")


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
