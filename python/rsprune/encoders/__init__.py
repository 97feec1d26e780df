"""Encoders: from images to unit vectors."""

from __future__ import annotations

from rsprune.encoders.base import DeviceOptions, Encoder, Precision
from rsprune.encoders.registry import FAMILIES, ZOO, EncoderOutline, EncoderSpec, encoder_names, load_encoder

__all__ = [
    "FAMILIES",
    "ZOO",
    "DeviceOptions",
    "Encoder",
    "EncoderOutline",
    "EncoderSpec",
    "Precision",
    "encoder_names",
    "load_encoder",
]
