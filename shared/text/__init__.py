"""Text as numbers: vocabularies that turn it into ids and back, and batches of texts of different lengths.

vocabulary = shared.text.CharVocabulary.from_text(text)
ids = vocabulary.encode("to be")             # a list of ints
vocabulary.decode(ids)                       # 'to be', exactly

words = shared.text.WordVocabulary.from_text(lines, min_freq=2, specials=("<pad>", "<unk>"))
dataset = [(words.encode(line), label) for line, label in examples]
order = shared.text.BucketBatchSampler([len(ids) for ids, _ in dataset], batch_size=32)
collate = shared.text.PadCollate(words.pad_id)
for ids, labels in shared.data.DataLoader(dataset, batch_sampler=order, collate_fn=collate): ...

stories = shared.text.babi.load(1)           # bAbI's questions about short stories: generated, or the real ones

Word vectors: `SkipGram` learns them (skip_gram.py), `WordVectors` answers which are alike (similarity.py).
"""

from shared.text import babi
from shared.text.batching import BucketBatchSampler, PadCollate
from shared.text.similarity import WordVectors, analogy, cosine_similarities, nearest, unit_rows
from shared.text.skip_gram import (
    NegativeSampler,
    SkipGram,
    keep_probability,
    negative_sampling_loss,
    noise_probabilities,
    skip_gram_pairs,
    subsample,
)
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
    "NegativeSampler",
    "PadCollate",
    "SkipGram",
    "Vocabulary",
    "WordVectors",
    "WordVocabulary",
    "babi",
    "analogy",
    "cosine_similarities",
    "keep_frequent",
    "keep_probability",
    "nearest",
    "negative_sampling_loss",
    "noise_probabilities",
    "skip_gram_pairs",
    "split_words",
    "subsample",
    "unit_rows",
]
