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

tokenizer = shared.text.ByteLevelBPE.train(text, vocab_size=1000)   # GPT-2's tokenizer: any text; or .gpt2()
ids = tokenizer.encode("Où est le ☕?")
shared.text.save_tokenizer(tokenizer, folder)                       # beside a model; load_tokenizer(folder)

Word vectors: `SkipGram` learns them (skip_gram.py), `WordVectors` answers which are alike (similarity.py).
"""

from shared.text import babi
from shared.text.batching import BucketBatchSampler, PadCollate
from shared.text.bpe import ByteLevelBPE
from shared.text.byte_pairs import apply_merges, count_pairs, merge_pair, most_frequent_pair, train_merges
from shared.text.pretokenize import byte_ids, bytes_to_unicode, split_pieces
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
from shared.text.tokenizer import Tokenizer, load_tokenizer, save_tokenizer
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
    "ByteLevelBPE",
    "CharVocabulary",
    "NegativeSampler",
    "PadCollate",
    "SkipGram",
    "Tokenizer",
    "Vocabulary",
    "WordVectors",
    "WordVocabulary",
    "analogy",
    "apply_merges",
    "babi",
    "byte_ids",
    "bytes_to_unicode",
    "cosine_similarities",
    "count_pairs",
    "keep_frequent",
    "keep_probability",
    "load_tokenizer",
    "merge_pair",
    "most_frequent_pair",
    "nearest",
    "negative_sampling_loss",
    "noise_probabilities",
    "save_tokenizer",
    "skip_gram_pairs",
    "split_pieces",
    "split_words",
    "subsample",
    "train_merges",
    "unit_rows",
]
