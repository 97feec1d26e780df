"""Encoders: from images to unit vectors."""

from __future__ import annotations

from rsprune.encoders.base import DeviceOptions, Encoder, Precision
from rsprune.encoders.registry import FAMILIES, ZOO, EncoderSpec, encoder_names, load_encoder

__all__ = [
    "FAMILIES",
    "ZOO",
    "DeviceOptions",
    "Encoder",
    "EncoderSpec",
    "Precision",
    "encoder_names",
    "load_encoder",
]
