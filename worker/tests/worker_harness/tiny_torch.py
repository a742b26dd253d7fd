"""Random torch models of a few kilobytes, in the layout of a Hub repository: same code paths, no download."""

from __future__ import annotations

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
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

SIDE = 32  # pixels that the tiny pipelines make when nobody says how many
MULTIPLE = 2  # what their width and height must be a multiple of
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
