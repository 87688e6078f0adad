"""Text as numbers: vocabularies that turn it into ids and back, and batches of texts of different lengths.

vocabulary = shared.text.CharVocabulary.from_text(text)
ids = vocabulary.encode("to be")             # a list of ints
vocabulary.decode(ids)                       # 'to be', exactly

words = shared.text.WordVocabulary.from_text(lines, min_freq=2, specials=("<pad>", "<unk>"))
dataset = [(words.encode(line), label) for line, label in examples]
order = shared.text.BucketBatchSampler([len(ids) for ids, _ in dataset], batch_size=32)
collate = shared.text.PadCollate(words.pad_id)
for ids, labels in shared.data.DataLoader(dataset, batch_sampler=order, collate_fn=collate): ...
"""

from shared.text.batching import BucketBatchSampler, PadCollate
from shared.text.vocabulary import (
    BOS,
    EOS,
    PAD,
    UNK,
    CharVocabulary,
    Vocabulary,
    WordVocabulary,
    keep_frequent,
    split_words,
)

__all__ = [
    "BOS",
    "EOS",
    "PAD",
    "UNK",
    "BucketBatchSampler",
    "CharVocabulary",
    "PadCollate",
    "Vocabulary",
    "WordVocabulary",
    "keep_frequent",
    "split_words",
]
