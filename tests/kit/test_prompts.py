"""Prompts: what a model would cut is refused with the words that would be lost, in each place that takes a prompt."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import train_video
from test_enhance import adapted as adapted
from test_enhance import with_enhance
from test_external import ditto as ditto
from test_external import lucy as lucy
from test_external import lucy_folder as lucy_folder

from rmkit import baselines, cli, profile
from rmkit.errors import InputError
from rmkit.extras import own_video
from rmkit.kit import encode, models, prompts, store, video
from rmkit.method import anchoring, dataset, enhance, propagation, sampling, structure

WORD = "street "  # one token of the tiny models' tokenizers


def of_tokens(tokenizer, count: int, end: str = "lamp post") -> str:
    """A prompt of exactly so many tokens, the special ones with them, that ends in these words."""
    words = end
    while len(tokenizer(WORD + words)["input_ids"]) <= count:
        words = WORD + words
    assert len(tokenizer(words)["input_ids"]) == count
    return words


@pytest.fixture
def tokenizer(tiny_profile: profile.Profile):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_profile.models.wan, subfolder="tokenizer")


def test_the_words_that_would_be_lost_are_shown_whole(tokenizer) -> None:
    length = models.text_length(tokenizer)
    fits = of_tokens(tokenizer, length)
    prompts.require(tokenizer, "the prompt", fits)
    with pytest.raises(
        InputError, match=rf"^x has {length} tokens .* reads {length - 1}, .*lost: 'post'\. Shorten"
    ):
        prompts.require(tokenizer, "x", of_tokens(tokenizer, length + 1))
    assert len(tokenizer("post")["input_ids"]) > 2  # of which one was lost: half a word is shown as the whole
    with pytest.raises(InputError, match="lost: 'and more'"):
        prompts.require(tokenizer, "x", fits + " and more")
    # What the pipelines clean away does not count, and their tokenizers' padding is no prompt.
    prompts.require(tokenizer, "x", fits.replace(" ", "  \n ") + "   ")
    prompts.require(tokenizer, "x", "")


def test_words_without_spaces_are_shown_from_the_last_mark(tokenizer) -> None:
    text = "细节模糊不清，字幕，" + "风格，" * 30
    with pytest.raises(InputError) as refused:
        prompts.require(tokenizer, "x", text)
    lost = str(refused.value).split("lost: '")[1].split("'")[0]
    assert lost.startswith("风格,") and 0 < lost.count("风格") < 30  # the pipelines write commas as ASCII's


def test_the_editors_template_counts(tiny_profile, tiny_clips) -> None:
    pipeline = models.load_editor(tiny_profile)
    frame = video.read(sampling.path(tiny_profile, tiny_clips[0]))[0]
    around = pipeline.tokenizer(pipeline.prompt_template_encode.format(""))["input_ids"]
    limit = pipeline.tokenizer_max_length + pipeline.prompt_template_encode_start_idx - len(around)

    def asking(prompt: str) -> profile.Profile:
        return tiny_profile.model_copy(
            update={"anchors": tiny_profile.anchors.model_copy(update={"prompt": prompt})}
        )

    anchoring.edit_frame(asking(of_tokens(pipeline.tokenizer, limit)), pipeline, frame, 0)
    with pytest.raises(InputError, match=r"anchors\.prompt has .*lost: 'post'"):
        anchoring.edit_frame(asking(of_tokens(pipeline.tokenizer, limit + 1)), pipeline, frame, 0)


def test_text_to_video_refuses_before_a_model_is_loaded(adapted, tokenizer, monkeypatch) -> None:
    length = models.text_length(tokenizer)
    fits, too_long = (of_tokens(tokenizer, count) for count in (length, length + 1))
    clips = sampling.load(adapted, "validation")
    enhance.enhance(adapted, clips[:1], prompt=lambda _: fits, into="fits")
    pipeline = models.load_wan(adapted)
    assert encode.text(pipeline, fits).shape[1] == length
    with pytest.raises(InputError, match="lost: 'post'"):
        encode.text(pipeline, too_long)
    monkeypatch.setattr(models, "load_wan", lambda *_, **__: pytest.fail("loaded"))
    # Of all clips, not of the first alone.
    with pytest.raises(InputError, match=rf"prompt of clip {clips[1].id} \(its caption.*lost: 'post'"):
        enhance.enhance(adapted, clips, prompt=lambda clip: too_long if clip == clips[1] else "a man")
    guided = with_enhance(adapted, guidance_low=2.0, negative_prompt=too_long)
    with pytest.raises(InputError, match=r"enhance\.negative_prompt has .*lost: 'post'"):
        enhance.enhance(guided, clips, prompt=lambda _: fits)


def test_own_videos_and_training_refuse_it_too(
    adapted, pairs_profile, tokenizer, tmp_path, monkeypatch
) -> None:
    too_long = of_tokens(tokenizer, models.text_length(tokenizer) + 1)
    monkeypatch.setattr(models, "load_wan", lambda *_, **__: pytest.fail("loaded"))
    source = sampling.path(adapted, sampling.load(adapted)[0])
    with pytest.raises(InputError, match=r"the prompt has .*lost: 'post'"):
        own_video.enhance_video(adapted, source, tmp_path / "out.mp4", prompt=too_long)
    listing = pairs_profile.layout.pairs / "pairs.json"
    entries = json.loads(listing.read_text())
    entries[1]["caption"] = too_long
    store.write_json(listing, entries)
    with pytest.raises(InputError, match=rf"prompt of pair {entries[1]['clip']} .*lost: 'post'"):
        dataset.encode(pairs_profile)


def test_vace_refuses_before_it_is_loaded(tiny_profile, tiny_clips, tokenizer, monkeypatch) -> None:
    length = models.text_length(tokenizer)
    fits, too_long = (of_tokens(tokenizer, count) for count in (length, length + 1))
    pipeline = propagation.load(tiny_profile)
    encode_prompt = propagation.encoder(tiny_profile, pipeline)
    assert encode_prompt(fits)["prompt_embeds"].shape[1] == length
    with pytest.raises(InputError, match="lost: 'post'"):
        encode_prompt(too_long)
    clips = [tiny_clips[0], replace(tiny_clips[1], caption=too_long)]
    structure.extract(tiny_profile, clips)
    anchoring.edit(tiny_profile, clips)
    monkeypatch.setattr(models, "load_vace", lambda _: pytest.fail("loaded"))
    with pytest.raises(InputError, match=rf"prompt of clip {clips[1].id} .*lost: 'post'"):
        propagation.propagate(tiny_profile, clips, "edges")
    guided = tiny_profile.propagation.model_copy(update={"guidance": 2.0, "negative_prompt": too_long})
    with pytest.raises(InputError, match=r"propagation\.negative_prompt has .*lost: 'post'"):
        propagation.encoder(tiny_profile.model_copy(update={"propagation": guided}), pipeline)
    with pytest.raises(InputError, match=r"propagation\.negative_prompt has .*lost: 'post'"):
        propagation.propagate(tiny_profile.model_copy(update={"propagation": guided}), clips[:1], "edges")


@pytest.mark.parametrize("name", ["lucy_edit", "editto"])
def test_external_methods_refuse_before_any_method_begins(request, tiny_clips, tokenizer, name: str) -> None:
    made = request.getfixturevalue({"lucy_edit": "lucy", "editto": "ditto"}[name])
    settings = made.baselines[name]
    folder = settings["model"] if name == "lucy_edit" else made.models.wan
    limit = json.loads((Path(folder) / "tokenizer" / "tokenizer_config.json").read_text())["model_max_length"]

    def check(prompt: str) -> None:
        asked = profile.Profile.model_validate(
            {**made.model_dump(), "baselines": {name: settings | {"prompt": prompt}}}
        )
        baselines.every(asked)[name].check(asked, 1)

    check(of_tokens(tokenizer, limit))
    with pytest.raises(InputError, match=rf"baselines\.{name}\.prompt has .*lost: 'post'"):
        check(of_tokens(tokenizer, limit + 1))


def test_edittos_negative_prompt_must_fit_too(ditto, tiny_checkpoints) -> None:
    """It is its authors' and long: a VACE that reads as little as the miniature's would see its beginning only."""
    small = ditto.models.model_copy(update={"wan": str(tiny_checkpoints / "wan")})
    with pytest.raises(InputError, match=r"Editto's own negative prompt has .*走'"):
        baselines.every(ditto)["editto"].check(ditto.model_copy(update={"models": small}), 1)


def test_captions_that_would_be_cut_are_not_trained_on(
    tmp_path: Path, tiny_checkpoints: Path, tokenizer
) -> None:
    shutil.copytree(tiny_checkpoints / "wan", tmp_path / "wan")
    length = models.text_length(tokenizer)
    fits, too_long = (of_tokens(tokenizer, count) for count in (length, length + 1))
    text = train_video.Text(tmp_path, [fits], trained=False, start_from=tmp_path)
    assert text([fits, "a man"]).shape == (2, length, 96)
    with pytest.raises(InputError, match="lost: 'post'"):
        train_video.Text(tmp_path, [fits, too_long], trained=False, start_from=tmp_path)


def test_the_command_line_says_it_in_a_line(adapted, tokenizer, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(cli, "_load", lambda _: adapted)
    source = sampling.path(adapted, sampling.load(adapted)[0])
    too_long = of_tokens(tokenizer, models.text_length(tokenizer) + 1)
    assert cli.main(["enhance", str(source), str(tmp_path / "out.mp4"), "--prompt", too_long]) == 2
    assert "would be lost: 'post'" in capsys.readouterr().err
