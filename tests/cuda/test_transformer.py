"""Transformers with their masks on the GPU, or on the stand-in of CuPy: as on the CPU."""

import shared
from shared import nn
from shared.nn import masks
from tests.cuda import test_positions
from tests.cuda.test_positions import same_on

cuda = test_positions.cuda


def test_a_transformer_with_masks(cuda):
    def translated(device, src, tgt):
        model = nn.Transformer(8, 2, 1, 1, 16, 0.0, batch_first=True).to(device)
        hidden = shared.tensor([[False, False, False, False], [False, False, True, True]], device=device)
        ahead = nn.Transformer.generate_square_subsequent_mask(5, device=device)
        return model(src, tgt, tgt_mask=ahead, src_key_padding_mask=hidden, memory_key_padding_mask=hidden)

    same_on(cuda, translated, (2, 4, 8), (2, 5, 8))


def test_blocks_with_masks_and_a_cache(cuda):
    def decoded(device, x, memory):
        encoder, decoder = nn.EncoderBlock(8, 2, 16, 0.0).to(device), nn.DecoderBlock(8, 2, 16, 0.0).to(device)
        mask = masks.length_mask(shared.tensor([4, 2], device=device), 4)
        memory, cache = encoder(memory, mask), nn.KVCache()
        pieces = [decoder(x[:, i : i + 2], memory, memory_mask=mask, cache=cache) for i in range(0, 6, 2)]
        return shared.cat(pieces, 1)

    same_on(cuda, decoded, (2, 6, 8), (2, 4, 8))
