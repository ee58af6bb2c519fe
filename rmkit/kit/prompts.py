"""Prompts that do not fit: refused with the words that would be lost, where the pipelines cut them off in silence.

Wan's pipelines (T2V, VACE, LucyEdit) read so many tokens of a prompt and drop the rest. Reads a model's tokenizer; writes
nothing. Prompts are given by where they come from, so that the sentence says what to shorten.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rmkit.errors import InputError
from rmkit.kit import models, weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check(name: str, prompts: Mapping[str, str]) -> None:
    """Raise InputError unless all prompts fit into a Wan pipeline, a folder or hub name; loads its tokenizer only."""
    reader = tokenizer(name)
    for where, prompt in prompts.items():
        require(reader, where, prompt)


def tokenizer(name: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of a Wan pipeline, a folder or hub name; raises InputError for one that is not whole."""
    from transformers import AutoTokenizer

    folder = weights.part_folder(name, "tokenizer")
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise InputError(
            f"{folder} is no tokenizer that transformers reads ({said}): copy the model again."
        ) from None


def require(tokenizer: "PreTrainedTokenizerBase", where: str, prompt: str) -> None:
    """Raise InputError unless a Wan pipeline with this tokenizer reads all of a prompt, cleaned as it cleans it."""
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    require_tokens(tokenizer, models.text_length(tokenizer), where, prompt_clean(prompt))


def require_tokens(
    tokenizer: "PreTrainedTokenizerBase", length: int, where: str, text: str, template: str = "{}"
) -> None:
    """Raise InputError unless a text has `length` tokens at most, with the special ones and the template's around it.

    The sentence opens with `where` and shows the words that would be lost, from the first that is not whole.
    """
    count = len(tokenizer(template.format(text), verbose=False)["input_ids"])
    if count <= length:
        return
    offsets = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
    alone = tokenizer(text, **offsets)["offset_mapping"]  # where in the text each token is of
    fit = max(0, len(alone) - (count - length))
    start = alone[fit][0]
    while start and text[start - 1 : start + 1].isalnum():
        start -= 1  # half a word is no word
    raise InputError(
        f"{where} has {len(alone)} tokens and the model reads {fit}, so that these words would be lost: "
        f"'{text[start:].strip()}'. Shorten it."
    )
