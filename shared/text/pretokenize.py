"""What happens to a text before byte pairs are merged: it is cut into pieces, and each byte gets a visible character.

Source: OpenAI's GPT-2, `src/encoder.py` (github.com/openai/gpt-2): the pattern, and the table of characters.
"""

from __future__ import annotations

import functools
from typing import Any

# English contractions; a space and letters; a space and digits; a space and other marks; white space, of which the
# last blank before a word is left to that word.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def bytes_to_unicode() -> dict[int, str]:
    """A visible character for each of the 256 bytes, in the order of the ids that GPT-2 gives to single bytes.

    First the 188 bytes that are printed as they are in Latin-1: "!" … "~" (33 … 126), "¡" … "¬" (161 … 172) and
    "®" … "ÿ" (174 … 255), each with the character of that code point. Then the 68 others in rising order (control
    characters, white space, the soft hyphen), whose characters are those of the code points 256, 257, 258, …: the
    space, byte 32, becomes "Ġ". So every token can be written in a line of a file, though it is half of a character.

    >>> table = bytes_to_unicode()
    >>> len(table), table[ord("A")], table[ord(" ")], list(table).index(ord(" "))
    (256, 'A', 'Ġ', 220)
    >>> "".join(table[byte] for byte in " Zoë".encode("utf-8"))
    'ĠZoÃ«'
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    table = {byte: chr(byte) for byte in visible}
    table |= {byte: chr(256 + n) for n, byte in enumerate(hidden)}
    return table


@functools.cache
def _id_of_byte() -> list[int]:
    ids = [0] * 256
    for i, byte in enumerate(bytes_to_unicode()):
        ids[byte] = i
    return ids


def byte_ids(piece: str) -> list[int]:
    """The ids of the bytes of a piece in UTF-8: the id of a byte is its place in `bytes_to_unicode()`.

    >>> byte_ids("! é")
    [0, 220, 127, 102]
    """
    table = _id_of_byte()
    return [table[byte] for byte in piece.encode("utf-8")]


@functools.cache
def pattern() -> Any:
    r"""GPT-2's pattern, compiled by the package `regex`: Python's `re` knows no \p{L} (letter) and \p{N} (number)."""
    import regex

    return regex.compile(GPT2_PATTERN)


def split_pieces(text: str) -> list[str]:
    """The pieces of a text, in order, none of it lost: "".join(split_pieces(text)) == text. No merge crosses a cut.

    What is a letter, a number or white space is what the installed `regex` says, which follows one version of Unicode.
    The `tokenizers` library has tables of its own: with regex 2026.11.15 and tokenizers 0.23.3 they differ in 17,480
    characters that Unicode took in after its version 16, letters and numbers here, marks there.

    TypeError for what is no string; ValueError for a text with half of a surrogate pair, which UTF-8 cannot write.

    >>> split_pieces("We'll meet  at 10:45!\\n")
    ['We', "'ll", ' meet', ' ', ' at', ' 10', ':', '45', '!', '\\n']
    """
    if not isinstance(text, str):
        raise TypeError(f"expected a text, but got {type(text).__name__}")
    if not text.isascii():
        _refuse_surrogates(text)
    return pattern().findall(text)


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} of this text is {text[error.start]!r}, half of a surrogate pair: UTF-8 has none, "
            f'and so no token has. text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") mends such a text'
        ) from None
