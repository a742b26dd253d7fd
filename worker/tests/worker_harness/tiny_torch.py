"""Random torch models of a few kilobytes, in the layout of a Hub repository: same code paths, no download."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    TextToVideoSDPipeline,
    UNet2DConditionModel,
    UNet3DConditionModel,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

SIDE = 32  # pixels that the tiny pipelines make when nobody says how many
MULTIPLE = 2  # what their width and height must be a multiple of
WORDS = ["[PAD]", "[UNK]", "[END]", "good", "bad", "cat", "dog", "the", "very", "is", "and"]
LABELS = ["negative", "positive", "neutral"]
TEXT_WINDOW = 64  # tokens of the tiny language model, prompt and answer together
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WINDOW, _HIDDEN = 16, 16


def tiny_diffusion(folder: Path) -> Path:
    """A StableDiffusionPipeline."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=SIDE // MULTIPLE,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=_HIDDEN,
        attention_head_dim=4,
    )
    StableDiffusionPipeline(
        vae=_vae(),
        unet=unet,
        scheduler=_scheduler(),
        **_text_side(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def tiny_video(folder: Path) -> Path:
    """A TextToVideoSDPipeline, which is of the older kind: its callback has another name."""
    torch.manual_seed(0)
    unet = UNet3DConditionModel(
        sample_size=SIDE // MULTIPLE,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock3D", "CrossAttnDownBlock3D"),
        up_block_types=("CrossAttnUpBlock3D", "UpBlock3D"),
        cross_attention_dim=_HIDDEN,
        attention_head_dim=4,
    )
    TextToVideoSDPipeline(vae=_vae(), unet=unet, scheduler=_scheduler(), **_text_side()).save_pretrained(
        folder
    )
    return folder


def tiny_text_classifier(folder: Path) -> Path:
    """A BERT with three labels."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=_HIDDEN,
        intermediate_size=_HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=_WINDOW,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
        initializer_range=0.5,  # so that texts differ in their scores
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    _words_tokenizer().save_pretrained(folder)
    return folder


def tiny_text_generator(folder: Path, *, chat: bool = True) -> Path:
    """A Llama, with a chat template that takes no system message."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=_HIDDEN,
        intermediate_size=_HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=TEXT_WINDOW,
        bos_token_id=None,
        eos_token_id=WORDS.index("[END]"),
        pad_token_id=0,
        initializer_range=0.5,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer = _words_tokenizer()
    if chat:
        tokenizer.chat_template = (
            "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system message') }}"
            "{% endif %}{{ m.content }} {% endfor %}the"
        )
    tokenizer.save_pretrained(folder)
    return folder


def tiny_labeller_of_sound(folder: Path) -> Path:
    """A Wav2Vec2, which names a letter for each moment."""
    torch.manual_seed(0)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *_LETTERS]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    config = Wav2Vec2Config(
        vocab_size=len(letters),
        hidden_size=_HIDDEN,
        intermediate_size=_HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=2,
        conv_dim=(8, 8),
        conv_kernel=(10, 8),
        conv_stride=(20, 16),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
        initializer_range=0.5,
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    return folder


def tiny_whisper(folder: Path) -> Path:
    """A Whisper, which writes words that it hears as tokens."""
    torch.manual_seed(0)
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    tokens = [*_LETTERS, *special]
    end, start = tokens.index("<|endoftext|>"), tokens.index("<|startoftranscript|>")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=8).save_pretrained(folder)
    config = WhisperConfig(
        vocab_size=len(tokens),
        num_mel_bins=8,
        d_model=_HIDDEN,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=_HIDDEN,
        decoder_ffn_dim=_HIDDEN,
        max_target_positions=64,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=start,
        init_std=0.5,
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config.no_timestamps_token_id = tokens.index("<|notimestamps|>")
    model.save_pretrained(folder)
    return folder


def _words_tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", eos_token="[END]", padding_side="right"
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        sample_size=SIDE,
    )


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def _text_side() -> dict[str, object]:
    tokens = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), "<|startoftext|>", "<|endoftext|>"]
    start, end = len(tokens) - 2, len(tokens) - 1
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=_HIDDEN,
        intermediate_size=_HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=_WINDOW,
        bos_token_id=start,
        eos_token_id=end,
        pad_token_id=end,
    )
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=_WINDOW)
    return {"text_encoder": CLIPTextModel(config), "tokenizer": tokenizer}
